/** Moves bytes between this machine and the tree: one file, or folders with all in them. */
import { FsError, toFsError } from "../core/fs/error.ts";
import type { FsFull, WriteOptions } from "../core/fs/contract.ts";
import { kindOf, type Stat } from "../core/fs/stat.ts";
import type { Progress } from "../core/observe/progress.ts";
import type { RemoteBackend } from "../core/remote/remote_backend.ts";
import { resolvePath } from "../core/config/places.ts";
import { info, realPath } from "../core/platform/files.ts";
import { currentFolder, stdout } from "../core/platform/process.ts";
import { nameOf, parentOf } from "../core/remote/url_path.ts";
import type { Context } from "./context.ts";
import { childPath } from "./remote.ts";

/** What both ends of a copy are: the tree, or this machine's files. */
export type Side = FsFull;

export interface CopyOptions {
  readonly recursive: boolean;
  /** Fail rather than replace. */
  readonly exclusive: boolean;
}

/** Some items failed; each was named. */
export class Tally {
  files = 0;
  bytes = 0;
  failed = 0;
}

/** A place on this machine as a filesystem and a path in it. */
export interface LocalPlace extends AsyncDisposable {
  readonly fs: Side;
  readonly path: string;
}

async function openAt(root: string, path: string): Promise<LocalPlace> {
  const { openLocalBackend } = await import("../backends/local/backend.ts");
  const fs = await openLocalBackend({ root });
  return { fs, path, [Symbol.asyncDispose]: () => fs.close() };
}

/** Something that exists; links on the way to it, and at its end, are followed. Throws not_found. */
export async function localSource(path: string): Promise<LocalPlace> {
  const real = await realPath(path).catch((error) => {
    const cause = toFsError(error);
    throw cause.code === "not_found" ? new FsError("not_found", `${path}: no such file or folder`, { path }) : cause;
  });
  if ((await info(real))?.isDirectory) return await openAt(real, "/");
  return await openAt(parentOf(real), `/${nameOf(real)}`);
}

/** Something to be written, in a folder that exists; into `path` under the name `name` when that is a folder. */
export async function localTarget(path: string, name: string): Promise<LocalPlace> {
  const absolute = resolvePath(path, currentFolder(), () => undefined);
  const real = await realPath(absolute).catch(() => null);
  if (real !== null && (await info(real))?.isDirectory) {
    return await openAt(real, name === "" ? "/" : `/${name}`);
  }
  const parent = await realPath(parentOf(absolute)).catch(() => {
    throw new FsError("not_found", `${parentOf(absolute)}: no such folder; make it first`, {
      path: parentOf(absolute),
    });
  });
  return await openAt(parent, `/${nameOf(absolute)}`);
}

/**
 * Copies a file, link or folder; what already is a folder at the target stays and is filled. Failures inside a folder are
 * named and counted; that of the item itself is thrown.
 */
export async function copyBetween(
  context: Context,
  from: Side,
  source: string,
  to: Side,
  target: string,
  options: CopyOptions,
  progress: Progress,
  tally: Tally,
): Promise<void> {
  const { signal } = context;
  const stat = await from.stat(source, { signal });
  const kind = kindOf(stat.mode);
  progress.at(source);
  if (kind === "directory") {
    if (!options.recursive) {
      throw new FsError("is_a_directory", `${source} is a directory; copy it with --recursive`, { path: source });
    }
    await to.createDirAll(target, { signal });
    for await (const entry of from.readDir(source, { signal })) {
      try {
        await copyBetween(
          context,
          from,
          childPath(source, entry.name),
          to,
          childPath(target, entry.name),
          options,
          progress,
          tally,
        );
      } catch (error) {
        if (signal.aborted) throw error;
        tally.failed++;
        context.out.failure(toFsError(error).message);
      }
    }
    await keepAttributes(to, target, stat, signal);
    return;
  }
  if (kind === "symlink") {
    const link = await from.readLink(source, { signal });
    if (!options.exclusive && await to.exists(target, { signal })) await to.removeFile(target, { signal });
    await to.symlink(link, target, { signal });
    tally.files++;
    progress.add({ files: 1 });
    return;
  }
  if (kind !== "file") {
    throw new FsError(
      "not_supported",
      `${source} is a pipe, socket or device; only files, links and folders are copied`,
      {
        path: source,
      },
    );
  }
  await copyBytes(await from.openRead(source, { signal }), to, target, stat, options, progress, signal);
  tally.files++;
  tally.bytes += stat.size;
}

async function copyBytes(
  bytes: ReadableStream<Uint8Array>,
  to: Side,
  target: string,
  stat: Stat,
  options: CopyOptions,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  await writeStream(bytes, to, target, {
    signal,
    mode: stat.mode & 0o7777,
    ...(options.exclusive && { exclusive: true }),
  }, progress);
  await keepAttributes(to, target, stat, signal);
  progress.add({ files: 1 });
}

/** Streams into a file; an error leaves the old one. */
export async function writeStream(
  bytes: ReadableStream<Uint8Array>,
  to: Pick<Side, "openWrite">,
  target: string,
  options: WriteOptions,
  progress: Progress,
): Promise<Stat> {
  const writer = await to.openWrite(target, options);
  writer.done.catch(() => {});
  const counted = bytes.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        progress.add({ bytes: chunk.length });
        controller.enqueue(chunk);
      },
    }),
  );
  try {
    await counted.pipeTo(writer.writable);
  } catch (error) {
    // The writer knows better why it stopped.
    throw await writer.done.then(() => error, (own) => toFsError(own).code === "internal" ? error : own);
  }
  return await writer.done;
}

async function keepAttributes(to: Side, target: string, stat: Stat, signal: AbortSignal): Promise<void> {
  await to.utimes(
    target,
    { sec: stat.atimeSec, nsec: stat.atimeNsec },
    { sec: stat.mtimeSec, nsec: stat.mtimeNsec },
    { signal },
  );
}

/** Bytes of a file of the tree to standard output, no faster than they are taken. */
export async function toStandardOutput(
  tree: RemoteBackend,
  path: string,
  range: { readonly offset?: number; readonly length?: number },
  signal: AbortSignal,
): Promise<void> {
  const stream = await tree.openRead(path, { ...range, signal });
  await stream.pipeTo(stdout() as WritableStream<Uint8Array>, { preventClose: true });
}
