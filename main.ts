/** Entry of the one executable: answers `--version` at once, and hands everything else to the command tree. */
import { args, exit, print } from "./core/platform/process.ts";
import { versionLine } from "./core/config/version.ts";

async function main(argv: readonly string[]): Promise<void> {
  if (argv[0] === "--version" || argv[0] === "-V") return print("stdout", `${versionLine()}\n`);
  const { run } = await import("./cmd/program.ts");
  // Not just an exit code: a timer or socket that is still open must not keep a finished command alive.
  exit(await run(argv));
}

// Not awaited: the executable's scripts run at once (scripts/build/loader.ts). What it throws ends the program all the same.
if (import.meta.main) void main(args());
