/** Devices of one house in one process: each a MountFs over a fake link that can be cut, in a folder that survives its crash. */
import assert from "node:assert/strict";
import type { Caller } from "../../core/fs/inode_fs.ts";
import { S_IFDIR, S_IFMT } from "../../core/fs/stat.ts";
import type { ConflictPolicy } from "../../core/offline/conflict_list.ts";
import { MountFs } from "../../core/offline/mount_fs.ts";
import { type Clock, systemClock } from "../../core/platform/clock.ts";
import { systemRandom } from "../../core/platform/random.ts";
import type { ChunkPool } from "../../core/store/chunk_pool.ts";
import type { FakeLink, FakeServer } from "./fake_server.ts";

export const caller: Caller = { uid: 1000, gid: 1000, pid: 1 };
const plain = { killSuidgid: false, fromCache: false };
const O_RDWR = 2;

export interface SimOptions {
  readonly server: FakeServer;
  readonly name: string;
  readonly pool: ChunkPool;
  readonly policy?: ConflictPolicy;
  readonly folder?: string;
  readonly online?: boolean;
  readonly clock?: Clock;
  readonly cacheBytes?: number;
}

export class SimDevice {
  readonly log: string[] = [];
  asking = 0;
  private constructor(
    readonly options: SimOptions,
    readonly folder: string,
    readonly link: FakeLink,
    readonly fs: MountFs,
  ) {}

  static async open(options: SimOptions): Promise<SimDevice> {
    const { server, name, pool, clock = systemClock } = options;
    const folder = options.folder ?? Deno.makeTempDirSync();
    const link = server.link(name);
    const late: { device?: SimDevice } = {};
    const call = link.call.bind(link);
    link.call = async (method, params) => {
      if (late.device !== undefined) late.device.asking++;
      try {
        return await call(method, params);
      } finally {
        if (late.device !== undefined) late.device.asking--;
      }
    };
    const fs = await MountFs.open({
      folder,
      cacheBytes: options.cacheBytes ?? 1e9,
      link,
      pool,
      clock,
      random: systemRandom,
      host: name,
      policy: "back",
      conflict: options.policy ?? "keep-both",
      readOnly: false,
      log: (message) => {
        late.device?.log.push(message);
        if (Deno.env.has("ANYFS_TEST_LOG")) console.log(name, message);
      },
    });
    const device = new SimDevice(options, folder, link, fs);
    late.device = device;
    if (options.online ?? true) await link.connect();
    return device;
  }
  /** The device as it is after a kill at this moment and a new start. */
  async crash(online = this.link.connected): Promise<SimDevice> {
    const folder = Deno.makeTempDirSync();
    await new Deno.Command("cp", { args: ["-a", `${this.folder}/.`, folder] }).output();
    this.link.disconnect();
    await this.stop();
    return await SimDevice.open({ ...this.options, folder, online });
  }
  async stop(): Promise<void> {
    await this.fs.destroy();
    this.link.disconnect();
    await this.fs.close();
    Deno.removeSync(this.folder, { recursive: true });
  }

  /** The inode number at a path of names; throws what the filesystem throws; 0: there is nothing. */
  async at(...names: string[]): Promise<number> {
    let ino = 1;
    for (const name of names) {
      const stat = await this.fs.lookup(ino, name, caller);
      if (stat === null) return 0;
      ino = stat.ino;
    }
    return ino;
  }
  /** Makes the file or replaces all of it, as `cp` does. */
  async write(parent: number, name: string, data: Uint8Array): Promise<number> {
    const { fs } = this;
    const known = await fs.lookup(parent, name, caller);
    const opened = known === null
      ? await fs.create(parent, name, 0o644, O_RDWR, caller)
      : { stat: known, open: await fs.open(known.ino, O_RDWR, caller) };
    const { ino } = opened.stat;
    const { fh } = opened.open;
    if (known !== null) await fs.setattr(ino, { size: 0 }, fh, caller);
    await fs.write(ino, fh, 0, data, plain);
    await fs.flush(ino, fh, 0n);
    fs.release(ino, fh, 0n, false);
    return ino;
  }
  /** Makes the file, or replaces all of it, with what another one has, as `cp --reflink` does: no bytes are moved. */
  async copy(from: number, parent: number, name: string): Promise<number> {
    const { fs } = this;
    const known = await fs.lookup(parent, name, caller);
    const opened = known === null
      ? await fs.create(parent, name, 0o644, O_RDWR, caller)
      : { stat: known, open: await fs.open(known.ino, O_RDWR, caller) };
    const { ino } = opened.stat;
    const { fh } = opened.open;
    if (known !== null) await fs.setattr(ino, { size: 0 }, fh, caller);
    const { size } = await fs.getattr(from, undefined);
    try {
      assert.equal(await fs.copyFileRange(from, 0, 0, ino, fh, 0, size, caller), size);
    } finally {
      await fs.flush(ino, fh, 0n);
      fs.release(ino, fh, 0n, false);
    }
    return ino;
  }
  /** Writes into the middle of a file and closes it. */
  async patch(ino: number, offset: number, data: Uint8Array): Promise<void> {
    const { fh } = await this.fs.open(ino, O_RDWR, caller);
    await this.fs.write(ino, fh, offset, data, plain);
    await this.fs.flush(ino, fh, 0n);
    this.fs.release(ino, fh, 0n, false);
  }
  async read(ino: number): Promise<Uint8Array> {
    const { size } = await this.fs.getattr(ino, undefined);
    const { fh } = await this.fs.open(ino, 0, caller);
    const into = new Uint8Array(size);
    try {
      for (let done = 0; done < size;) {
        const part = into.subarray(done, Math.min(size, done + 128 * 1024));
        const got = await this.fs.read(ino, fh, done, part);
        if (typeof got !== "number") into.set(got, done);
        const n = typeof got === "number" ? got : got.length;
        if (n === 0) break;
        done += n;
      }
    } finally {
      this.fs.release(ino, fh, 0n, false);
    }
    return into;
  }
  async text(...names: string[]): Promise<string | null> {
    const ino = await this.at(...names);
    return ino === 0 ? null : new TextDecoder().decode(await this.read(ino));
  }
  async names(parent = 1): Promise<string[]> {
    return (await this.fs.readdir(parent, null, 100_000)).map((entry) => entry.name);
  }
  /** Every path of the tree with what it is: `folder`, or the content's identity. */
  async tree(): Promise<Map<string, { ino: number; what: string }>> {
    const out = new Map<string, { ino: number; what: string }>();
    const walk = async (ino: number, path: string) => {
      for (const { name, stat } of await this.fs.readdir(ino, null, 100_000)) {
        const folder = (stat.mode & S_IFMT) === S_IFDIR;
        const what = folder ? "folder" : (await this.fs.getattr(stat.ino, undefined)).content ?? "empty";
        out.set(`${path}/${name}`, { ino: stat.ino, what });
        if (folder) await walk(stat.ino, `${path}/${name}`);
      }
    };
    await walk(1, "");
    return out;
  }
}

/** What the server itself has, as `tree`. */
export async function serverTree(server: FakeServer): Promise<Map<string, { ino: number; what: string }>> {
  const out = new Map<string, { ino: number; what: string }>();
  const walk = async (ino: number, path: string) => {
    for (const { name, stat } of await server.index.readDir(ino, null, 100_000)) {
      const folder = (stat.mode & S_IFMT) === S_IFDIR;
      out.set(`${path}/${name}`, { ino: stat.ino, what: folder ? "folder" : stat.content ?? "empty" });
      if (folder) await walk(stat.ino, `${path}/${name}`);
    }
  };
  await walk(1, "");
  return out;
}

/** Everything that was under way has happened: nothing to deliver, to tell or to ask for. */
export async function quiet(devices: readonly SimDevice[]): Promise<void> {
  // The devices' own timers don't keep a process alive.
  const alive = setInterval(() => {}, 1000);
  try {
    await calm(devices);
  } finally {
    clearInterval(alive);
  }
}
async function calm(devices: readonly SimDevice[]): Promise<void> {
  for (let calm = 0; calm < 3; calm++) {
    for (const d of devices) {
      // What is delivered may be what cuts it off (a lost answer).
      for (let ms = 0; d.link.connected && !await d.fs.drain(100); ms += 100) {
        assert.ok(ms < 4000, `everything of ${d.link.id} is delivered: ${d.log.slice(-5).join(" | ")}`);
      }
    }
    for (const d of devices) await d.link.told();
    await new Promise((resolve) => setTimeout(resolve));
    if (devices.some((d) => d.asking > 0)) calm = -1;
  }
}
