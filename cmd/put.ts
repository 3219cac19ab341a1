/** `anyfs put`: stores local files, or standard input, in the tree. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { parseTreePath } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  readonly recursive?: true;
  /** Fail rather than replace a file. */
  readonly noClobber?: true;
}

/** `source` is null for standard input. */
function store(_context: Context, _source: string | null, _path: string, _options: Options): Promise<number | void> {
  return Promise.reject(notBuilt("put"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<source>", "local file or folder, - for standard input; left out: standard input")
      .argument("[path]", "where in the tree")
      .option("-r, --recursive", "a folder with all in it")
      .option("-n, --no-clobber", "fail rather than replace a file")
      .action((source, path, { recursive, clobber }) =>
        start((context) =>
          store(context, path === undefined || source === "-" ? null : source, parseTreePath(path ?? source), {
            ...(recursive === undefined ? {} : { recursive }),
            ...(clobber ? {} : { noClobber: true }),
          })
        )
      );
    example(command, "anyfs put holiday.jpg /photos/2024/holiday.jpg", "Uploads one file.");
  },
};
