/** Tests of OrderedSender against a server that loses connections, answers and, in a crash, what it had answered. */
import assert from "node:assert/strict";
import { FsError } from "../fs/error.ts";
import { systemClock } from "../platform/clock.ts";
import type { Applied, ApplyCall, Pushes, ServerLink, Welcome } from "../remote/protocol.ts";
import { OrderedSender, type Request } from "./ordered_sender.ts";

/** A server in memory that applies a request number once and in order, as the index does. */
class FakeServer {
  applied: number[] = [];
  durable = 0;
  #up: (welcome: Welcome) => void = () => {};
  #push: (value: Pushes["durable"]) => void = () => {};
  /** Decides the fate of the nth call. */
  fate: (nth: number, request: number) => "ok" | "durable first" | "lost before" | "lost after" | "refuse" = () => "ok";
  #nth = 0;

  readonly link: ServerLink = {
    call: ((_method: string, params: ApplyCall) => this.#apply(params)) as ServerLink["call"],
    onUp: (listener) => void (this.#up = listener),
    onPush: ((_kind: string, listener: (value: Pushes["durable"]) => void) => {
      this.#push = listener;
    }) as ServerLink["onPush"],
    onDown: () => {},
    putChunks: () => Promise.resolve(),
    readContent: () => Promise.reject(new Error("not used")),
    connected: true,
    resumeFrom: () => ({ after: null, epoch: null }),
    check: () => {},
    pause: () => {},
    resume: () => {},
    close: () => Promise.resolve(),
  };

  get last(): number {
    return this.applied.at(-1) ?? 0;
  }
  async #apply({ request, previous }: ApplyCall): Promise<Applied> {
    const fate = this.fate(++this.#nth, request);
    await null;
    const cut = new FsError("unavailable", "the connection broke");
    if (fate === "lost before") throw cut;
    const repeated = request <= this.last;
    if (!repeated) {
      if (previous > this.last) throw new FsError("unavailable", `request ${request} came before ${previous}`);
      this.applied.push(request);
    }
    if (fate === "lost after") throw cut;
    if (fate === "durable first") this.sync();
    if (fate === "refuse") throw new FsError("already_exists", "it exists");
    return { done: [], stats: [], seq: 0, repeated };
  }
  sync(): void {
    this.durable = this.last;
    this.#push({ request: this.durable });
  }
  /** What was not durable is gone; the client connects again. */
  crash(): void {
    this.applied = this.applied.filter((request) => request <= this.durable);
    this.#up({ lastRequest: this.last } as Welcome);
  }
}
const request: Request = { ops: [], manifests: [], chunks: [] };
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
function sender(server: FakeServer): OrderedSender {
  return new OrderedSender(server.link, { ...systemClock, sleep: () => Promise.resolve() }, 60_000);
}

Deno.test("requests are applied in order and once, whatever part of the calls is lost before or after", async () => {
  const server = new FakeServer();
  let dice = 12345;
  server.fate = () => {
    // A regular pattern could hit the same request for ever.
    dice = (dice * 1103515245 + 12345) & 0x7fffffff;
    const face = (dice >> 16) % 6;
    return face === 0 ? "lost before" : face === 1 ? "lost after" : "ok";
  };
  const out = sender(server);
  await Promise.all(upTo(100).map(() => out.apply(request)));
  assert.deepEqual(server.applied, upTo(100));
});

Deno.test("a refusal concerns its own request only", async () => {
  const server = new FakeServer();
  server.fate = (_, number) => number === 3 ? "refuse" : "ok";
  const out = sender(server);
  const results = await Promise.allSettled(upTo(6).map(() => out.apply(request)));
  assert.deepEqual(results.map(({ status }) => status === "fulfilled"), [true, true, false, true, true, true]);
});

Deno.test("what a crash of the server took back is sent again, though it had been answered", async () => {
  const server = new FakeServer();
  const out = sender(server);
  await Promise.all(upTo(4).map(() => out.apply(request)));
  server.sync();
  await Promise.all(upTo(3).map(() => out.apply(request)));
  assert.deepEqual(server.applied, upTo(7));
  server.crash();
  assert.deepEqual(server.applied, upTo(4));
  await out.apply(request);
  assert.deepEqual(server.applied, upTo(8));
  const settled = out.settle();
  server.sync();
  await settled;
});

Deno.test("settle says when something was lost for good", async () => {
  const server = new FakeServer();
  const out = sender(server);
  await out.apply(request);
  server.fate = () => "refuse";
  server.crash();
  await assert.rejects(out.settle(), /crashed and lost.*run migrate again/);
});

Deno.test("a server may say that a request is on its disk before it answers it", async () => {
  const server = new FakeServer();
  const out = new OrderedSender(server.link, systemClock, 300);
  server.fate = () => "durable first";
  await Promise.all(upTo(3).map(() => out.apply(request)));
  await out.settle();
});
