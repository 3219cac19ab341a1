/** `anyfs wal --journal`: what the mounts of this machine have not delivered yet, and the conflicts that wait for somebody. */
import { showDuration, showSize } from "../core/config/units.ts";
import { FsError } from "../core/fs/error.ts";
import type { Conflict } from "../core/offline/conflict_list.ts";
import type { JournalItem } from "../core/offline/journal_view.ts";
import type { RunningMount } from "../core/offline/mount_control.ts";
import { printable } from "../core/observe/style.ts";
import { systemClock } from "../core/platform/clock.ts";
import type { Context } from "./context.ts";
import { localMounts, type MountOptions } from "./local_mounts.ts";

const PAGE = 1000;

interface Journal {
  readonly mount: string;
  readonly mode: string;
  readonly stopped: string | null;
  readonly blocked: { readonly message: string } | null;
  readonly changes: readonly JournalItem[];
  readonly conflicts: readonly Conflict[];
}

async function journalOf(mount: RunningMount): Promise<Journal> {
  const { mode, stopped, blocked } = await mount.call("status") as Pick<Journal, "mode" | "stopped" | "blocked">;
  const changes: JournalItem[] = [];
  for (;;) {
    const after = changes.at(-1)?.id ?? 0;
    const page = await mount.call("journal.list", { after, limit: PAGE }) as {
      items: JournalItem[];
      conflicts: Conflict[];
    };
    changes.push(...page.items);
    if (page.items.length < PAGE) {
      return { mount: mount.dir, mode, stopped, blocked, changes, conflicts: page.conflicts };
    }
  }
}

export async function listJournal(context: Context, options: MountOptions): Promise<void> {
  const journals: Journal[] = [];
  for (const mount of await localMounts(context, options)) journals.push(await journalOf(mount));
  context.out.data(journals, () => journals.map((journal) => text(journal)).join(""));
}
function text({ mount, mode, stopped, blocked, changes, conflicts }: Journal): string {
  const bytes = changes.reduce((sum, item) => sum + item.bytes, 0);
  const lines = [`${mount}  ${mode}, ${changes.length} changes (${showSize(bytes)}) not delivered`];
  if (stopped !== null) lines.push(`  stopped: ${printable(stopped)}`);
  if (blocked !== null) lines.push(`  waits: ${printable(blocked.message)}`);
  for (const item of changes) {
    const error = item.last_error === null ? "" : `  ${printable(item.last_error)}`;
    const age = showDuration(item.age_ms);
    lines.push(
      `  ${item.id}  ${item.state}  ${item.what}  ${printable(item.path)}  ${showSize(item.bytes)}  ${age}${error}`,
    );
  }
  for (const { id, kind, path, loser } of conflicts) {
    lines.push(`  conflict ${id}  ${kind}  ${printable(path)}  the other version: ${printable(loser ?? "-")}`);
  }
  return lines.join("\n") + "\n";
}

/** The one mount that has it; `has` is asked of each. */
async function theMount(context: Context, options: MountOptions): Promise<RunningMount> {
  const mounts = await localMounts(context, options);
  const [first] = mounts;
  if (first === undefined || mounts.length > 1) {
    throw new FsError("invalid_input", `${mounts.length} mounts are running: say which one with --mount DIR`);
  }
  return first;
}

export async function showJournal(context: Context, id: number, options: MountOptions): Promise<void> {
  const journal = await journalOf(await theMount(context, options));
  const item = journal.changes.find((each) => each.id === id);
  if (item === undefined) throw new FsError("not_found", `nothing with the number ${id} waits in the journal`);
  context.out.data(
    item,
    () =>
      Object.entries(item).map(([name, value]) => `${name.padEnd(10)} ${printable(String(value ?? "-"))}\n`).join(""),
  );
}
export async function retryJournal(context: Context, options: MountOptions): Promise<void> {
  const mounts = await localMounts(context, options);
  for (const mount of mounts) await mount.call("journal.retry");
  context.out.data({ retried: mounts.length }, () => "tried again now\n");
}
export async function dropJournal(context: Context, id: number, yes: boolean, options: MountOptions): Promise<void> {
  if (!yes) throw new FsError("invalid_input", `change ${id} would be lost for good: say --yes to mean it`);
  await (await theMount(context, options)).call("journal.drop", { id });
  context.out.data({ dropped: id }, () => `change ${id} is given up\n`);
}
export async function flushJournal(context: Context, options: MountOptions, timeoutMs?: number): Promise<void> {
  const end = systemClock.monotonic() + (timeoutMs ?? Infinity);
  for (const mount of await localMounts(context, options)) {
    for (;;) {
      const left = end - systemClock.monotonic();
      const { done } = await mount.call("drain", { timeoutMs: Math.max(1, Math.min(5000, left)) }) as { done: boolean };
      if (done) break;
      context.signal.throwIfAborted();
      if (left > 5000) continue;
      const { changes, mode } = await journalOf(mount);
      throw new FsError(
        "timeout",
        `${mount.dir} is ${mode} and has ${changes.length} changes left; see "anyfs wal --journal"`,
      );
    }
  }
  context.out.data({ entries: 0 }, () => "the journal is empty\n");
}

export interface ResolveOptions extends MountOptions {
  readonly keep?: "ours" | "theirs" | "both";
  readonly epoch?: "keep-mine" | "keep-server";
}
export async function resolveJournal(context: Context, id: number | undefined, options: ResolveOptions): Promise<void> {
  if (options.epoch !== undefined) {
    const mount = await theMount(context, options);
    const result = await mount.call("epoch.resolve", { keep: options.epoch }) as { files: number; missing: string[] };
    context.out.data(result, () => {
      const lines = result.missing.map((path) => `not complete here, so not sent: ${printable(path)}\n`).join("");
      return `${lines}going on with ${mount.url}; ${result.files} files are sent to it again\n`;
    });
    return;
  }
  if (id === undefined || options.keep === undefined) {
    throw new FsError("invalid_input", "say which conflict and what holds: resolve ID --keep ours|theirs|both");
  }
  await (await theMount(context, options)).call("journal.resolve", { id, keep: options.keep });
  context.out.data({ resolved: id, keep: options.keep }, () => `conflict ${id} is settled: ${options.keep}\n`);
}
