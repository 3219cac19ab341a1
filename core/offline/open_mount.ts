/** Everything a mount is made of but the kernel: the link to the server, the client's folder, its filesystem and control socket. */
import { FsError, toFsError } from "../fs/error.ts";
import type { Clock } from "../platform/clock.ts";
import { type HttpServer, serveHttp } from "../platform/net.ts";
import type { Random } from "../platform/random.ts";
import { connectRemote } from "../remote/client.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { openClientFolder } from "./client_folder.ts";
import type { ConflictPolicy } from "./conflict_list.ts";
import { naturalParam } from "./journal_view.ts";
import { MountFs, type WritePolicy } from "./mount_fs.ts";
import { markDamaged, saysDamaged } from "./replica_check.ts";

export interface OpenMountOptions {
  readonly url: string;
  readonly token: string | null;
  /** The mount point, absolute. */
  readonly dir: string;
  readonly cacheDir: string;
  readonly cacheBytes: number;
  readonly policy: WritePolicy;
  readonly conflict: ConflictPolicy;
  readonly readOnly: boolean;
  readonly passthrough: boolean;
  readonly prefetch: boolean;
  /** Begin without any network, with what is here; it does not try to connect until it is told to. */
  readonly offline: boolean;
  readonly host: string;
  readonly clock: Clock;
  readonly random: Random;
  /** The longest a program's call waits for the server, milliseconds. @default 10000 */
  readonly requestTimeoutMs?: number;
  readonly log: (message: string) => void;
}
export interface OpenedMount {
  readonly fs: MountFs;
  readonly folder: string;
  /** What `stats` on the control socket tells besides. */
  report: () => object;
  /** Told of failures that are no FsError: a damaged replica is not used again at the next start. */
  noteFailure(error: unknown): void;
  /** After the kernel let go: waits up to `drainMs` for delivery; what is left stays in the journal. Returns whether all was delivered. */
  close(drainMs: number): Promise<boolean>;
}

/** How long the first connection may take when nothing can be served without it. */
const FIRST_CONNECTION_MS = 3000;

/**
 * Opens the client's side. Throws unavailable when the server can't be reached and there is nothing here yet to serve,
 * access_denied for a wrong token, conflict when the folder is in use.
 */
export async function openMount(o: OpenMountOptions): Promise<OpenedMount> {
  const folder = await openClientFolder(o.cacheDir, o.url, o.dir, o.random);
  const pool = new ChunkPool({ workers: 2 });
  let lastReason = "no answer";
  const link = connectRemote({
    url: o.url,
    token: o.token,
    device: folder.device,
    host: o.host,
    clock: o.clock,
    random: o.random,
    ...(o.requestTimeoutMs === undefined ? {} : { callMs: o.requestTimeoutMs }),
    // What the server says at once must find somebody who hears it, and it has to be told how far we are.
    paused: true,
  });
  link.onDown((reason) => {
    lastReason = reason;
  });
  let control: HttpServer | null = null;
  let fs: MountFs | null = null;
  let report = (): object => ({});
  const tell = () => report();
  const shut = async () => {
    await control?.shutdown(0);
    await link.close();
    await fs?.close();
    pool.close();
    folder.release();
  };
  try {
    const opened = await MountFs.open({
      folder: folder.path,
      deviceId: folder.device,
      cacheBytes: o.cacheBytes,
      link,
      pool,
      clock: o.clock,
      random: o.random,
      host: o.host,
      policy: o.policy,
      conflict: o.conflict,
      readOnly: o.readOnly,
      passthrough: o.passthrough,
      prefetch: o.prefetch,
      ...(o.requestTimeoutMs === undefined ? {} : { requestTimeoutMs: o.requestTimeoutMs }),
      onFolderLost: () => {
        void (async () => {
          await folder.renew();
          await control?.shutdown(0);
          control = await serveControl(`${folder.path}/control.sock`, opened, tell);
        })().catch((error) => o.log(`the folder of the mount could not be made anew: ${toFsError(error).message}`));
      },
      log: o.log,
    });
    fs = opened;
    if (!o.offline) {
      link.resume();
      await waitForServer(
        o,
        opened,
        () => lastReason,
        () => link.lastError.code === "access_denied" ? link.lastError : null,
      );
    } else if (!opened.canWorkOffline) {
      throw new FsError(
        "unavailable",
        `nothing of ${o.url} is cached here yet: mount once with the server reachable, then --offline works`,
      );
    } else opened.setOffline(true);
    control = await serveControl(`${folder.path}/control.sock`, opened, tell);
    return {
      set report(value: () => object) {
        report = value;
      },
      fs: opened,
      folder: folder.path,
      noteFailure(error) {
        if (!saysDamaged(error)) return;
        o.log(`what is kept of the tree in ${folder.path} is damaged: mount again, and it is fetched anew`);
        markDamaged(folder.path);
      },
      close: async (drainMs) => {
        const done = await opened.drain(drainMs);
        await shut();
        return done;
      },
    };
  } catch (error) {
    await shut().catch(() => {});
    throw error;
  }
}

async function waitForServer(
  o: OpenMountOptions,
  fs: MountFs,
  reason: () => string,
  refusal: () => FsError | null,
): Promise<void> {
  // With something here already, an unreachable server must not keep a laptop from its files.
  const patience = fs.canWorkOffline ? 2000 : FIRST_CONNECTION_MS;
  let cancel = () => {};
  const late = new Promise<"late">((resolve) => cancel = o.clock.after(patience, () => resolve("late")));
  let over = false;
  const poll = (async () => {
    while (!over && refusal() === null) await o.clock.sleep(50);
    return "refused" as const;
  })();
  try {
    const result = await Promise.race([fs.connectedOnce.then(() => "up" as const), poll, late]);
    if (result === "up") return;
    const refused = refusal();
    if (refused !== null) throw refused;
    if (fs.canWorkOffline) {
      o.log(`the server ${o.url} does not answer; serving what is cached`);
      return;
    }
    throw new FsError(
      "unavailable",
      `can't reach the server ${o.url} (${reason()}): start it with "anyfs serve", or name another with --server`,
    );
  } finally {
    over = true;
    cancel();
  }
}

function keepParam(value: unknown): "ours" | "theirs" | "both" {
  if (value === "ours" || value === "theirs" || value === "both") return value;
  throw new FsError("invalid_input", "keep: ours, theirs or both");
}

/** JSON-RPC 2.0 over HTTP on a unix socket; docs/protocol.md section 5 lists the methods. */
function serveControl(path: string, fs: MountFs, report: () => object): Promise<HttpServer> {
  const methods: Record<string, (params: Record<string, unknown>) => unknown> = {
    "status": () => fs.status(),
    "stats": () => ({ ...fs.status(), held: fs.held(), ...report() }),
    "cache.stats": () => fs.status().cache,
    "cache.clear": () => ({ freed: fs.clearCache() }),
    "events": async (params) => ({
      events: await fs.events(
        naturalParam(params["after"] ?? 0, "after"),
        Math.min(60_000, naturalParam(params["wait_ms"] ?? 0, "wait_ms")),
      ),
    }),
    "offline": () => (fs.setOffline(true), fs.status()),
    "online": () => (fs.setOffline(false), fs.status()),
    "journal.list": (params) =>
      fs.journal(naturalParam(params["after"] ?? 0, "after"), naturalParam(params["limit"] ?? 1000, "limit")),
    "journal.retry": () => (fs.retry(), {}),
    "journal.drop": (params) => (fs.dropJournal(naturalParam(params["id"], "id")), {}),
    "journal.resolve": async (params) => {
      await fs.resolveConflict(naturalParam(params["id"], "id"), keepParam(params["keep"]));
      return {};
    },
    "epoch.resolve": async (params) => {
      const keep = params["keep"];
      if (keep !== "keep-mine" && keep !== "keep-server") {
        throw new FsError("invalid_input", "keep: keep-mine or keep-server");
      }
      return await fs.resolveEpoch(keep);
    },
    "pin.add": async (params) => ({ path: await fs.pin(String(params["path"])) }),
    "pin.remove": async (params) => (await fs.unpin(String(params["path"])), {}),
    "pin.list": async () => ({ pins: await fs.listPins() }),
    "drain": async (params) => ({ done: await fs.drain(Number(params["timeoutMs"] ?? 60_000)) }),
  };
  return serveHttp({
    path,
    handler: async (request) => {
      let id: unknown = null;
      try {
        const call = await request.json() as { id?: unknown; method?: string; params?: Record<string, unknown> };
        id = call.id ?? null;
        const method = methods[call.method ?? ""];
        if (method === undefined) {
          return Response.json({ jsonrpc: "2.0", id, error: { code: -32601, message: `no method ${call.method}` } });
        }
        return Response.json({ jsonrpc: "2.0", id, result: await method(call.params ?? {}) });
      } catch (error) {
        const { code, message } = toFsError(error);
        return Response.json({ jsonrpc: "2.0", id, error: { code: -32000, message, data: { code } } });
      }
    },
  });
}
