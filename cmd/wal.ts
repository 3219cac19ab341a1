/** `anyfs wal`: the work that still has to reach a tier, and on a client the journal. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { InvalidArgumentError } from "commander";
import { durationArgument } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  /** The client's journal instead of the server's log. */
  readonly journal?: true;
}

function list(_context: Context, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("wal ls"));
}
function show(_context: Context, _id: number, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("wal show"));
}
/** `id` null: all that failed. */
function retry(_context: Context, _id: number | null, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("wal retry"));
}
/** Waits until it is empty; `timeout` in milliseconds. */
function flush(_context: Context, _options: Options & { readonly timeout?: number }): Promise<void> {
  return Promise.reject(notBuilt("wal flush"));
}
function drop(_context: Context, _id: number, _options: Options & { readonly yes?: true }): Promise<void> {
  return Promise.reject(notBuilt("wal drop"));
}

function entryId(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError(`${JSON.stringify(text)} is not an entry's number`);
  return Number(text);
}

const JOURNAL = ["--journal", "the client's journal instead of the server's log"] as const;

export const command: CommandModule = {
  configure(command, start: Start) {
    const ls = command.command("ls").description("list what waits").option(...JOURNAL)
      .action((options) => start((context) => list(context, options)));
    example(ls, "anyfs wal ls", "Number, tier, bytes, attempts and last error of every entry.");
    const showOne = command.command("show").description("everything about one entry").argument(
      "<id>",
      "its number",
      entryId,
    )
      .option(...JOURNAL)
      .action((id, options) => start((context) => show(context, id, options)));
    example(showOne, "anyfs wal show 17", "One entry with its last error.");
    const again = command.command("retry").description("try again now").argument("[id]", "only this entry", entryId)
      .option(...JOURNAL)
      .action((id, options) => start((context) => retry(context, id ?? null, options)));
    example(again, "anyfs wal retry", "Tries everything again that waits after a failure.");
    const wait = command.command("flush").description("upload now and wait until nothing is left")
      .option("--timeout <time>", "give up after this time", durationArgument).option(...JOURNAL)
      .action((options) => start((context) => flush(context, options)));
    example(wait, "anyfs wal flush --timeout 10m", "Before a shutdown: everything is on the cold tier afterwards.");
    const forget = command.command("drop").description("give up one entry").argument("<id>", "its number", entryId)
      .option("--yes", "really").option(...JOURNAL)
      .action((id, options) => start((context) => drop(context, id, options)));
    example(forget, "anyfs wal drop 17 --yes", "Gives up one entry for good.");
    example(command, "anyfs wal ls", "What still has to reach a tier.");
  },
};
