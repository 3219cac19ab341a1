/** Entry of the one executable: answers `--version` at once, and hands everything else to the command tree. */
import { args, exit, print } from "./core/platform/process.ts";
import { versionLine } from "./core/config/version.ts";

if (import.meta.main) {
  const argv = args();
  if (argv[0] === "--version" || argv[0] === "-V") {
    print("stdout", `${versionLine()}\n`);
  } else {
    const { run } = await import("./cmd/program.ts");
    // Not just an exit code: a timer or socket that is still open must not keep a finished command alive.
    exit(await run(argv));
  }
}
