/** The child process of mount tests: mounts a test filesystem, says `ready`, then obeys one JSON command a line. */
import { mountFuse, type MountOptions } from "../../fuse/mod.ts";
import { FsError } from "../../core/fs/error.ts";
import type { InodeFs } from "../../core/fs/inode_fs.ts";
import { S_IFREG } from "../../core/fs/stat.ts";
import { nullFs } from "../bench/null_fs.ts";
import { asyncInodeFs } from "./async_inode_fs.ts";
import { MemoryInodeFs } from "./memory_inode_fs.ts";

/** What the parent passes as the only argument, in JSON. */
export interface ChildConfig {
  readonly dir: string;
  /**
   * `held`: late answers whose lookups of names beginning with `hold` wait until `let go` or for ever. `unread`: reads
   * wait so, and no open lets the kernel keep its pages. `unlocked`: locks are taken when it has been `let go`.
   */
  readonly fs: "memory" | "async" | "held" | "unread" | "unlocked" | "null";
  readonly options?: Partial<Omit<MountOptions, "dir" | "fs">>;
  /** Files to make in the root, empty, named entry-000000 and so on. */
  readonly entries?: number;
  /** Leave the POSIX and flock locks to the kernel. */
  readonly noLocks?: boolean;
}

export type ChildCommand =
  | { command: "stats" }
  | { command: "unmount" }
  | { command: "abort" }
  | { command: "idle" }
  /** Behind the kernel's back: writes, creates or removes, then tells the kernel unless `silent`. */
  | { command: "write"; name: string; text: string; silent?: boolean }
  | { command: "remove"; name: string; silent?: boolean }
  | { command: "invalidateAll" }
  | { command: "storm"; count: number }
  | { command: "letGo" };

const caller = { uid: 0, gid: 0, pid: 0 };
const encoder = new TextEncoder();

async function main(config: ChildConfig): Promise<void> {
  const memory = new MemoryInodeFs({ owner: { uid: Deno.uid() ?? 0, gid: Deno.gid() ?? 0 } });
  if (config.noLocks === true) {
    Object.defineProperty(memory, "getlk", { value: undefined });
    Object.defineProperty(memory, "setlk", { value: undefined });
  }
  for (let i = 0; i < (config.entries ?? 0); i++) {
    memory.mknod(1, `entry-${String(i).padStart(6, "0")}`, S_IFREG | 0o644, 0, caller);
  }
  let letGo = (): void => {};
  const gate = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  let held = 0;
  const filesystems: Record<ChildConfig["fs"], () => InodeFs> = {
    memory: () => memory,
    async: () => asyncInodeFs(memory),
    held: () =>
      asyncInodeFs(memory, {
        wait: (method, args) => {
          if (method !== "lookup" || !String(args[1]).startsWith("hold")) return Promise.resolve();
          held++;
          return gate;
        },
      }),
    unread: () => {
      const open = memory.open.bind(memory);
      memory.open = (...args) => ({ ...open(...args), keepCache: false });
      return asyncInodeFs(memory, {
        wait: (method) => {
          if (method !== "read") return Promise.resolve();
          held++;
          return gate;
        },
      });
    },
    unlocked: () =>
      asyncInodeFs(memory, {
        wait: (method, args) =>
          method === "setlk" && (args[2] as { type: string }).type !== "unlock" ? gate : Promise.resolve(),
      }),
    null: nullFs,
  };
  const errors: string[] = [];
  const say = (value: unknown): void => {
    Deno.stdout.writeSync(encoder.encode(JSON.stringify(value) + "\n"));
  };
  let mount;
  try {
    mount = await mountFuse({
      fsName: "test",
      ...config.options,
      dir: config.dir,
      fs: filesystems[config.fs](),
      onError: (error, operation, ino) => errors.push(`${operation} of ${ino}: ${error}`),
    });
  } catch (error) {
    const known = error instanceof FsError;
    say({ failed: String(error), code: known ? error.code : "", errno: known ? error.errno : 0 });
    return;
  }
  say({ ready: true, pid: Deno.pid });
  void mount.ended.then(() => {
    say({ ended: true, destroyed: memory.destroyed, errors });
    Deno.exit(0);
  });
  const obey = async (request: ChildCommand): Promise<unknown> => {
    const tell = memory.notifier;
    switch (request.command) {
      case "stats":
        return {
          ...mount.stats(),
          held,
          nodes: memory.nodeCount,
          handles: memory.openHandles,
          calls: memory.calls,
          rss: Deno.memoryUsage().rss,
          errorsSeen: errors,
        };
      case "unmount":
        await mount.unmount();
        return true;
      case "abort":
        await mount.abort();
        return true;
      case "idle":
        await mount.idle();
        return true;
      case "write": {
        let stat = memory.lookup(1, request.name, caller);
        const known = stat !== null;
        stat ??= memory.mknod(1, request.name, S_IFREG | 0o644, 0, caller);
        memory.setattr(stat.ino, { size: 0 }, undefined, caller);
        memory.write(stat.ino, 0, 0, encoder.encode(request.text), { killSuidgid: false, fromCache: false });
        if (request.silent === true) return true;
        if (known) tell?.invalidateInode(stat.ino, true);
        else {
          tell?.invalidateEntry(1, request.name);
          tell?.invalidateInode(1, true);
        }
        await mount.idle();
        return true;
      }
      case "remove":
        memory.unlink(1, request.name, caller);
        if (request.silent === true) return true;
        tell?.invalidateEntry(1, request.name);
        tell?.invalidateInode(1, true);
        await mount.idle();
        return true;
      case "invalidateAll":
        tell?.invalidateAll();
        await mount.idle();
        return true;
      case "storm":
        for (let i = 0; i < request.count; i++) tell?.invalidateInode(2 + i, true);
        await mount.idle();
        return true;
      case "letGo":
        letGo();
        return true;
    }
  };
  let buffered = "";
  const decoder = new TextDecoder();
  for await (const chunk of Deno.stdin.readable) {
    buffered += decoder.decode(chunk, { stream: true });
    let end: number;
    while ((end = buffered.indexOf("\n")) >= 0) {
      const { id, ...request } = JSON.parse(buffered.slice(0, end)) as ChildCommand & { id: number };
      buffered = buffered.slice(end + 1);
      void obey(request as ChildCommand).then(
        (result) => say({ id, result }),
        (error) => say({ id, error: String(error) }),
      );
    }
  }
  // The parent is gone.
  await mount.abort();
}

if (import.meta.main) await main(JSON.parse(Deno.args[0] ?? "") as ChildConfig);
