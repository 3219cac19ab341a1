/** Where a server keeps who may claim locks after its restart: a small file beside the index, or nowhere. */
import { hasCode } from "../fs/error.ts";
import { createDiskFile, removeFromDisk, renameOnDisk, syncDiskFolder } from "../platform/disk_file.ts";
import { readText } from "../platform/files.ts";
import type { LockMemory, LockRuns } from "./shared_locks.ts";

const NOTHING: LockRuns = { runs: [], devices: [] };

/** Remembers nothing: for servers that live in memory. */
export function forgetfulLocks(): LockMemory {
  return { load: () => Promise.resolve(NOTHING), save: () => Promise.resolve() };
}

/** A JSON file, replaced as a whole. One that can't be read means that nobody can claim anything, which is told. */
export function lockFile(path: string, log: (message: string) => void): LockMemory {
  return {
    async load() {
      try {
        const value = JSON.parse(await readText(path)) as Partial<Record<"runs" | "devices", unknown>>;
        const { runs, devices } = value;
        if (!Array.isArray(runs) || !Array.isArray(devices)) throw new Error("not what was written");
        return { runs: runs.map(String), devices: devices.map(Number).filter(Number.isSafeInteger) };
      } catch (error) {
        if (!hasCode(error, "not_found")) {
          log(`${path} can't be read, locks from before the restart are void: ${error}`);
        }
        return NOTHING;
      }
    },
    async save(runs) {
      const next = `${path}.new`;
      await removeFromDisk(next);
      const file = await createDiskFile(next, 0o600);
      try {
        await file.writeAll(new TextEncoder().encode(`${JSON.stringify(runs)}\n`));
        await file.syncData();
      } finally {
        file.close();
      }
      await renameOnDisk(next, path);
      await syncDiskFolder(path.slice(0, path.lastIndexOf("/")) || "/");
    },
  };
}
