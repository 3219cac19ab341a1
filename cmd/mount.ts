/** `anyfs mount`: shows the tree as a folder of this machine. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { Option } from "@commander-js/extra-typings";
import { sizeArgument } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  readonly readOnly?: true;
  readonly view?: string;
  readonly cacheDir?: string;
  /** Bytes. */
  readonly cacheSize?: number;
  readonly writePolicy: "back" | "through";
  readonly conflict?: "server-wins" | "client-wins" | "keep-both" | "newer" | "manual";
  readonly allowOther?: true;
  readonly offline?: true;
  readonly background?: true;
}

/** Prints one ready line when mounted; stays until unmounted or the context's signal aborts. */
function mount(_context: Context, _folder: string, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("mount"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<dir>", "an empty folder of this machine")
      .option("--read-only", "nothing can be changed through this mount")
      .option("--view <name>", "a view of the library instead of the tree")
      .option("--cache-dir <dir>", "where the cache and the journal are kept")
      .option("--cache-size <size>", "how large the cache may grow", sizeArgument)
      .addOption(
        new Option("--write-policy <policy>", "when a write is done: in the journal (back) or at the server (through)")
          .choices(["back", "through"] as const).default("back" as const),
      )
      .addOption(
        new Option("--conflict <policy>", "what holds when both sides changed a file")
          .choices(["server-wins", "client-wins", "keep-both", "newer", "manual"] as const),
      )
      .option("--allow-other", "other users of this machine may use the mount")
      .option("--offline", "begin without the server")
      .option("--background", "return when mounted")
      .action((dir, options) => start((context) => mount(context, dir, options)));
    example(
      command,
      "anyfs mount ~/AnyFS --server http://nas.local:7734",
      "Mounts; without --server one is looked for.",
    );
  },
};
