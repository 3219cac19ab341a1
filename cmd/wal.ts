/** `anyfs wal`: the work that still has to reach a tier, and on a client the journal. */
import { showSize } from "../core/config/units.ts";
import { FsError, hasCode } from "../core/fs/error.ts";
import { printable } from "../core/observe/style.ts";
import { systemClock } from "../core/platform/clock.ts";
import type { RemoteBackend } from "../core/remote/remote_backend.ts";
import { withRemote } from "./remote.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { CACHE_DIR, MOUNT, type MountOptions } from "./local_mounts.ts";
import { dropJournal, flushJournal, listJournal, resolveJournal, retryJournal, showJournal } from "./wal_journal.ts";
import { InvalidArgumentError } from "commander";
import { type Command, Option } from "@commander-js/extra-typings";
import { durationArgument } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options extends MountOptions {
  /** The client's journal instead of the server's log. */
  readonly journal?: true;
}

interface Entry {
  readonly id: number;
  readonly tier: string;
  readonly op: string;
  readonly object: string | null;
  readonly pack: number;
  readonly bytes: number;
  readonly attempts: number;
  readonly not_before: number;
  readonly last_error: string | null;
  readonly created: number;
  readonly state: string;
}
interface Page {
  readonly entries: number;
  readonly bytes: number;
  readonly wal: readonly Entry[];
  readonly cursor: number | null;
}

async function* pages(tree: RemoteBackend, signal: AbortSignal): AsyncGenerator<Page> {
  let cursor: number | null = 0;
  while (cursor !== null) {
    const page = await tree.getJson(`/v1/admin/wal?cursor=${cursor}`, { signal }) as Page;
    yield page;
    cursor = page.cursor;
  }
}

const COLUMNS = [
  { title: "ID", align: "right" },
  { title: "TIER" },
  { title: "OP" },
  { title: "BYTES", align: "right" },
  { title: "TRIES", align: "right" },
  { title: "STATE" },
  { title: "OBJECT" },
  { title: "LAST ERROR" },
] as const;

async function list(context: Context, options: Options): Promise<void> {
  if (options.journal) return await listJournal(context, options);
  await withRemote(context, async (tree) => {
    const entries: Entry[] = [];
    for await (const page of pages(tree, context.signal)) entries.push(...page.wal);
    context.out.table(entries, COLUMNS, (entry) => [
      String(entry.id),
      entry.tier,
      entry.op,
      showSize(entry.bytes),
      String(entry.attempts),
      entry.state,
      entry.object?.slice(0, 16) ?? `pack ${entry.pack}`,
      printable(entry.last_error ?? ""),
    ]);
  });
}
async function show(context: Context, id: number, options: Options): Promise<void> {
  if (options.journal) return await showJournal(context, id, options);
  await withRemote(context, async (tree) => {
    for await (const page of pages(tree, context.signal)) {
      const entry = page.wal.find((each) => each.id === id);
      if (entry === undefined) continue;
      context.out.data(entry, () => {
        const rows = Object.entries(entry).map(([name, value]) => {
          const isTime = (name === "created" || name === "not_before") && typeof value === "number" && value > 0;
          return `${name.padEnd(10)} ${isTime ? new Date(value).toISOString() : printable(String(value ?? "-"))}\n`;
        });
        return rows.join("");
      });
      return;
    }
    throw new FsError("not_found", `the log has no entry ${id}; see "anyfs wal ls"`, { path: String(id) });
  });
}
/** `id` null: all that failed. */
async function retry(context: Context, id: number | null, options: Options): Promise<void> {
  if (options.journal) return await retryJournal(context, options);
  await withRemote(context, async (tree) => {
    const { retried } = await tree.postJson("/v1/admin/wal/retry", id === null ? {} : { id }, {
      signal: context.signal,
    }) as { retried: number };
    context.out.data({ retried }, () => `${retried} ${retried === 1 ? "entry is" : "entries are"} tried again\n`);
  });
}
/** Asks in steps: a request must not stand for an hour. */
const FLUSH_STEP_MS = 5_000;
/** Waits until it is empty; `timeout` in milliseconds. */
async function flush(context: Context, options: Options & { readonly timeout?: number }): Promise<void> {
  if (options.journal) return await flushJournal(context, options, options.timeout);
  const { signal } = context;
  await withRemote(context, async (tree) => {
    const end = systemClock.monotonic() + (options.timeout ?? Infinity);
    const progress = context.progress("flush");
    try {
      let first: number | null = null;
      for (;;) {
        const left = end - systemClock.monotonic();
        try {
          await tree.postJson("/v1/admin/flush", {
            timeout_ms: Math.max(1, Math.round(Math.min(FLUSH_STEP_MS, left))),
          }, { signal });
          context.out.data({ entries: 0, bytes: 0 }, () => "the write-ahead log is empty\n");
          return;
        } catch (error) {
          if (!hasCode(error, "timeout")) throw error;
        }
        const { entries, bytes } = await tree.getJson("/v1/admin/wal?limit=1", { signal }) as Page;
        if (end <= systemClock.monotonic()) {
          throw new FsError(
            "timeout",
            `the write-ahead log still has ${entries} entries, ${
              showSize(bytes)
            }; see "anyfs wal ls" for what stands in the way`,
            { operation: "flush" },
          );
        }
        if (first === null) progress.expect({ bytes: first = bytes });
        progress.at(`${entries} entries, ${showSize(bytes)} left`);
      }
    } finally {
      progress.finish();
    }
  });
}
async function drop(context: Context, id: number, options: Options & { readonly yes?: true }): Promise<void> {
  if (options.journal) return await dropJournal(context, id, options.yes ?? false, options);
  throw notBuilt("wal drop of the server's log");
}

function entryId(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError(`${JSON.stringify(text)} is not an entry's number`);
  return Number(text);
}

/** The options every one of these commands has. */
function journal<C extends Command>(command: C): C {
  command.option("--journal", "the client's journal instead of the server's log").option(...CACHE_DIR).option(...MOUNT);
  return command;
}
/** What commander says itself where a command has no action of its own. */
type Unknown = { unknownCommand(): never };

export const command: CommandModule = {
  configure(command, start: Start) {
    journal(command).allowExcessArguments()
      .action(() => {
        if (command.args.length > 0) (command as unknown as Unknown).unknownCommand();
        return start((context) => list(context, command.opts()));
      });
    const sub = (name: string, description: string) => journal(command.command(name).description(description));
    /** A flag before the name of the subcommand counts as well. */
    const all = <O extends object>(options: O): O & Options => ({ ...command.opts(), ...options });
    const ls = sub("ls", "list what waits").action((options) => start((context) => list(context, all(options))));
    example(ls, "anyfs wal ls", "Number, tier, bytes, attempts and last error of every entry.");
    const showOne = sub("show", "everything about one entry").argument("<id>", "its number", entryId)
      .action((id, options) => start((context) => show(context, id, all(options))));
    example(showOne, "anyfs wal show 17", "One entry with its last error.");
    const again = sub("retry", "try again now").argument("[id]", "only this entry", entryId)
      .action((id, options) => start((context) => retry(context, id ?? null, all(options))));
    example(again, "anyfs wal retry", "Tries everything again that waits after a failure.");
    const wait = sub("flush", "upload now and wait until nothing is left")
      .option("--timeout <time>", "give up after this time", durationArgument)
      .action((options) => start((context) => flush(context, all(options))));
    example(wait, "anyfs wal flush --timeout 10m", "Before a shutdown: everything is on the cold tier afterwards.");
    const forget = sub("drop", "give up one entry").argument("<id>", "its number", entryId)
      .option("--yes", "really")
      .action((id, options) => start((context) => drop(context, id, all(options))));
    example(forget, "anyfs wal drop 17 --journal --yes", "Gives up one undelivered change for good.");
    const settle = sub("resolve", "settle a conflict of a mount").argument("[id]", "its number", entryId)
      .addOption(
        new Option("--keep <version>", "what has the name afterwards").choices(["ours", "theirs", "both"] as const),
      )
      .addOption(
        new Option("--epoch <side>", "after the server was restored from a backup: whose tree holds")
          .choices(["keep-mine", "keep-server"] as const),
      )
      .action((id, options) => start((context) => resolveJournal(context, id, all(options))));
    example(settle, "anyfs wal resolve 3 --journal --keep ours", "The version that was put aside takes the name.");
    example(command, "anyfs wal ls", "What still has to reach a tier; with --journal what a mount has not delivered.");
  },
};
