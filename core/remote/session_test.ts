/** Tests of the WebSocket: a real client and a real server over real sockets, with a proxy that breaks between them. */
import assert from "node:assert/strict";
import { startFaultProxy } from "../../tests/support/fault_proxy.ts";
import { FsError, type FsErrorCode } from "../fs/error.ts";
import { decodeName } from "../fs/names.ts";
import { S_IFDIR, S_IFREG } from "../fs/stat.ts";
import { INO_STRIDE, type Op } from "../index/ops.ts";
import { blankStat } from "../index/tree.ts";
import { systemClock } from "../platform/clock.ts";
import { systemRandom } from "../platform/random.ts";
import { acceptSocket, type Socket } from "../platform/sockets.ts";
import { chunkInline } from "../store/chunk_inline.ts";
import { hex } from "../store/hash.ts";
import { encodeManifest } from "../store/manifest.ts";
import { createToken } from "./auth.ts";
import { connectRemote, type RemoteClient, type RemoteOptions } from "./client.ts";
import { PROTOCOL_VERSION, type Pushes, type Welcome } from "./protocol.ts";
import { type RemoteServer, type RemoteServerOptions, serveRemote } from "./server.ts";
import { decodeCalls, encodePush, encodeResult, joinFrames } from "./wire.ts";
import { type MemoryCore, openMemoryCore } from "./testing/memory_core.ts";

const time = { sec: 1_700_000_000, nsec: 5 };

interface Rig extends AsyncDisposable {
  readonly core: MemoryCore;
  readonly server: RemoteServer;
  connect(options?: Partial<RemoteOptions>): RemoteClient;
}
async function rig(options: Partial<RemoteServerOptions> = {}): Promise<Rig> {
  const core = openMemoryCore();
  const server = await serveRemote(core, { hostname: "127.0.0.1", port: 0, version: "test", ...options });
  const clients: RemoteClient[] = [];
  return {
    core,
    server,
    connect(more = {}) {
      const client = connectRemote({
        url: server.url,
        token: null,
        device: systemRandom.uuid(),
        host: "test",
        clock: systemClock,
        ...more,
      });
      clients.push(client);
      return client;
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) await client.close();
      await server.close(500);
      await core.close();
    },
  };
}

const create = (ino: number, name: string, mode = S_IFREG | 0o644): Op => ({
  t: "create",
  parent: 1,
  name,
  ino,
  mode,
  uid: 0,
  gid: 0,
  rdev: 0,
  time,
});
const call = (request: number, ops: readonly Op[], previous = request - 1) => ({
  request,
  previous,
  group: false,
  urgent: true,
  chunks: [],
  manifests: [],
  ops,
});
const rejects = (promise: Promise<unknown>, code: FsErrorCode, words = /./) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof FsError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    return true;
  });
/** Resolves with the first pushes that satisfy `enough`. */
function collect<K extends keyof Pushes>(
  client: RemoteClient,
  kind: K,
  enough: (all: readonly Pushes[K][]) => boolean,
): Promise<readonly Pushes[K][]> {
  const all: Pushes[K][] = [];
  return new Promise((resolve) =>
    client.onPush(kind, (value) => {
      all.push(value);
      if (enough(all)) resolve(all);
    })
  );
}
const names = (pushes: readonly Pushes["changes"][]) =>
  pushes.flatMap((push) => push.changes).filter((change) => change.kind === "entry").map((change) => change.name);

Deno.test("a client creates a file with inline chunks, and reads it back by lookup and by content", async () => {
  await using r = await rig();
  const client = r.connect();
  const { device } = await client.ready();
  const bytes = new TextEncoder().encode("hello, tree");
  const spans = chunkInline(bytes);
  const manifest = encodeManifest(spans);
  const content = hex(manifest.hash);
  const ino = device * INO_STRIDE + 1;
  const durable = collect(client, "durable", (all) => all.some((each) => each.request >= 1));
  const odd = decodeName(Uint8Array.of(0xff, 0x41));
  const applied = await client.call("apply", {
    request: 1,
    previous: 0,
    group: false,
    urgent: true,
    chunks: spans.map(({ hash }) => ({ hash, bytes })),
    manifests: [manifest.blob],
    ops: [create(ino, odd), { t: "content", ino, base: null, content, size: bytes.length, time }],
  });
  assert.equal(applied.done.length, 2);
  assert.equal(applied.repeated, false);
  await durable;
  const found = await client.call("lookup", { parent: 1, name: odd });
  assert.equal(found?.ino, ino);
  assert.equal(found.content, content);
  assert.deepEqual((await client.call("readDir", { parent: 1, after: null, limit: 10 })).map((e) => e.name), [odd]);
  assert.equal(new TextDecoder().decode(await client.readContent(content, 7, 4)), "tree");
  assert.deepEqual(await client.call("manifest", { content }), manifest.blob);
});

Deno.test("chunks with wrong hashes are refused, inline and in bulk, and nothing is applied", async () => {
  await using r = await rig();
  const client = r.connect();
  await client.ready();
  const wrong = [{ hash: new Uint8Array(32), bytes: new Uint8Array(10) }];
  await rejects(client.putChunks(wrong), "corrupt");
  await rejects(client.call("apply", { ...call(1, [create(0, "x")]), chunks: wrong }), "corrupt");
  assert.equal(await client.call("lookup", { parent: 1, name: "x" }), null);
});

Deno.test("others hear of a change with the node as it is, the sender only that the number moved on", async () => {
  await using r = await rig();
  const [a, b] = [r.connect(), r.connect()];
  const [{ device }] = await Promise.all([a.ready(), b.ready()]);
  const heard = collect(b, "changes", (all) => names(all).includes("second"));
  const own = collect(a, "changes", (all) => (all.at(-1)?.seq ?? 0) >= 4);
  await a.call("apply", call(1, [create(device * INO_STRIDE + 1, "first")]));
  const { seq } = await a.call("apply", call(2, [create(device * INO_STRIDE + 2, "second", S_IFDIR | 0o755)]));
  const pushes = await heard;
  assert.deepEqual(names(pushes), ["first", "second"]);
  const entry = pushes.flatMap((push) => push.changes).find((change) => change.name === "second");
  assert.equal(entry?.stat?.mode, S_IFDIR | 0o755);
  const seqs = pushes.flatMap((push) => push.changes.map((change) => change.seq));
  assert.deepEqual(seqs, seqs.toSorted((x, y) => x - y));
  assert.equal(seqs.at(-1), seq);
  for (const push of await own) assert.deepEqual(push.changes, []);
});

Deno.test("a change is answered when the others have taken it in; who lets the time pass is not waited for", async () => {
  await using r = await rig();
  const [a, b] = [r.connect(), r.connect()];
  const { device } = await a.ready();
  const { seq } = await b.ready();
  await b.call("heard", { seq });
  const order: string[] = [];
  let answer: (seq: number) => Promise<void> = async (seq) => {
    // Longer than a message takes, and well within the time.
    await new Promise((resolve) => setTimeout(resolve, 15));
    order.push("heard");
    await b.call("heard", { seq });
  };
  b.onPush("changes", ({ seq, changes }) => changes.length > 0 && void answer(seq));
  const apply = async (n: number) => {
    await a.call("apply", call(n, [create(device * INO_STRIDE + n, `f${n}`)]));
    order.push(`applied ${n}`);
  };
  await apply(1);
  await Promise.all([apply(2), apply(3)]);
  assert.deepEqual(order.filter((each) => each !== "heard"), ["applied 1", "applied 2", "applied 3"]);
  assert.equal(order[0], "heard");
  assert.ok(order.indexOf("heard", 2) < order.indexOf("applied 2"), order.join());
  // Silent: the first change waits for its time, the next ones do not wait.
  let last = 0;
  answer = (seq) => {
    last = seq;
    return Promise.resolve();
  };
  const began = performance.now();
  await apply(4);
  const waited = performance.now() - began;
  const waits: number[] = [];
  for (let n = 5; n < 25; n++) {
    const begin = performance.now();
    await apply(n);
    waits.push(performance.now() - begin);
  }
  assert.ok(waits.filter((ms) => ms < waited).length > 10, `${waited} and then ${waits}`);
  // Caught up, it is waited for again.
  await b.call("heard", { seq: last });
  order.length = 0;
  answer = async (seq) => {
    order.push("heard");
    await b.call("heard", { seq });
  };
  await apply(25);
  assert.deepEqual(order, ["heard", "applied 25"]);
});

Deno.test("a client that comes back is told exactly what it missed, page by page", async () => {
  await using r = await rig();
  const a = r.connect();
  const { device } = await a.ready();
  const id = systemRandom.uuid();
  const first = r.connect({ device: id });
  const { seq: after, epoch } = await first.ready();
  await first.close();
  for (let i = 1; i <= 1500; i++) {
    void a.call("apply", call(i, [create(device * INO_STRIDE + i, `f${i}`)])).catch(() => {});
  }
  await a.call("apply", call(1501, [create(device * INO_STRIDE + 1501, "last")]));
  const again = r.connect({ device: id, resumeFrom: () => ({ after, epoch }) });
  const heard = collect(again, "changes", (all) => names(all).includes("last"));
  assert.equal((await again.ready()).reset, false);
  const pushes = await heard;
  assert.deepEqual(names(pushes), [...Array.from({ length: 1500 }, (_, i) => `f${i + 1}`), "last"]);
  assert.ok(pushes.length >= 3, "in several pages");
  // A request's changes are never parted: an entry and its folder's change come together.
  for (const { changes } of pushes) {
    for (const change of changes) {
      const mine = changes.filter((other) => other.request === change.request);
      assert.equal(mine.length, 2, `request ${change.request}`);
    }
  }
});

Deno.test("a client of another epoch, or with a number of the future, has to forget what it cached", async () => {
  await using r = await rig();
  const { seq, epoch } = await r.connect().ready();
  for (const from of [{ after: seq, epoch: "another" }, { after: seq + 5, epoch }]) {
    const welcome = await r.connect({ resumeFrom: () => from }).ready();
    assert.equal(welcome.reset, true, JSON.stringify(from));
  }
  assert.equal((await r.connect({ resumeFrom: () => ({ after: seq, epoch }) }).ready()).reset, false);
});

Deno.test("numbers that an earlier run of the server gave behind its last durable one are void", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/index.sqlite`;
  let epoch = "";
  let seq = 0;
  const run = async (work: (client: RemoteClient, welcome: Welcome) => Promise<void>, after: number | null) => {
    const core = openMemoryCore({ path });
    const server = await serveRemote(core, { hostname: "127.0.0.1", port: 0, version: "test" });
    const client = connectRemote({
      url: server.url,
      token: null,
      device: "00000000-0000-4000-8000-000000000001",
      host: "t",
      clock: systemClock,
      resumeFrom: () => ({ after, epoch: epoch === "" ? null : epoch }),
    });
    const welcome = await client.ready();
    await work(client, welcome);
    await client.close();
    await server.close(500);
    await core.close();
  };
  await run(async (client, welcome) => {
    epoch = welcome.epoch;
    ({ seq } = await client.call("apply", call(1, [create(welcome.device * INO_STRIDE + 1, "kept")])));
  }, null);
  await run((_, welcome) => {
    assert.equal(welcome.bootSeq, seq);
    assert.equal(welcome.lastRequest, 1);
    assert.equal(welcome.reset, false, "what is durable stands");
    return Promise.resolve();
  }, seq);
  await run((_, welcome) => {
    assert.equal(welcome.reset, true, "a number the crash took back");
    return Promise.resolve();
  }, seq + 3);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a request that was applied, but whose answer was cut off, is not applied again", async () => {
  await using r = await rig();
  await using proxy = startFaultProxy(r.server.url);
  const client = r.connect({ url: `http://127.0.0.1:${proxy.port}` });
  const { device } = await client.ready();
  proxy.cutAfter(0, "from server");
  const down = new Promise<string>((resolve) => client.onDown(resolve));
  const back = new Promise<Welcome>((resolve) => {
    let skip = true;
    client.onUp((welcome) => skip ? skip = false : resolve(welcome));
  });
  const ops = [create(device * INO_STRIDE + 1, "once")];
  await rejects(client.call("apply", call(1, ops)), "unavailable");
  await down;
  proxy.pass();
  assert.equal((await back).lastRequest, 1, "the server had applied it");
  assert.deepEqual(await client.call("apply", call(1, ops)), {
    done: [],
    stats: [],
    seq: await client.call("ping", null),
    repeated: true,
  });
  assert.equal((await client.call("readDir", { parent: 1, after: null, limit: 9 })).length, 1);
});

async function inTime<T>(what: string, ms: number, promise: Promise<T>): Promise<T> {
  const late = new AbortController();
  const over = systemClock.sleep(ms, late.signal).then(() => assert.fail(`${what}: not within ${ms} ms`));
  over.catch(() => {});
  try {
    return await Promise.race([promise, over]);
  } finally {
    late.abort();
  }
}

Deno.test("bug 8: a connection that breaks with many calls under way loses none of them: all are told, none is repeated", async () => {
  await using r = await rig();
  await using proxy = startFaultProxy(r.server.url);
  const client = r.connect({ url: `http://127.0.0.1:${proxy.port}` });
  const { device } = await client.ready();
  const total = 300;
  const send = (i: number) => client.call("apply", call(i, [create(device * INO_STRIDE + i, `f${i}`)]));
  // The queue breaks in the middle of what goes up: some calls arrive, some are cut in two, some never leave.
  proxy.cutAfter(20_000, "to server");
  const told = Promise.allSettled(Array.from({ length: total }, (_, i) => send(i + 1)));
  const first = await inTime("every call is told", 20_000, told);
  const lost = first.flatMap((result, i) => result.status === "rejected" ? [i + 1] : []);
  assert.ok(lost.length > 0, "the test must cut something off");
  for (const result of first) {
    if (result.status === "rejected") assert.equal((result.reason as FsError).code, "unavailable");
  }
  proxy.pass();
  while (!client.connected) await client.ready().catch(() => {});
  for (const i of lost) await send(i);
  const all = await client.call("readDir", { parent: 1, after: null, limit: 1000 });
  assert.equal(all.length, total);
});

Deno.test("what came onto the disk after the connection broke is told to the next one", async () => {
  await using r = await rig();
  const device = systemRandom.uuid();
  const first = r.connect({ device });
  const { device: no } = await first.ready();
  await first.call("apply", call(1, [create(no * INO_STRIDE + 1, "f")]));
  await first.close();
  const told = Promise.withResolvers<void>();
  const next = r.connect({ device, paused: true });
  next.onPush("durable", ({ request }) => request >= 1 && told.resolve());
  next.resume();
  await inTime("the news", 5000, told.promise);
});

Deno.test("a request that arrives before the one it follows is refused until that was seen", async () => {
  await using r = await rig();
  const client = r.connect();
  const { device } = await client.ready();
  const second = call(2, [create(device * INO_STRIDE + 2, "b")], 1);
  await rejects(client.call("apply", second), "unavailable", /before request 1/);
  await client.call("apply", call(1, [create(device * INO_STRIDE + 1, "a")], 0));
  assert.equal((await client.call("apply", second)).done.length, 1);
});

Deno.test("a failure is remembered: the same request fails the same way when it is sent again", async () => {
  await using r = await rig();
  const client = r.connect();
  await client.ready();
  const bad = call(1, [{ t: "unlink" as const, parent: 1, name: "missing", ino: 0, time }]);
  const durable = collect(client, "durable", (all) => all.some(({ request }) => request >= 1));
  await rejects(client.call("apply", bad), "not_found");
  await durable;
  await client.call("apply", call(2, [create(0, "missing")]));
  await rejects(client.call("apply", bad), "not_found");
});

Deno.test("a black hole is noticed, calls fail in time, and the client comes back by itself", async () => {
  await using r = await rig();
  await using proxy = startFaultProxy(r.server.url);
  // Time runs forty times as fast for the client.
  const fast = 40;
  const clock: typeof systemClock = {
    ...systemClock,
    monotonic: () => systemClock.monotonic() * fast,
    sleep: (ms, signal) => systemClock.sleep(ms / fast, signal),
    after: (ms, run, unref) => systemClock.after(ms / fast, run, unref),
    every: (ms, run) => systemClock.every(ms / fast, run),
  };
  const client = r.connect({ url: `http://127.0.0.1:${proxy.port}`, clock });
  await client.ready();
  const down = new Promise<string>((resolve) => client.onDown(resolve));
  const began = clock.monotonic();
  proxy.hang();
  const hanging = client.call("stat", { ino: 1 });
  await assert.rejects(hanging, (error) => error instanceof FsError && /timeout|unavailable/.test(error.code));
  assert.match(await down, /no word from the server/);
  assert.ok(clock.monotonic() - began < 20_000, "noticed within 15 s of its time, some slack given");
  await rejects(client.call("stat", { ino: 1 }), "unavailable", /anyfs serve.*--server/);
  proxy.pass();
  while (!client.connected) await client.ready(60_000).catch(() => {});
  assert.equal((await client.call("stat", { ino: 1 }))?.ino, 1);
});

Deno.test("nobody at the address is said with the address and what to do", async () => {
  const client = connectRemote({
    url: "http://127.0.0.1:1",
    token: null,
    device: systemRandom.uuid(),
    host: "t",
    clock: systemClock,
  });
  await rejects(client.ready(300), "unavailable", /127\.0\.0\.1:1.*can't connect.*anyfs serve.*--server/);
  await rejects(client.call("stat", { ino: 1 }), "unavailable");
  await client.close();
  await rejects(client.call("stat", { ino: 1 }), "cancelled");
});

Deno.test("a wrong token is access_denied at once, and told to who listens; a right one works", async () => {
  await using r = await rig();
  const { secret } = await createToken(r.core.index, systemRandom, systemClock, { scope: "write" });
  for (const token of [null, "anyfs_wrong"]) {
    const client = r.connect({ token });
    const reasons: string[] = [];
    client.onDown((reason) => reasons.push(reason));
    await rejects(client.ready(), "access_denied", /refuses access/);
    await rejects(client.call("stat", { ino: 1 }), "access_denied");
    assert.match(reasons[0] ?? "", /access denied/);
  }
  const client = r.connect({ token: secret });
  await client.ready();
  assert.equal((await client.call("stat", { ino: 1 }))?.ino, 1);
});

Deno.test("a token that may only read may not apply, and one for a subtree may not mount", async () => {
  await using r = await rig();
  const reader = await createToken(r.core.index, systemRandom, systemClock, { scope: "read" });
  const client = r.connect({ token: reader.secret });
  await client.ready();
  await rejects(client.call("apply", call(1, [create(0, "x")])), "read_only");
  await rejects(client.putChunks([{ hash: new Uint8Array(32), bytes: new Uint8Array(1) }]), "permission_denied");
  const part = await createToken(r.core.index, systemRandom, systemClock, { scope: "write", path: "/photos" });
  await rejects(r.connect({ token: part.secret }).ready(), "permission_denied", /\/photos only/);
});

/** A server that greets, and answers each other call with what `answer` sends. */
function talk(answer: (socket: Socket, id: number) => void): Deno.HttpServer<Deno.NetAddr> {
  const welcome: Welcome = {
    protocol: PROTOCOL_VERSION,
    device: 1,
    lastRequest: 0,
    epoch: "epoch",
    bootSeq: 0,
    seq: 0,
    reset: false,
    run: "run",
  };
  return Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) =>
      acceptSocket(request, (socket) => ({
        open: () => {},
        close: () => {},
        message(bytes) {
          if (bytes === null) return;
          for (const frame of decodeCalls(bytes)) {
            if (frame.method === "hello") socket.send(joinFrames([encodeResult(frame.id, "hello", welcome)]));
            else answer(socket, frame.id);
          }
        },
      })),
  );
}

Deno.test("news that comes right behind an answer, in a message of its own, is heard when the answer was taken in", async () => {
  const stat = { ...blankStat(5, S_IFREG | 0o644, time), size: 1 };
  const change = { seq: 1, device: 2, request: 1, kind: "node" as const, ino: 5, parent: 0, name: "" };
  const server = talk((socket, id) => {
    const news = encodePush("changes", { seq: 1, changes: [{ ...change, stat: { ...stat, size: 2 } }] });
    // What follows a first message travels together, once that has been acknowledged (RFC 896).
    socket.send(joinFrames([encodePush("durable", { request: 0 })]));
    socket.send(joinFrames([encodeResult(id, "stat", stat)]));
    socket.send(joinFrames([news]));
  });
  const client = connectRemote({
    url: `http://127.0.0.1:${server.addr.port}`,
    token: null,
    device: systemRandom.uuid(),
    host: "test",
    clock: systemClock,
  });
  await client.ready();
  const heard: string[] = [];
  let news = Promise.withResolvers<void>();
  client.onPush("changes", () => {
    heard.push("news");
    news.resolve();
  });
  for (let i = 0; i < 25; i++) {
    heard.length = 0;
    news = Promise.withResolvers();
    // As deep as callers are, and deeper.
    let answer: Promise<unknown> = client.call("stat", { ino: 5 });
    for (let depth = 0; depth < 20; depth++) answer = answer.then((value) => value);
    void answer.then(() => heard.push("answer"));
    await inTime("the news", 5000, news.promise);
    await answer;
    assert.deepEqual(heard, ["answer", "news"], `time ${i}`);
  }
  await client.close();
  await server.shutdown();
});

Deno.test("a server that falls silent is taken for gone after one time limit: who asks next is told at once", async () => {
  await using r = await rig();
  await using proxy = startFaultProxy(r.server.url);
  const client = r.connect({ url: `http://127.0.0.1:${proxy.port}`, callMs: 1000 });
  await client.ready();
  proxy.hang();
  const waiting = client.readContent("00".repeat(32), 0, 10);
  waiting.catch(() => {});
  await rejects(client.call("stat", { ino: 1 }, { timeoutMs: 300 }), "timeout", /did not answer/);
  assert.ok(client.connected, "a call that has little patience says nothing about the server");
  await rejects(client.call("stat", { ino: 1 }), "timeout", /did not answer/);
  assert.equal(client.connected, false);
  await rejects(client.call("stat", { ino: 1 }), "unavailable", /no word from the server/);
  await rejects(waiting, "unavailable", /no word from the server/);
  proxy.pass();
  await client.ready();
  assert.equal((await client.call("stat", { ino: 1 }))?.ino, 1);
});

Deno.test("bug 13: a mount that is faster than its rate limit waits, and sees no error", async () => {
  await using r = await rig({ requestsPerSecond: 400 });
  const client = r.connect();
  await client.ready();
  const began = systemClock.monotonic();
  const answers = await Promise.all(Array.from({ length: 600 }, () => client.call("stat", { ino: 1 })));
  assert.ok(answers.every((stat) => stat?.ino === 1));
  // 400 pass at once, the others come at 400 a second.
  assert.ok(systemClock.monotonic() - began >= 300, "the limit must have been felt");
});

Deno.test("an open waits for the client that holds newer content, and not for one that is gone", async () => {
  await using r = await rig();
  const [a, b] = [r.connect(), r.connect()];
  await Promise.all([a.ready(), b.ready()]);
  const busy = collect(b, "busy", (all) => all.length === 2);
  assert.equal(await b.call("waitDelivered", { ino: 7, timeoutMs: 10 }), true, "nobody holds it");
  await a.call("announce", { ino: 7, pending: true });
  assert.equal(await a.call("waitDelivered", { ino: 7, timeoutMs: 10 }), true, "its own does not count");
  assert.equal(await b.call("waitDelivered", { ino: 7, timeoutMs: 20 }), false, "still held");
  const waiting = b.call("waitDelivered", { ino: 7, timeoutMs: 5000 });
  await a.call("announce", { ino: 7, pending: false });
  assert.equal(await waiting, true);
  assert.deepEqual((await busy).map(({ pending }) => pending), [true, false]);
  await a.call("announce", { ino: 8, pending: true });
  const left = b.call("waitDelivered", { ino: 8, timeoutMs: 20_000 });
  await a.close();
  assert.equal(await left, true, "given up after the grace time");
});

Deno.test("a new connection of a device takes over from the old one", async () => {
  await using r = await rig();
  const device = systemRandom.uuid();
  const old = r.connect({ device });
  await old.ready();
  const down = new Promise<string>((resolve) => old.onDown(resolve));
  const next = r.connect({ device });
  await next.ready();
  assert.match(await down, /took over/);
  await old.close();
  assert.equal((await next.call("stat", { ino: 1 }))?.ino, 1);
});

Deno.test("names that a device had reserved are free when a new connection of it took over", async () => {
  await using r = await rig();
  const device = systemRandom.uuid();
  const [old, other] = [r.connect({ device }), r.connect()];
  await Promise.all([old.ready(), other.ready()]);
  const call = { parent: 1, name: "f", from: 1 };
  assert.equal((await old.call("reserveName", call)).free, true);
  assert.equal((await other.call("reserveName", call)).free, false);
  const next = r.connect({ device });
  await next.ready();
  assert.equal((await other.call("reserveName", call)).free, true);
  await old.close();
});

Deno.test("changes that are taken back make every client start anew", async () => {
  await using r = await rig();
  const id = systemRandom.uuid();
  const client = r.connect({ device: id });
  const { device, epoch } = await client.ready();
  const { seq } = await client.call("apply", call(1, [create(device * INO_STRIDE + 1, "x")]));
  client.resumeFrom = () => ({ after: seq, epoch });
  const reset = collect(client, "reset", (all) => all.length > 0);
  const again = new Promise<Welcome>((resolve) => {
    let first = true;
    client.onUp((welcome) => first ? first = false : resolve(welcome));
  });
  r.server.reset(new Error("the disk is full"));
  await reset;
  assert.equal((await again).reset, true);
});

Deno.test("what is not of the protocol ends the connection with a reason", async () => {
  await using r = await rig();
  const tell = async (message: string | Uint8Array<ArrayBuffer>) => {
    const socket = new WebSocket(`${r.server.url.replace("http", "ws")}/v1/ws`);
    const closed = new Promise<CloseEvent>((resolve) => socket.onclose = resolve);
    await new Promise((resolve) => socket.onopen = resolve);
    socket.send(message);
    const { code, reason } = await closed;
    return `${code} ${reason}`;
  };
  assert.match(await tell("hello"), /^4400 messages are binary/);
  assert.match(await tell(new Uint8Array([0xc1])), /^4400 not a message of the protocol/);
  assert.match(await tell(new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff])), /^4400 .*cut short/);
});

Deno.test("calls before hello, and a hello of another version, are refused", async () => {
  await using r = await rig();
  const { encodeCall, decodeReplies, joinFrames } = await import("./wire.ts");
  const socket = new WebSocket(`${r.server.url.replace("http", "ws")}/v1/ws`);
  socket.binaryType = "arraybuffer";
  await new Promise((resolve) => socket.onopen = resolve);
  const answers: string[] = [];
  const done = new Promise<void>((resolve) =>
    socket.onmessage = (event) => {
      for (const reply of decodeReplies(new Uint8Array(event.data))) {
        if (reply.kind === "error") answers.push(`${reply.id} ${reply.failure.code} ${reply.failure.message}`);
      }
      if (answers.length === 2) resolve();
    }
  );
  const hello = { protocol: 99, device: systemRandom.uuid(), host: "t", after: null, epoch: null };
  socket.send(joinFrames([encodeCall(1, "stat", { ino: 1 }), encodeCall(2, "hello", hello)]));
  await done;
  answers.sort();
  assert.match(answers[0] ?? "", /^1 invalid_input stat before hello/);
  assert.match(answers[1] ?? "", /^2 not_supported .*protocol 99/);
  const closed = new Promise((resolve) => socket.onclose = resolve);
  socket.close();
  await closed;
});
