/** `anyfs wal`: the work that still has to reach a tier, and on a client the journal. */
import { showSize } from "../core/config/units.ts";
import { FsError, hasCode } from "../core/fs/error.ts";
import { printable } from "../core/observe/style.ts";
import { systemClock } from "../core/platform/clock.ts";
import type { RemoteBackend } from "../core/remote/remote_backend.ts";
import { withRemote } from "./remote.ts";
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

function serverOnly(options: Options, command: string): void {
  if (options.journal) throw notBuilt(`${command} --journal`);
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
  serverOnly(options, "wal ls");
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
  serverOnly(options, "wal show");
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
  serverOnly(options, "wal retry");
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
  serverOnly(options, "wal flush");
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
