/** `anyfs mount`: shows the tree as a folder of this machine. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { Option } from "@commander-js/extra-typings";
import { sizeArgument } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";
import { resolvePath } from "../core/config/places.ts";
import { systemClock } from "../core/platform/clock.ts";
import { FsError } from "../core/fs/error.ts";
import { info, makeFolder, realPath } from "../core/platform/files.ts";
import { dirname } from "node:path";
import { giveBackLargeBlocks } from "../core/platform/memory.ts";
import { raiseOpenFileLimit } from "../core/platform/open_files.ts";
import { O_APPEND, O_CREAT, O_WRONLY, openFd, pwriteFd } from "../core/platform/posix.ts";
import { args, currentFolder, getEnv, hostname } from "../core/platform/process.ts";
import { systemRandom } from "../core/platform/random.ts";
import { startMount } from "./mount_child.ts";
import { DEFAULT_URL, parseServerUrl } from "../core/remote/address.ts";

interface Options {
  readonly readOnly?: true;
  readonly view?: string;
  readonly cacheDir?: string;
  /** Bytes. */
  readonly cacheSize?: number;
  readonly writePolicy: "back" | "through";
  readonly conflict?: "server-wins" | "client-wins" | "keep-both" | "newer" | "manual";
  readonly allowOther?: true;
  readonly offline?: true;
  readonly allowNonEmpty?: true;
  readonly background?: true;
}

/** How long a stop waits for what is still to be delivered; the rest stays in the journal for the next start. */
const DRAIN_MS = 10_000;
/** How long a stop goes on serving programs that still have files open. */
const BUSY_MS = 10_000;

/** Prints one ready line when mounted; stays until unmounted or the context's signal aborts. */
async function mount(context: Context, folder: string, options: Options): Promise<void> {
  if (options.view !== undefined) throw notBuilt("mount --view");
  if (options.background === true) return await startInBackground(context);
  const config = await context.config();
  const dir = resolvePath(folder, currentFolder(), getEnv);
  const cacheDir = resolvePath(options.cacheDir ?? config.cache.dir, currentFolder(), getEnv);
  const url = parseServerUrl(context.server() ?? DEFAULT_URL);
  const { openMount } = await import("../core/offline/open_mount.ts");
  const { checkMountPoint, mountFuse } = await import("../fuse/mod.ts");
  const mountPoint = await checkMountPoint(dir, options.allowNonEmpty ?? false);
  await checkCacheFolder(cacheDir, mountPoint);
  const log = await logger(context, cacheDir);
  giveBackLargeBlocks();
  raiseOpenFileLimit();
  const passthrough = config.cache.passthrough && options.readOnly === true;
  const opened = await openMount({
    url,
    token: await context.token(),
    dir,
    cacheDir,
    cacheBytes: options.cacheSize ?? config.cache.size,
    policy: options.writePolicy,
    conflict: options.conflict ?? config.sync.conflict,
    readOnly: options.readOnly ?? false,
    passthrough,
    prefetch: config.cache.prefetch,
    offline: options.offline ?? false,
    requestTimeoutMs: config.mount.requestTimeoutMs,
    host: hostname(),
    clock: systemClock,
    random: systemRandom,
    log,
  });
  try {
    const mounted = await mountFuse({
      dir,
      fs: opened.fs,
      fsName: "anyfs",
      readOnly: options.readOnly ?? false,
      passthrough,
      allowNonEmpty: options.allowNonEmpty ?? false,
      ...config.mount,
      ...(options.allowOther === true ? { allowOther: true } : {}),
      onError: (error, operation, ino) => {
        log(`${operation} of inode ${ino}: ${errorText(error)}`);
        opened.noteFailure(error);
      },
    });
    opened.report = () => ({ fuse: mounted.stats() });
    context.out.item({ mounted: mounted.dir, server: url }, () => `anyfs: ${url} is mounted at ${mounted.dir}`);
    const stopped = new Promise<void>((resolve) => {
      if (context.signal.aborted) resolve();
      context.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await Promise.race([mounted.ended, stopped]);
    await mounted.unmount();
    await Promise.race([mounted.ended, systemClock.sleep(BUSY_MS)]);
    await mounted.abort();
    await mounted.ended;
  } finally {
    const delivered = await opened.close(DRAIN_MS);
    if (!delivered) log("not everything could be delivered; it is kept in the journal and goes out at the next mount");
  }
}

const errorText = (error: unknown): string => error instanceof Error ? error.stack ?? error.message : String(error);

/** The mount would hide its own cache and journal, and wait for itself. */
async function checkCacheFolder(cacheDir: string, mountPoint: string): Promise<void> {
  let there = cacheDir;
  while (there !== "/" && await info(there) === null) there = dirname(there);
  const place = await realPath(there);
  if (place !== mountPoint && !place.startsWith(`${mountPoint}/`)) return;
  throw new FsError(
    "invalid_input",
    `the cache folder ${cacheDir} lies in the mount point ${mountPoint}, which would hide it: name another with --cache-dir`,
    { path: cacheDir },
  );
}

/** Remarks of a background mount go to a file: nobody reads its standard error any more. */
async function logger(context: Context, cacheDir: string): Promise<(message: string) => void> {
  if (getEnv("ANYFS_BACKGROUND") === undefined) return (message) => context.log.info(message);
  await makeFolder(cacheDir);
  const fd = openFd(`${cacheDir}/mount.log`, O_WRONLY | O_CREAT | O_APPEND);
  return (message) =>
    pwriteFd(fd, new TextEncoder().encode(`${new Date(systemClock.now()).toISOString()} ${message}\n`), 0);
}

/** Starts the same command detached and returns when it is mounted. */
async function startInBackground(context: Context): Promise<void> {
  const { said, child } = await startMount(args().filter((arg) => arg !== "--background"), { detached: true });
  context.out.text(said);
  child.unref();
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<dir>", "an empty folder of this machine")
      .option("--read-only", "nothing can be changed through this mount")
      .option("--view <name>", "a view of the library instead of the tree")
      .option("--cache-dir <dir>", "where the cache and the journal are kept")
      .option("--cache-size <size>", "how large the cache may grow", sizeArgument)
      .addOption(
        new Option("--write-policy <policy>", "when a write is done: in the journal (back) or at the server (through)")
          .choices(["back", "through"] as const).default("back" as const),
      )
      .addOption(
        new Option("--conflict <policy>", "what holds when both sides changed a file")
          .choices(["server-wins", "client-wins", "keep-both", "newer", "manual"] as const),
      )
      .option("--allow-other", "other users of this machine may use the mount")
      .option("--offline", "begin without any network; `anyfs online` connects")
      .option("--allow-non-empty", "mount over a folder that holds something, which is hidden meanwhile")
      .option("--background", "return when mounted")
      .action((dir, options) => start((context) => mount(context, dir, options)));
    example(
      command,
      "anyfs mount ~/AnyFS --server http://nas.local:7734",
      "Mounts; without --server one is looked for.",
    );
  },
};
