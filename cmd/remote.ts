/** The server a command talks to: its address and token from the flags, the environment or the configuration. */
import { FsError } from "../core/fs/error.ts";
import { kindOf, type Stat } from "../core/fs/stat.ts";
import { systemClock } from "../core/platform/clock.ts";
import { openRemoteBackend, type RemoteBackend } from "../core/remote/remote_backend.ts";
import type { Context } from "./context.ts";

/** Where the server is. */
export async function serverUrl(context: Context): Promise<string> {
  const given = context.server();
  if (given !== null) return given;
  const { listen, tls } = (await context.config()).daemon;
  // A server on this machine that listens on all addresses listens on loopback too.
  const host = listen.hostname === "0.0.0.0" || listen.hostname === "::" ? "127.0.0.1" : listen.hostname;
  return `${tls === null ? "http" : "https"}://${host.includes(":") ? `[${host}]` : host}:${listen.port}`;
}

/** Runs `work` with the server's tree; failures name the server. */
export async function withRemote<T>(context: Context, work: (tree: RemoteBackend) => Promise<T>): Promise<T> {
  const tree = openRemoteBackend({
    url: await serverUrl(context),
    token: await context.token(),
    clock: systemClock,
    // A person waits: one more try for a connection that broke, no more.
    retryDelays: [150],
  });
  try {
    return await work(tree);
  } finally {
    await tree.close();
  }
}

/** Null when there is nothing at the path. */
export async function statOrNull(tree: RemoteBackend, path: string, signal: AbortSignal): Promise<Stat | null> {
  try {
    return await tree.stat(path, { signal });
  } catch (error) {
    if (error instanceof FsError && error.code === "not_found") return null;
    throw error;
  }
}

/** The node a path leads to, through a symbolic link at its end (one step of which the server knows the way). */
export async function isFolder(tree: RemoteBackend, path: string, signal: AbortSignal): Promise<boolean> {
  const stat = await statOrNull(tree, path, signal);
  return stat !== null && kindOf(stat.mode) === "directory";
}

export function childPath(parent: string, name: string): string {
  return parent === "/" ? `/${name}` : `${parent}/${name}`;
}

/**
 * Runs each item; failures are named and do not stop the others. 0: all done; the failure's own code when there was only
 * one item; 6 when some were done, and the first failure's code when none was.
 */
export async function eachItem<T>(
  context: Context,
  items: readonly T[],
  run: (item: T) => Promise<void>,
): Promise<number> {
  let failed = 0;
  let code = 0;
  for (const item of items) {
    try {
      await run(item);
    } catch (error) {
      if (context.signal.aborted || items.length === 1) throw error;
      failed++;
      const { toFsError } = await import("../core/fs/error.ts");
      const failure = toFsError(error);
      context.out.failure(failure.message);
      if (code === 0) code = failure.exitCode;
      // Nobody there: the other items would say the same.
      if (failure.code === "unavailable" || failure.code === "access_denied") break;
    }
  }
  if (failed === 0) return 0;
  return failed === items.length ? code : 6;
}
