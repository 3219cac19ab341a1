/** What has lost its last name: whoever holds it finds it as it was, and it leaves nothing behind. */
import assert from "node:assert/strict";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { caller, quiet, SimDevice } from "../../tests/support/sim_device.ts";
import { FsError } from "../fs/error.ts";
import { O_RDWR, O_TRUNC } from "../platform/posix.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { Journal } from "./journal.ts";
import type { ConflictPolicy } from "./conflict_list.ts";
import type { MountFs } from "./mount_fs.ts";

const flags = { killSuidgid: false, fromCache: false };
const text = (s: string) => new TextEncoder().encode(s);
const string = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const pool = new ChunkPool({ workers: 1 });

/** A test with two devices of one server. */
function unnamedTest(
  name: string,
  body: (a: SimDevice, b: SimDevice, server: FakeServer) => Promise<void>,
  policy: ConflictPolicy = "keep-both",
): void {
  const fn = async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool, policy });
    const b = await SimDevice.open({ server, name: "b", pool, policy });
    // The devices' own timers don't keep a process alive.
    const alive = setInterval(() => {}, 100);
    try {
      await body(a, b, server);
    } finally {
      clearInterval(alive);
      a.link.before = () => Promise.resolve();
      await a.stop();
      await b.stop();
      await server.index.close();
    }
  };
  Deno.test({ name, fn, sanitizeResources: false, sanitizeOps: false });
}
async function writeTo(fs: MountFs, ino: number, bytes: Uint8Array): Promise<number> {
  const { fh } = await fs.open(ino, O_RDWR, caller);
  await fs.write(ino, fh, 0, bytes, flags);
  return fh;
}
async function close(fs: MountFs, ino: number, fh: number): Promise<void> {
  await fs.flush(ino, fh, 0n);
  fs.release(ino, fh, 0n, false);
}
/** Without opening it, as the kernel reads for who has it mapped. */
async function peek(fs: MountFs, ino: number): Promise<string> {
  const into = new Uint8Array(100);
  const read = await fs.read(ino, 0, 0, into);
  return string(typeof read === "number" ? into.subarray(0, read) : read);
}

for (const before of [true, false]) {
  unnamedTest(
    `a removed file that comes back after its last close ends as it stands on the server (written ${
      before ? "before" : "after"
    } it was removed)`,
    async (a, b) => {
      const ino = await a.write(1, "f", text("base"));
      await quiet([a, b]);
      await b.at("f");
      a.link.disconnect();
      if (before) {
        const fh = await writeTo(a.fs, ino, text("scratch"));
        await a.fs.unlink(1, "f", caller);
        await close(a.fs, ino, fh);
      } else {
        const { fh } = await a.fs.open(ino, O_RDWR, caller);
        await a.fs.unlink(1, "f", caller);
        await a.fs.write(ino, fh, 0, text("scratch"), flags);
        await close(a.fs, ino, fh);
      }
      await b.write(1, "f", text("from b"));
      await quiet([b]);
      await a.link.connect();
      await quiet([a, b]);
      a.fs.forget(ino);
      await b.write(1, "f", text("from b, later"));
      await quiet([a, b]);
      const { stacks, missedNodes, unnamed } = a.fs.held();
      assert.deepEqual([await peek(a.fs, ino), stacks, missedNodes, unnamed], ["from b, later", 0, 0, 0]);
    },
  );
}

unnamedTest(
  "what was written and closed is not lost when the file is removed here and linked elsewhere",
  async (a, b) => {
    const ino = await a.write(1, "f", text("base"));
    await quiet([a, b]);
    await b.at("f");
    a.link.disconnect();
    await close(a.fs, ino, await writeTo(a.fs, ino, text("written and closed")));
    await a.fs.unlink(1, "f", caller);
    a.fs.forget(ino);
    await b.fs.link(ino, 1, "g", caller);
    await quiet([b]);
    await a.link.connect();
    await quiet([a, b]);
    assert.equal(await b.text("g"), "written and closed");
    assert.equal(await b.text("f"), null);
  },
);

unnamedTest("a file that both removed is here what was written here, for who holds it", async (a, b) => {
  const ino = await a.write(1, "f", text("base"));
  await quiet([a, b]);
  await b.at("f");
  a.link.disconnect();
  const fh = await writeTo(a.fs, ino, text("from a!"));
  await a.fs.fsync(ino, fh, false);
  await a.fs.unlink(1, "f", caller);
  await b.fs.unlink(1, "f", caller);
  await quiet([b]);
  await a.link.connect();
  await quiet([a, b]);
  assert.equal(await peek(a.fs, ino), "from a!");
  await close(a.fs, ino, fh);
  a.fs.forget(ino);
  assert.deepEqual([a.fs.held()["stacks"], a.fs.held()["unnamed"]], [0, 0]);
});

for (const policy of ["keep-both", "client-wins", "server-wins", "newer", "manual"] as const) {
  unnamedTest(
    `what others wrote is not lost when the file was written several times here and removed (${policy})`,
    async (a, b) => {
      await a.write(1, "f", text("base"));
      await quiet([a, b]);
      await b.text("f");
      await b.names();
      b.link.disconnect();
      for (const words of ["from b", "from b again"]) await b.write(1, "f", text(words));
      await a.write(1, "f", text("from a"));
      await quiet([a]);
      await b.fs.unlink(1, "f", caller);
      await b.link.connect();
      await quiet([a, b]);
      const where = (await a.names()).includes("f") ? 1 : await a.at(".anyfs-conflicts");
      const [name = ""] = await a.names(where);
      assert.equal(string(await a.read((await a.fs.lookup(where, name, caller))?.ino ?? 0)), "from a");
    },
    policy,
  );
}

unnamedTest("a removed symbolic link still says where it leads", async (a) => {
  const { ino } = await a.fs.symlink(1, "l", "target", caller);
  await quiet([a]);
  await a.fs.unlink(1, "l", caller);
  await quiet([a]);
  assert.equal(await a.fs.readlink(ino), "target");
});

unnamedTest("extended attributes that were never asked for are there after the removal", async (a, b) => {
  const ino = await a.write(1, "f", text("base"));
  await a.fs.setxattr(ino, "user.k", text("v"), 0);
  const d = await a.fs.mkdir(1, "d", 0o755, caller);
  await a.fs.setxattr(d.ino, "user.k", text("v"), 0);
  await quiet([a, b]);
  await b.at("f");
  await b.at("d");
  await b.fs.rmdir(1, "d", caller);
  await b.fs.unlink(1, "f", caller);
  for (const each of [d.ino, ino]) assert.deepEqual(await b.fs.getxattr(each, "user.k"), text("v"));
});

unnamedTest("attributes of a file made without a name are there when it gets one", async (a) => {
  const { stat: { ino } } = await a.fs.tmpfile(1, 0o644, O_RDWR, caller);
  await a.fs.setxattr(ino, "user.k", text("v"), 0);
  await a.fs.open(ino, 0, caller);
  await a.fs.link(ino, 1, "named", caller);
  assert.deepEqual(await a.fs.getxattr(ino, "user.k"), text("v"));
});

unnamedTest("the content a removed file was last is kept in the cache for who opens it again", async (a) => {
  const first = new Uint8Array(600_000).map((_, i) => (i * 7919) >> 3);
  const second = first.slice().reverse();
  const ino = await a.write(1, "f", first);
  await quiet([a]);
  a.link.disconnect();
  const one = await writeTo(a.fs, ino, second);
  await a.fs.fsync(ino, one, false);
  await a.fs.unlink(1, "f", caller);
  a.fs.release(ino, one, 0n, false);
  const two = await a.fs.open(ino, 0, caller);
  await a.link.connect();
  await quiet([a]);
  a.fs.release(ino, two.fh, 0n, false);
  a.link.disconnect();
  a.fs.clearCache();
  assert.deepEqual(await a.read(ino), second);
});

unnamedTest("so is what lies below bytes that were written after the removal", async (a) => {
  const bytes = new Uint8Array(600_000).map((_, i) => (i * 104729) >> 4);
  const { stat: { ino }, open: { fh } } = await a.fs.create(1, "f", 0o644, O_RDWR, caller);
  await a.fs.write(ino, fh, 0, bytes, flags);
  await a.fs.fsync(ino, fh, false);
  await a.fs.unlink(1, "f", caller);
  await a.fs.write(ino, fh, 0, bytes.subarray(0, 1), flags);
  await quiet([a]);
  a.link.disconnect();
  a.fs.clearCache();
  assert.deepEqual(await a.read(ino), bytes);
});

unnamedTest(
  "on a full server the removal that makes room does not wait behind the bytes of what it removes",
  async (a) => {
    let tries = 0;
    a.link.before = (method, params) => {
      if (method === "apply" && (params as { ops: { t: string }[] }).ops.some((op) => op.t === "content")) {
        tries++;
        throw new FsError("no_space", "full");
      }
      return Promise.resolve();
    };
    const ino = await a.write(1, "f", text("much"));
    while (tries === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await a.fs.unlink(1, "f", caller);
    a.fs.forget(ino);
    assert.ok(await a.fs.drain(10_000));
  },
);

unnamedTest(
  "what is written to a removed file that comes back while it is open stays readable to its end",
  async (a, b) => {
    const ino = await a.write(1, "f", text("base"));
    await quiet([a, b]);
    await b.at("f");
    a.link.disconnect();
    const { fh } = await a.fs.open(ino, O_RDWR, caller);
    await a.fs.unlink(1, "f", caller);
    const words = "a long text from a, written while it had no name";
    await a.fs.write(ino, fh, 0, text(words), flags);
    await b.write(1, "f", text("from b"));
    await quiet([b]);
    await a.link.connect();
    await quiet([a, b]);
    assert.equal((await a.fs.getattr(ino, fh)).size, words.length);
    await close(a.fs, ino, fh);
  },
);

unnamedTest("an open that fails leaves nothing open", async (a) => {
  const { stat: { ino }, open: { fh } } = await a.fs.create(1, "f", 0o644, O_RDWR, caller);
  a.fs.release(ino, fh, 0n, false);
  const { setattr } = a.fs;
  a.fs.setattr = () => Promise.reject(new FsError("no_space", "full"));
  await assert.rejects(async () => await a.fs.open(ino, O_RDWR | O_TRUNC, caller));
  a.fs.setattr = setattr;
  await a.fs.unlink(1, "f", caller);
  a.fs.forget(ino);
  const { handles, unnamed } = a.fs.held();
  assert.deepEqual([handles, unnamed, a.fs.status().openFiles], [0, 0, 0]);
});

unnamedTest(
  "a file made before the answer was lost, linked elsewhere and removed here keeps what was written",
  async (a, b) => {
    let cut = false;
    a.link.after = (method) => {
      if (method === "apply" && !cut) {
        cut = true;
        a.link.disconnect();
      }
    };
    const { stat: { ino }, open: { fh } } = await a.fs.create(1, "f", 0o644, O_RDWR, caller);
    for (let i = 0; i < 200 && !cut; i++) await new Promise((r) => setTimeout(r, 5));
    assert.ok(cut);
    await quiet([b]);
    assert.equal(await b.at("f"), ino);
    await b.fs.link(ino, 1, "g", caller);
    await quiet([b]);
    await a.fs.write(ino, fh, 0, text("written and closed"), flags);
    await close(a.fs, ino, fh);
    await a.fs.unlink(1, "f", caller);
    a.fs.forget(ino);
    await a.link.connect();
    await quiet([a, b]);
    assert.equal(await b.text("g"), "written and closed");
  },
);

unnamedTest("on a full server a removed file that had two names does not wait behind its bytes either", async (a) => {
  const ino = await a.write(1, "f", text("base"));
  await a.fs.link(ino, 1, "g", caller);
  await quiet([a]);
  let tries = 0;
  a.link.before = (method, params) => {
    if (method === "apply" && (params as { ops: { t: string }[] }).ops.some((op) => op.t === "content")) {
      tries++;
      throw new FsError("no_space", "full");
    }
    return Promise.resolve();
  };
  await close(a.fs, ino, await writeTo(a.fs, ino, text("much")));
  for (let i = 0; i < 400 && tries === 0; i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(tries > 0);
  await a.fs.unlink(1, "f", caller);
  await a.fs.unlink(1, "g", caller);
  a.fs.forget(ino);
  assert.ok(await a.fs.drain(8000));
});

unnamedTest("what others wrote over a file that is held is what is kept in the cache", async (a, b) => {
  const mine = new Uint8Array(600_000).map((_, i) => (i * 7919) >> 3);
  const theirs = mine.slice().reverse();
  const same = (x: Uint8Array, y: Uint8Array) => x.length === y.length && x.every((v, i) => v === y[i]);
  const ino = await a.write(1, "f", text("x"));
  await quiet([a, b]);
  await b.at("f");
  a.link.holdDurable = true;
  await close(a.fs, ino, await writeTo(a.fs, ino, mine));
  for (let i = 0; i < 100 && (await b.fs.getattr(ino, 0)).size !== mine.length; i++) {
    await new Promise((r) => setTimeout(r, 5));
  }
  await b.write(1, "f", theirs);
  await quiet([b]);
  for (let i = 0; i < 100 && !same(await a.read(ino), theirs); i++) {
    await new Promise((r) => setTimeout(r, 5));
  }
  const { fh } = await a.fs.open(ino, 0, caller);
  assert.ok(same(await a.read(ino), theirs), "1");
  await a.fs.unlink(1, "f", caller);
  a.fs.release(ino, fh, 0n, false);
  a.link.holdDurable = false;
  await a.link.settled();
  await quiet([a, b]);
  a.link.disconnect();
  a.fs.clearCache();
  assert.ok(same(await a.read(ino), theirs), "2");
});

unnamedTest("after a restart the removal does not wait behind the bytes either", async (_a, _b, server) => {
  const a = await SimDevice.open({ server, name: "c", pool });
  let tries = 0;
  const before = (method: string, params: unknown) => {
    if (method === "apply" && (params as { ops: { t: string }[] }).ops.some((op) => op.t === "content")) {
      tries++;
      throw new FsError("no_space", "full");
    }
    return Promise.resolve();
  };
  const ino = await a.write(1, "f", text("base"));
  await quiet([a]);
  a.link.disconnect();
  await close(a.fs, ino, await writeTo(a.fs, ino, text("much")));
  await a.fs.unlink(1, "f", caller);
  a.fs.forget(ino);
  const c = await a.crash(false);
  c.link.before = before;
  await c.link.connect();
  try {
    assert.ok(await c.fs.drain(6000));
  } finally {
    c.link.before = () => Promise.resolve();
    await c.stop();
  }
});

unnamedTest(
  "what was written is not lost when the file gets another name while the removal is on its way",
  async (a, b) => {
    const ino = await a.write(1, "f", text("base"));
    await quiet([a, b]);
    await b.at("f");
    a.link.disconnect();
    await close(a.fs, ino, await writeTo(a.fs, ino, text("written and closed")));
    await a.fs.unlink(1, "f", caller);
    a.fs.forget(ino);
    let done = false;
    a.link.before = async (method) => {
      if (method !== "apply" || done) return;
      done = true;
      await b.fs.link(ino, 1, "g", caller);
      await quiet([b]);
    };
    await a.link.connect();
    await quiet([a, b]);
    assert.equal(await b.text("g"), "written and closed");
  },
);

unnamedTest(
  "what lies below bytes written after the removal is kept when the file was opened before, too",
  async (a) => {
    const first = new Uint8Array(600_000).map((_, i) => (i * 7919) >> 3);
    const second = first.slice().reverse();
    const ino = await a.write(1, "f", first);
    await quiet([a]);
    await new Promise((r) => setTimeout(r, 200));
    const { fh } = await a.fs.open(ino, O_RDWR, caller);
    await a.fs.write(ino, fh, 0, second, flags);
    await a.fs.fsync(ino, fh, false);
    await a.fs.unlink(1, "f", caller);
    await a.fs.write(ino, fh, 0, second.subarray(0, 1), flags);
    await quiet([a]);
    await new Promise((r) => setTimeout(r, 200));
    a.fs.release(ino, fh, 0n, false);
    a.link.disconnect();
    a.fs.clearCache();
    const got = await a.read(ino);
    assert.ok(got.length === second.length && got.every((v, i) => v === second[i]));
  },
);

unnamedTest("an open with O_TRUNC that fails leaves the file as it was", async (a) => {
  const ino = await a.write(1, "f", text("base"));
  await a.fs.setattr(ino, { mode: 0o4755 }, undefined, caller);
  await quiet([a]);
  const { append } = Journal.prototype;
  Journal.prototype.append = function (record, data) {
    if (record.ops.some((op) => op.t === "attr")) throw new FsError("no_space", "full");
    return append.call(this, record, data);
  };
  try {
    await assert.rejects(async () => await a.fs.open(ino, O_RDWR | O_TRUNC, caller, true));
  } finally {
    Journal.prototype.append = append;
  }
  await quiet([a]);
  assert.equal(await a.text("f"), "base");
});

unnamedTest("an open with O_TRUNC that was given up meanwhile empties nothing", async (a) => {
  const ino = await a.write(1, "f", text("base"));
  await quiet([a]);
  const stop = new AbortController();
  const opened = Promise.resolve(a.fs.open(ino, O_RDWR | O_TRUNC, caller, false, stop.signal));
  stop.abort(new FsError("cancelled", "the caller was interrupted"));
  await assert.rejects(opened, /interrupted/);
  await quiet([a]);
  assert.equal(await a.text("f"), "base");
});
