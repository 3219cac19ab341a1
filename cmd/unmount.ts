/** `anyfs unmount`: ends a mount, also one whose process has crashed. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import { resolvePath } from "../core/config/places.ts";
import { FsError } from "../core/fs/error.ts";
import { knownMounts } from "../core/offline/client_folder.ts";
import { systemClock } from "../core/platform/clock.ts";
import { info } from "../core/platform/files.ts";
import { currentFolder, getEnv } from "../core/platform/process.ts";

async function unmount(context: Context, folder: string): Promise<void> {
  const { mountAt, unmountDirectory } = await import("../fuse/mod.ts");
  const dir = resolvePath(folder, currentFolder(), getEnv);
  if (mountAt(dir) === undefined) {
    throw new FsError("not_found", `${dir} is not a mount point; "anyfs status" shows the mounts of this machine`, {
      path: dir,
    });
  }
  const { cache } = await context.config();
  const known = (await knownMounts(cache.dir)).find((mount) => mount.dir === dir);
  const how = await unmountDirectory(dir);
  if (how === "lazy") {
    context.out.remark(`${dir} was in use: it is taken off, and served on until the last user leaves`);
  }
  // Its process delivers what is left and ends by itself; wait for that, so that the next command finds it done.
  if (known !== undefined) await waitForEnd(known.pid);
}

/** Waits until the process has ended, 15 s at most. */
async function waitForEnd(pid: number): Promise<void> {
  for (let waited = 0; waited < 15_000 && await info(`/proc/${pid}`) !== null; waited += 50) {
    await systemClock.sleep(50);
  }
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<dir>", "the folder it is mounted on")
      .action((dir) => start((context) => unmount(context, dir)));
    example(command, "anyfs unmount ~/AnyFS", "Waits for what is being written, then unmounts.");
  },
};
