/** Tests of the wire format: what is encoded comes back, and what is not of the protocol is refused. */
import assert from "node:assert/strict";
import { encode } from "@msgpack/msgpack";
import fc from "fast-check";
import { FsError } from "../fs/error.ts";
import { decodeName } from "../fs/names.ts";
import type { Stat } from "../fs/stat.ts";
import type { Op, Time } from "../index/ops.ts";
import { type Calls, MAX_MESSAGE, type Method } from "./protocol.ts";
import {
  CALLS,
  checkStructure,
  decodeCalls,
  decodeChunks,
  decodeReplies,
  encodeCall,
  encodeChunks,
  encodeFailure,
  encodePush,
  encodeResult,
  joinFrames,
  PUSHES,
} from "./wire.ts";

const natural = fc.maxSafeNat();
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const nsec = fc.integer({ min: 0, max: 999_999_999 });
const hash = fc.uint8Array({ minLength: 32, maxLength: 32 });
const hexHash = hash.map((bytes) => bytes.toHex());
/** Any Linux name: bytes without NUL and slash. */
const name = fc.uint8Array({ minLength: 1, maxLength: 255 }).map((bytes) =>
  decodeName(bytes.map((byte) => byte === 0 || byte === 0x2f ? 0x61 : byte))
);
const time: fc.Arbitrary<Time> = fc.record({ sec: fc.maxSafeInteger(), nsec });
const stat: fc.Arbitrary<Stat> = fc.record({
  ino: natural,
  mode: u32,
  nlink: u32,
  uid: u32,
  gid: u32,
  rdev: natural,
  size: natural,
  atimeSec: fc.maxSafeInteger(),
  atimeNsec: nsec,
  mtimeSec: fc.maxSafeInteger(),
  mtimeNsec: nsec,
  ctimeSec: fc.maxSafeInteger(),
  ctimeNsec: nsec,
  btimeSec: fc.maxSafeInteger(),
  btimeNsec: nsec,
  version: natural,
  content: fc.option(hexHash),
  tiers: fc.integer({ min: 0, max: 7 }),
});
const permission = fc.integer({ min: 0, max: 0o7777 });
const op: fc.Arbitrary<Op> = fc.oneof(
  fc.record({
    t: fc.constant("create" as const),
    parent: natural,
    name,
    ino: natural,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: natural,
    target: name,
    time,
  }, { requiredKeys: ["t", "parent", "name", "ino", "mode", "uid", "gid", "rdev", "time"] }),
  fc.record({ t: fc.constant("link" as const), ino: natural, parent: natural, name, time }),
  fc.record({ t: fc.constant("unlink" as const), parent: natural, name, ino: natural, time }),
  fc.record({ t: fc.constant("rmdir" as const), parent: natural, name, ino: natural, time }),
  fc.record({
    t: fc.constant("rename" as const),
    parent: natural,
    name,
    newParent: natural,
    newName: name,
    flags: fc.integer({ min: 0, max: 2 }),
    ino: natural,
    time,
  }),
  fc.record({
    t: fc.constant("attr" as const),
    ino: natural,
    mode: permission,
    uid: u32,
    gid: u32,
    atime: time,
    mtime: time,
    time,
  }, { requiredKeys: ["t", "ino", "time"] }),
  fc.record({ t: fc.constant("atime" as const), ino: natural, atime: time }),
  fc.record({
    t: fc.constant("content" as const),
    ino: natural,
    base: fc.option(natural),
    baseContent: fc.option(hexHash),
    content: fc.option(hexHash),
    size: natural,
    time,
    mode: permission,
  }, { requiredKeys: ["t", "ino", "base", "content", "size", "time"] }),
  fc.record({
    t: fc.constant("setxattr" as const),
    ino: natural,
    name,
    value: fc.uint8Array({ maxLength: 64 }),
    flags: fc.integer({ min: 0, max: 2 }),
    time,
  }),
  fc.record({ t: fc.constant("removexattr" as const), ino: natural, name, time }),
);

function sendCall<M extends Method>(method: M, params: Calls[M]["params"]): Calls[M]["params"] {
  const [call] = decodeCalls(joinFrames([encodeCall(7, method, params)]));
  assert.equal(call?.id, 7);
  assert.equal(call.method, method);
  return CALLS[method].params.decode(call.params);
}
function sendResult<M extends Method>(method: M, value: Calls[M]["result"]): Calls[M]["result"] {
  const [reply] = decodeReplies(joinFrames([encodeResult(9, method, value)]));
  assert.equal(reply?.kind, "result");
  return CALLS[method].result.decode(reply.value);
}
const refuses = (run: () => unknown, words: RegExp) =>
  assert.throws(
    run,
    (error) => error instanceof FsError && error.code === "invalid_input" && words.test(error.message),
  );
/** fast-check's records have no prototype. */
const plain = <T>(value: T): T => structuredClone(value);

Deno.test("every operation, with names of any bytes, arrives as it was sent", () => {
  fc.assert(
    fc.property(fc.array(op, { maxLength: 20 }), natural, (ops, request) => {
      const call = {
        request,
        previous: 0,
        group: false,
        urgent: true,
        chunks: [],
        manifests: [new Uint8Array([1, 2])],
        ops: plain(ops),
      };
      assert.deepEqual(sendCall("apply", call), call);
    }),
    { numRuns: 200 },
  );
});

Deno.test("listings and nodes arrive as they were sent", () => {
  fc.assert(
    fc.property(fc.array(fc.record({ name, stat }), { maxLength: 30 }), (entries) => {
      const sent = plain(entries);
      assert.deepEqual(sendResult("readDir", sent), sent);
      assert.deepEqual(sendResult("stat", sent[0]?.stat ?? null), sent[0]?.stat ?? null);
    }),
    { numRuns: 100 },
  );
});

Deno.test("changes arrive as they were sent", () => {
  const change = fc.record({
    seq: natural,
    device: natural,
    request: natural,
    kind: fc.constantFrom("entry" as const, "node" as const),
    ino: natural,
    parent: natural,
    name,
    stat: fc.option(stat),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 20 }), natural, (changes, seq) => {
      const sent = plain({ seq, changes });
      const [push] = decodeReplies(joinFrames([encodePush("changes", sent)]));
      assert.equal(push?.kind, "push");
      assert.deepEqual(PUSHES.changes.decode(push.value), sent);
    }),
    { numRuns: 100 },
  );
});

Deno.test("a name that is not UTF-8 survives as a parameter, a result and a path of an error", () => {
  const odd = decodeName(Uint8Array.of(0x66, 0xff, 0xfe, 0x80));
  assert.deepEqual(sendCall("lookup", { parent: 1, name: odd }), { parent: 1, name: odd });
  assert.equal(sendResult("readLink", odd), odd);
  const [reply] = decodeReplies(joinFrames([encodeFailure(3, new FsError("not_found", `no ${odd}`, { path: odd }))]));
  assert.equal(reply?.kind, "error");
  assert.equal(reply.failure.path, odd);
  assert.equal(reply.failure.code, "not_found");
  assert.equal(reply.failure.errno, 2);
});

Deno.test("many frames share a message in order", () => {
  for (const count of [0, 1, 15, 16, 70_000]) {
    const calls = decodeCalls(joinFrames(Array.from({ length: count }, (_, i) => encodeCall(i, "stat", { ino: i }))));
    assert.equal(calls.length, count);
    assert.ok(calls.every((call, i) => call.id === i));
  }
});

Deno.test("whatever bytes arrive are decoded or refused as invalid input, never anything else", () => {
  const valid = joinFrames([
    encodeCall(1, "lookup", { parent: 1, name: "a" }),
    encodeCall(2, "apply", { request: 1, previous: 0, group: false, urgent: true, chunks: [], manifests: [], ops: [] }),
  ]);
  const mutated = fc.tuple(fc.nat(valid.length - 1), fc.nat(255)).map(([at, byte]) => {
    const copy = valid.slice();
    copy[at] = byte;
    return copy;
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), mutated), (message) => {
      try {
        for (const call of decodeCalls(message)) CALLS[call.method].params.decode(call.params);
      } catch (error) {
        assert.ok(error instanceof FsError, String(error));
        assert.equal(error.code, "invalid_input");
      }
    }),
    { numRuns: 3000 },
  );
});

Deno.test("a message cut short, or with bytes behind its end, is refused at any place", () => {
  const message = joinFrames([encodeCall(1, "lookup", { parent: 1, name: "name" })]);
  for (let length = 0; length < message.length; length++) {
    refuses(() => decodeCalls(message.subarray(0, length)), /cut short/);
  }
  refuses(() => decodeCalls(Uint8Array.of(...message, 0)), /behind its end/);
});

Deno.test("a message that claims more elements than it has bytes is refused before memory is taken", () => {
  refuses(() => checkStructure(Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff)), /cut short/);
  const nested = new Uint8Array(100).fill(0x91);
  refuses(() => checkStructure(nested), /nests too deep/);
  refuses(() => checkStructure(Uint8Array.of(0xc7, 1, 1, 0)), /not used here/);
  refuses(() => decodeCalls(new Uint8Array(MAX_MESSAGE + 1)), /too long/);
});

Deno.test("a wrong field is named with its place", () => {
  const params = (value: unknown) => () => CALLS.apply.params.decode(value);
  refuses(
    params({ request: 1, previous: 0, group: false, urgent: true, chunks: [], manifests: [], ops: [{ t: "nope" }] }),
    /ops\[0\].*t: one of/,
  );
  refuses(
    params({ request: -1, previous: 0, group: false, urgent: true, chunks: [], manifests: [], ops: [] }),
    /request: expected a whole number/,
  );
  refuses(
    params({ request: 1.5, previous: 0, group: false, urgent: true, chunks: [], manifests: [], ops: [] }),
    /request/,
  );
  refuses(
    params({ request: 1, previous: 0, group: false, urgent: true, chunks: [], manifests: ["x"], ops: [] }),
    /manifests\[0\]/,
  );
  refuses(params(null), /expected a map/);
  refuses(
    params({
      request: 1,
      previous: 0,
      group: false,
      urgent: true,
      chunks: [{ hash: new Uint8Array(31), bytes: new Uint8Array(1) }],
      manifests: [],
      ops: [],
    }),
    /chunks\[0\]\.hash: expected 32 bytes/,
  );
  refuses(() => decodeCalls(encode([[0, 1, "constructor", null]])), /no such call/);
  refuses(() => decodeCalls(encode([[1, 1, null]])), /calls only/);
  refuses(() => decodeCalls(encode({ a: 1 })), /list of frames/);
});

Deno.test("pushes and error codes of a newer server are taken without harm", () => {
  const frames = decodeReplies(
    encode([[3, "weather", { rain: true }], [2, 1, { code: "new", message: "m", errno: 5 }]]),
  );
  assert.equal(frames.length, 1);
  assert.equal(frames[0]?.kind === "error" && frames[0].failure.code, "internal");
});

Deno.test("a body of chunks comes back as it was, and a cut one is refused", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ hash, bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }) }), { maxLength: 8 }),
      fc.nat(),
      (chunks, seed) => {
        const body = encodeChunks(chunks);
        assert.deepEqual(
          decodeChunks(body).map(({ hash, bytes }) => [hash.toHex(), bytes.toHex()]),
          chunks.map(({ hash, bytes }) => [hash.toHex(), bytes.toHex()]),
        );
        if (body.length === 0) return;
        const cut = body.subarray(0, body.length - 1 - seed % Math.min(body.length - 1, 300 + 35));
        const whole = new Set<number>([0]);
        let at = 0;
        for (const { bytes } of chunks) whole.add(at += 36 + bytes.length);
        if (!whole.has(cut.length)) refuses(() => decodeChunks(cut), /end in the middle/);
      },
    ),
    { numRuns: 200 },
  );
});
