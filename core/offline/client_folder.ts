/** The folder a mount keeps its replica, journal and cache in: one for each (server, mount point), locked while in use. */
import { FsError } from "../fs/error.ts";
import { info, listFolder, makeFolder, readText, writeFile } from "../platform/files.ts";
import { closeFd, O_CREAT, O_RDWR, openFd, renamePath, syncFolder, tryLockFd } from "../platform/posix.ts";
import { pid } from "../platform/process.ts";
import type { Random } from "../platform/random.ts";
import { replicaIsSound } from "./replica_check.ts";
import { hex, sha256 } from "../store/hash.ts";

export interface ClientFolder {
  readonly path: string;
  /** This mount's lasting id towards the server. */
  readonly device: string;
  /** Writes what says whose the folder is, again: somebody removed it. */
  renew(): Promise<void>;
  /** Gives the folder back. */
  release(): void;
}

/** Where a mount of `url` at `dir` (an absolute path) keeps its things below `cacheDir`. */
export function clientFolderPath(cacheDir: string, url: string, dir: string): string {
  return `${cacheDir}/mounts/${hex(sha256(new TextEncoder().encode(`${url}\n${dir}`))).slice(0, 16)}`;
}

/** Makes or opens the folder. Throws conflict when another process uses it, access_denied when it can't be written. */
export async function openClientFolder(
  cacheDir: string,
  url: string,
  dir: string,
  random: Random,
): Promise<ClientFolder> {
  const path = clientFolderPath(cacheDir, url, dir);
  try {
    await makeFolder(path);
  } catch (error) {
    throw new FsError("access_denied", `can't write the cache folder ${path}: choose another with --cache-dir`, {
      path,
      cause: error,
    });
  }
  const fd = openFd(`${path}/lock`, O_RDWR | O_CREAT);
  if (!tryLockFd(fd)) {
    closeFd(fd);
    throw new FsError(
      "conflict",
      `another anyfs mount of ${dir} is running (it holds ${path}); unmount that one first`,
      {
        path: dir,
      },
    );
  }
  let device = await readText(`${path}/device`).catch(() => "");
  if (!/^[0-9a-f-]{36}$/.test(device) || !await replicaIsSound(path)) {
    device = random.uuid();
    await writeDevice(path, device);
  }
  const describe = () => writeFile(`${path}/mount.json`, JSON.stringify({ url, dir, pid: pid() }));
  await describe();
  return {
    path,
    device,
    async renew() {
      await makeFolder(path);
      await writeDevice(path, device);
      await describe();
    },
    release: () => closeFd(fd),
  };
}

async function writeDevice(path: string, device: string): Promise<void> {
  await writeFile(`${path}/device.new`, device);
  renamePath(`${path}/device.new`, `${path}/device`);
  syncFolder(path);
}

/** The mounts that ever used `cacheDir`: where each is (or was) mounted and where its control socket is. */
export async function knownMounts(
  cacheDir: string,
): Promise<{ folder: string; url: string; dir: string; pid: number }[]> {
  const out: { folder: string; url: string; dir: string; pid: number }[] = [];
  if (await info(`${cacheDir}/mounts`) === null) return out;
  for (const name of await listFolder(`${cacheDir}/mounts`)) {
    const folder = `${cacheDir}/mounts/${name}`;
    try {
      const { url, dir, pid } = JSON.parse(await readText(`${folder}/mount.json`)) as {
        url: string;
        dir: string;
        pid: number;
      };
      out.push({ folder, url, dir, pid });
    } catch {
      // A folder that is being made, or that somebody put there.
    }
  }
  return out;
}
