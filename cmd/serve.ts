/** `anyfs serve`: the daemon. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  /** `host:port`. */
  readonly listen?: string;
  readonly stateDir?: string;
  /** Also mount the tree here. */
  readonly mount?: string;
  /** `s3://bucket/prefix`: bring the tree back from there into an empty state folder. */
  readonly restore?: string;
}

/** Prints one ready line when it accepts requests; ends when the context's signal aborts, after draining. */
function serve(_context: Context, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("serve"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .option("--listen <host:port>", "address to listen on (default: the configuration's, or 127.0.0.1:7734)")
      .option("--state-dir <dir>", "where index, log and hot tier are kept")
      .option("--mount <dir>", "also mount the tree here")
      .option("--restore <url>", "bring the tree back from s3://bucket/prefix into an empty state folder")
      .action((options) => start((context) => serve(context, options)));
    example(command, "anyfs serve --listen 127.0.0.1:7734", "Serves the tree; prints one line when it is ready.");
  },
};
