/** `anyfs pin` and `anyfs unpin`: keep a subtree complete and up to date on this machine, or no longer. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import { CACHE_DIR, localMounts, MOUNT, type MountOptions, mountsFor } from "./local_mounts.ts";
import { showSize } from "../core/config/units.ts";
import { FsError } from "../core/fs/error.ts";
import type { RunningMount } from "../core/offline/mount_control.ts";
import type { PinStatus } from "../core/offline/pins.ts";
import { printable } from "../core/observe/style.ts";
import { systemClock } from "../core/platform/clock.ts";

interface Options extends MountOptions {
  /** False with --no-wait. */
  readonly wait: boolean;
}

const POLL_MS = 300;

const pinsOf = async (mount: RunningMount): Promise<PinStatus[]> =>
  (await mount.call("pin.list") as { pins: PinStatus[] }).pins;

async function list(context: Context, options: MountOptions): Promise<void> {
  const rows: (PinStatus & { readonly mount: string })[] = [];
  for (const mount of await localMounts(context, options)) {
    for (const pin of await pinsOf(mount)) rows.push({ mount: mount.dir, ...pin });
  }
  context.out.table(
    rows,
    [
      { title: "MOUNT" },
      { title: "PATH" },
      { title: "STATE" },
      { title: "FILES", align: "right" },
      { title: "HERE", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "LAST ERROR" },
    ],
    (row) => [
      row.mount,
      printable(row.path),
      row.state,
      String(row.files),
      String(row.files_here),
      showSize(row.bytes),
      printable(row.last_error ?? ""),
    ],
  );
}

async function pin(context: Context, given: string | undefined, options: Options): Promise<void> {
  if (given === undefined) return await list(context, options);
  for (const { mount, path: asked } of await mountsFor(context, given, options)) {
    const { path } = await mount.call("pin.add", { path: asked }) as { path: string };
    const status = options.wait ? await wait(context, mount, path) : await statusOf(mount, path);
    context.out.item({ mount: mount.dir, ...status }, () => {
      const { files, bytes, state, files_here } = status;
      const here = state === "complete" ? "all here" : `${files_here} here, ${state}`;
      return `${mount.dir}: ${printable(status.path)} is pinned: ${files} files, ${showSize(bytes)}, ${here}`;
    });
  }
}
async function statusOf(mount: RunningMount, path: string): Promise<PinStatus> {
  const found = (await pinsOf(mount)).find((each) => each.path === path);
  if (found === undefined) throw new FsError("not_found", `${path} is not pinned any more`, { path });
  return found;
}
/** Until it is complete, or nothing more can be fetched now. */
async function wait(context: Context, mount: RunningMount, path: string): Promise<PinStatus> {
  const progress = context.progress(`pin ${path}`);
  try {
    for (;;) {
      const status = await statusOf(mount, path);
      progress.expect({ bytes: status.bytes });
      progress.at(`${status.files_here} of ${status.files} files, ${showSize(status.bytes_here)}`);
      if (status.state !== "fetching") return status;
      if (status.last_error !== null) {
        throw new FsError("unavailable", `${path} is pinned but not complete: ${status.last_error}; tried again later`);
      }
      await systemClock.sleep(POLL_MS, context.signal);
    }
  } finally {
    progress.finish();
  }
}
async function unpin(context: Context, given: string, options: MountOptions): Promise<void> {
  for (const { mount, path } of await mountsFor(context, given, options)) {
    await mount.call("pin.remove", { path });
    context.out.item({ mount: mount.dir, path }, () => `${mount.dir}: ${printable(path)} is no longer pinned`);
  }
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command.argument("[path]", "a path in the tree, or one below a mount; left out: lists what is pinned")
      .option("--no-wait", "return at once").option(...CACHE_DIR).option(...MOUNT)
      .action((path, options) => start((context) => pin(context, path, options)));
    example(command, "anyfs pin ~/AnyFS/music", "Fetches all of it, and keeps it here and up to date also offline.");
  },
};
export const unpinCommand: CommandModule = {
  configure(command, start: Start) {
    command.argument("<path>", "as it was pinned").option(...CACHE_DIR).option(...MOUNT)
      .action((path, options) => start((context) => unpin(context, path, options)));
    example(command, "anyfs unpin ~/AnyFS/music", "It may be evicted from the cache again.");
  },
};
