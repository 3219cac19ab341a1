/** Talks to the running mounts of this machine over their control sockets (JSON-RPC 2.0, see open_mount.ts). */
import { FsError, hasCode, isFsErrorCode } from "../fs/error.ts";
import { info } from "../platform/files.ts";
import { httpFetch, openConnections } from "../platform/net.ts";
import { knownMounts } from "./client_folder.ts";

/** A mount whose process runs. */
export interface RunningMount {
  /** The mount point, absolute. */
  readonly dir: string;
  readonly url: string;
  readonly pid: number;
  /** Throws what the mount says, unavailable when it ends meanwhile. */
  call(method: string, params?: Record<string, unknown>): Promise<unknown>;
}

/** The mounts that use `cacheDir` and answer, in the order of their mount points. */
export async function runningMounts(cacheDir: string): Promise<RunningMount[]> {
  const running: RunningMount[] = [];
  for (const { folder, url, dir, pid } of await knownMounts(cacheDir)) {
    if (await info(`/proc/${pid}`) === null) continue;
    const path = `${folder}/control.sock`;
    const mount = { dir, url, pid, call: (method: string, params = {}) => call(path, dir, method, params) };
    try {
      await mount.call("status");
    } catch (error) {
      // The number belongs to another process by now.
      if (hasCode(error, "unavailable")) continue;
      throw error;
    }
    running.push(mount);
  }
  return running.sort((a, b) => a.dir < b.dir ? -1 : 1);
}

async function call(path: string, dir: string, method: string, params: Record<string, unknown>): Promise<unknown> {
  using connections = openConnections({ unixPath: path });
  const response = await httpFetch("http://mount/", {
    method: "POST",
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    connections,
  });
  const answer = await response.json() as { result?: unknown; error?: { message: string; data?: { code?: string } } };
  if (answer.error !== undefined) {
    const { message, data } = answer.error;
    const code = data?.code ?? "internal";
    throw new FsError(isFsErrorCode(code) ? code : "internal", `the mount at ${dir}: ${message}`);
  }
  return answer.result;
}
