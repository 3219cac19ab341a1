/** `anyfs migrate`: crawls existing data into the tree; the source is never changed. */
import { showDuration, showSize } from "../core/config/units.ts";
import { printable } from "../core/observe/style.ts";
import { systemClock } from "../core/platform/clock.ts";
import { hostname } from "../core/platform/process.ts";
import { systemRandom } from "../core/platform/random.ts";
import { processorCount } from "../core/platform/workers.ts";
import { nameOf } from "../core/remote/url_path.ts";
import type { MigrateReport } from "../core/sync/migrate_report.ts";
import { serverUrl } from "./remote.ts";
import { type LocalPlace, localSource } from "./transfer.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { countArgument, rateArgument, treePath } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  /** Path in the tree. */
  readonly to: string;
  readonly jobs?: number;
  readonly dryRun?: true;
  /** Bytes a second; null: no limit. */
  readonly bwlimit?: number | null;
}

/** Exit code 6 when some files failed. */
async function migrateAll(context: Context, sources: readonly string[], options: Options): Promise<number> {
  const { out, signal } = context;
  const [{ migrate }, { connectRemote }] = await Promise.all([
    import("../core/sync/migrate.ts"),
    import("../core/remote/client.ts"),
  ]);
  // All of them first: a mistyped one is told before hours of work.
  const opened: { name: string; place: LocalPlace }[] = [];
  try {
    for (const source of sources) {
      const place = await localSource(source);
      opened.push({ name: nameOf(source.replace(/\/+$/, "")), place });
    }
    const started = systemClock.monotonic();
    const reports: (MigrateReport & { source: string; to: string })[] = [];
    const progress = context.progress(options.dryRun ? "count" : "migrate");
    try {
      for (const [i, { name, place }] of opened.entries()) {
        // Each crawl is a device of its own: its inode numbers and requests are counted from the beginning.
        await using link = connectRemote({
          url: await serverUrl(context),
          token: await context.token(),
          device: systemRandom.uuid(),
          host: `migrate on ${hostname()}`,
          clock: systemClock,
        });
        const { device } = await link.ready(10_000, signal);
        // One source's entries go right into the target; of several, each gets a folder of its name.
        const to = opened.length === 1 ? options.to : `${options.to === "/" ? "" : options.to}/${name}`;
        const report = await migrate({
          source: place.fs,
          from: place.path,
          link,
          device,
          to: to === "" ? "/" : to,
          jobs: options.jobs ?? Math.max(4, processorCount()),
          dryRun: options.dryRun === true,
          bytesPerSecond: options.bwlimit ?? null,
          clock: systemClock,
          signal,
          onFailure: (path, error) => progress.note(`anyfs: ${printable(`${path}: ${error.message}`)}`),
          onProgress(done, path) {
            progress.add(done);
            progress.at(path);
          },
        });
        reports.push({ source: sources[i] ?? "", to, ...report });
      }
    } finally {
      progress.finish();
    }
    const sum = (field: (report: MigrateReport) => number) => reports.reduce((total, each) => total + field(each), 0);
    const seconds = (systemClock.monotonic() - started) / 1000;
    const total = {
      dry_run: options.dryRun === true,
      files: sum((r) => r.files),
      directories: sum((r) => r.directories),
      links: sum((r) => r.links),
      bytes: sum((r) => r.bytes),
      sent: sum((r) => r.sent),
      deduplicated: sum((r) => r.deduplicated),
      skipped: sum((r) => r.skipped),
      skipped_bytes: sum((r) => r.skippedBytes),
      failed: sum((r) => r.failed),
      failures: reports.flatMap((r) => r.failures),
      seconds: Math.round(seconds * 1000) / 1000,
    };
    out.data(total, () =>
      [
        `files        ${total.files}${options.dryRun ? " to take in" : ""}`,
        `bytes        ${total.bytes} (${showSize(total.bytes)})`,
        `deduplicated ${total.deduplicated} (${showSize(total.deduplicated)})`,
        `sent         ${total.sent} (${showSize(total.sent)})`,
        `folders      ${total.directories}`,
        `links        ${total.links}`,
        `skipped      ${total.skipped}`,
        `failed       ${total.failed}`,
        `time         ${showDuration(seconds * 1000)}`,
      ].join("\n") + "\n");
    return total.failed > 0 ? 6 : 0;
  } finally {
    for (const { place } of opened) await place[Symbol.asyncDispose]();
  }
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<source...>", "folders of this machine")
      .option("--to <path>", "where in the tree, anyfs:/path", treePath, "/")
      .option("--jobs <n>", "files at a time (default: one a processor)", countArgument)
      .option("--dry-run", "only count and report")
      .option("--bwlimit <rate>", "bytes a second, for example 20M", rateArgument)
      .action((sources, options) => start((context) => migrateAll(context, sources, options)));
    example(
      command,
      "anyfs migrate /mnt/old-nas --to anyfs:/archive --jobs 4",
      "Takes a folder in; run again, it goes on.",
    );
  },
};
