/** `anyfs serve`: the daemon. */
import { InvalidArgumentError } from "commander";
import type { Config } from "../core/config/config.ts";
import { VERSION } from "../core/config/version.ts";
import { FsError, toFsError } from "../core/fs/error.ts";
import { createLogger, type Logger } from "../core/observe/log.ts";
import { systemClock } from "../core/platform/clock.ts";
import { readText } from "../core/platform/files.ts";
import { currentFolder, getEnv, print } from "../core/platform/process.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Spawned } from "../core/platform/spawn.ts";
import { startMount } from "./mount_child.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  readonly listen?: { readonly hostname: string; readonly port: number };
  readonly stateDir?: string;
  /** Also mount the tree here. */
  readonly mount?: string;
  /** `s3://bucket/prefix`: bring the tree back from there into an empty state folder. */
  readonly restore?: string;
  readonly insecureNoAuth?: true;
}

/** Open requests get so long when the server is told to end. */
const GRACE_MS = 10_000;

/** `host:port`, `[::1]:port` or `:port`. */
export function listenArgument(text: string): { hostname: string; port: number } {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]*)):(\d{1,5})$/i.exec(text.trim());
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new InvalidArgumentError(
      `${JSON.stringify(text)} is not an address; write host:port, for example 127.0.0.1:7734`,
    );
  }
  return { hostname: match[1] ?? (match[2] === "" ? "127.0.0.1" : match[2] ?? "127.0.0.1"), port };
}

/** The tree's server settings: the file's, the environment's, then the command line's. */
async function settings(context: Context, options: Options): Promise<Config> {
  const { resolvePath } = await import("../core/config/places.ts");
  const { loadConfig } = await import("../core/config/config.ts");
  // With --state-dir everything that has its place below the state folder moves along.
  const stateDir = options.stateDir === undefined ? undefined : resolvePath(options.stateDir, currentFolder(), getEnv);
  const env = (name: string) => name === "ANYFS_STATE_DIR" && stateDir !== undefined ? stateDir : getEnv(name);
  const config = await loadConfig(context.globals.config, env, currentFolder());
  const daemon = {
    ...config.daemon,
    ...(options.listen !== undefined && { listen: options.listen }),
    ...(stateDir !== undefined && { stateDir }),
  };
  return { ...config, daemon };
}

/** The failures that a person meets at the start, with the exit codes the surface promises. */
function startFailure(error: unknown, config: Config): FsError {
  const failure = toFsError(error);
  const { operation, path } = failure.details;
  const { stateDir } = config.daemon;
  if (
    failure.code === "unavailable" && (operation === "listen" || (path === stateDir && /in use/.test(failure.message)))
  ) {
    return new FsError("conflict", failure.message, failure.details);
  }
  if (path === stateDir || path?.startsWith(`${stateDir}/`)) {
    return new FsError("invalid_input", failure.message, failure.details);
  }
  return failure;
}

/** Prints one ready line when it accepts requests; ends when the context's signal aborts, after draining. */
async function serve(context: Context, options: Options): Promise<void> {
  if (options.restore !== undefined) throw notBuilt("serve --restore");
  const config = await settings(context, options);
  const log = createLogger({
    level: context.globals.logLevel ?? config.daemon.logLevel,
    format: config.daemon.logFormat,
    now: systemClock.now,
    write: (line) => print("stderr", line),
  });
  try {
    await run(context, config, options, log);
  } catch (error) {
    throw startFailure(error, config);
  }
}

async function run(context: Context, config: Config, options: Options, log: Logger): Promise<void> {
  const [{ openTiers }, { openServerCore }, { serveRemote }, { serveControl }, { lockFile }] = await Promise.all([
    import("./serve_tiers.ts"),
    import("../core/indexed/open_core.ts"),
    import("../core/remote/server.ts"),
    import("../core/remote/control.ts"),
    import("../core/remote/lock_memory.ts"),
  ]);
  const { daemon, upload, eviction, limits } = config;
  const { giveBackLargeBlocks } = await import("../core/platform/memory.ts");
  const { raiseOpenFileLimit } = await import("../core/platform/open_files.ts");
  giveBackLargeBlocks();
  raiseOpenFileLimit();
  const stores = await openTiers(config, (message) => log.warn(message));
  try {
    const told: { rollback: (error: Error) => void } = { rollback: () => {} };
    await using core = await openServerCore({
      stateDir: daemon.stateDir,
      tiers: stores.tiers,
      upload: {
        transfers: upload.transfers,
        bytesPerSecond: upload.bandwidth,
        flushBytes: upload.flushBytes,
        flushIntervalMs: upload.flushIntervalMs,
      },
      eviction,
      log: (message) => log.info(message),
      onRollback: (error) => told.rollback(error),
    });
    const tls = daemon.tls === null
      ? undefined
      : { cert: await readText(daemon.tls.certFile), key: await readText(daemon.tls.keyFile) };
    const server = await serveRemote(core, {
      ...daemon.listen,
      version: VERSION,
      log: (message) => log.warn(message),
      insecureNoAuth: options.insecureNoAuth === true || daemon.insecure,
      lockLeaseMs: daemon.lockLeaseMs,
      lockMemory: lockFile(`${daemon.stateDir}/locks.json`, (message) => log.warn(message)),
      ...(limits.requestsPerSecond !== null && { requestsPerSecond: limits.requestsPerSecond }),
      ...(tls !== undefined && { tls }),
    });
    told.rollback = (error) => server.reset(error);
    const stopControl = serveControl(server.context, `${daemon.stateDir}/control.sock`);
    context.out.item(
      { ready: true, url: server.url, state_dir: daemon.stateDir },
      () => `anyfs: ready at ${server.url}`,
    );
    const mount = await mountHere(options, config, server.port, log);
    await aborted(context.signal);
    log.info("ending: finishing what is under way");
    // The mount first: what it has not delivered yet it delivers now.
    mount?.kill("SIGTERM");
    await mount?.exited;
    stopControl();
    await server.close(GRACE_MS);
  } finally {
    await stores.close();
  }
}

/** Mounts the tree on this machine too, in a process of its own, when that is wanted. A failure ends no server: it is told. */
async function mountHere(options: Options, config: Config, port: number, log: Logger): Promise<Spawned | null> {
  const dir = options.mount ?? config.daemon.mountPath;
  if (dir === null) return null;
  const scheme = config.daemon.tls === null ? "http" : "https";
  try {
    const { said, child } = await startMount(["--server", `${scheme}://127.0.0.1:${port}`, "mount", dir], {
      // In a session of its own: Ctrl-C ends us, and we end it.
      detached: true,
    });
    log.info(said.trim());
    void child.exited.then(({ code, signal }) => {
      if (code !== 0) {
        log.warn(`the mount at ${dir} has ended (${signal ?? `exit ${code}`}); mount it again with anyfs mount`);
      }
    });
    return child;
  } catch (error) {
    log.error(`can't mount at ${dir}: ${toFsError(error).message}`);
    return null;
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .option(
        "--listen <host:port>",
        "address to listen on (default: the configuration's, or 127.0.0.1:7734)",
        listenArgument,
      )
      .option("--state-dir <dir>", "where index, log and hot tier are kept")
      .option("--mount <dir>", "also mount the tree here")
      .option("--restore <url>", "bring the tree back from s3://bucket/prefix into an empty state folder")
      .option("--insecure-no-auth", "serve other machines without asking for tokens")
      .action((options) => start((context) => serve(context, options)));
    example(command, "anyfs serve --listen 127.0.0.1:7734", "Serves the tree; prints one line when it is ready.");
  },
};
