/** Layers: whatever is written, cut and frozen, a read gives what a plain file would. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { DescriptorPool } from "../platform/open_files.ts";
import { systemRandom } from "../platform/random.ts";
import { Journal } from "./journal.ts";
import { Layer, LayerStack } from "./layers.ts";

type Step = { t: "write"; at: number; length: number; byte: number } | { t: "cut"; size: number } | { t: "freeze" } | {
  t: "deliver";
};
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    t: fc.constant("write" as const),
    at: fc.oneof(fc.nat(100), fc.nat(500_000)),
    length: fc.oneof(fc.nat(50), fc.nat(200_000)),
    byte: fc.integer({ min: 1, max: 255 }),
  }),
  fc.record({ t: fc.constant("cut" as const), size: fc.oneof(fc.nat(100), fc.nat(600_000)) }),
  fc.constant({ t: "freeze" as const }),
  fc.constant({ t: "deliver" as const }),
);

for (const limit of [1000, 1]) {
  Deno.test(`a stack of layers reads like a plain file, with ${limit} staging files open at most`, async () => {
    const before = Layer.waiting;
    Layer.waiting = new DescriptorPool(() => limit);
    try {
      await compareStacks();
      assert.equal(Layer.waiting.size, 0);
    } finally {
      Layer.waiting = before;
    }
  });
}

async function compareStacks(): Promise<void> {
  const folder = Deno.makeTempDirSync();
  Deno.mkdirSync(`${folder}/staging`);
  Deno.mkdirSync(`${folder}/journal`);
  const { journal } = await Journal.open(`${folder}/journal`, systemRandom);
  let staged = 0;
  let request = 0;
  await fc.assert(
    fc.asyncProperty(fc.nat(300_000), fc.array(step, { maxLength: 25 }), async (baseSize, steps) => {
      await Promise.resolve();
      let base = new Uint8Array(baseSize).fill(9);
      const stack = new LayerStack(baseSize === 0 ? null : "base", baseSize);
      let model = base.slice();
      const readStack = () => {
        const out = new Uint8Array(stack.size);
        for (const source of stack.sources(0, out.length)) {
          const part = out.subarray(source.start, source.end);
          if (source.kind === "layer") source.layer.read(source.start, part);
          else if (source.kind === "base") part.set(base.subarray(source.start, source.end));
        }
        return out;
      };
      for (const s of steps) {
        if (s.t === "write") {
          if (s.length === 0) continue;
          stack.top().write(s.at, new Uint8Array(s.length).fill(s.byte), () => `${folder}/staging/${staged++}`);
          const next = new Uint8Array(Math.max(model.length, s.at + s.length));
          next.set(model);
          next.fill(s.byte, s.at, s.at + s.length);
          model = next;
        } else if (s.t === "cut") {
          stack.top().truncate(s.size);
          const next = new Uint8Array(s.size);
          next.set(model.subarray(0, s.size));
          model = next;
        } else if (s.t === "freeze") {
          const layer = stack.open;
          if (layer === null) continue;
          request++;
          const place = journal.append({
            request,
            ops: [],
            data: {
              ino: 1,
              size: layer.size,
              floor: layer.floor,
              ranges: layer.extents.toArray(),
              staging: layer.staging,
              base: stack.base,
              baseSize: stack.baseSize,
              time: { sec: 0, nsec: 0 },
            },
          }, layer.pieces() ?? []);
          layer.freeze(request, place, journal);
        } else {
          const oldest = stack.layers[0];
          if (oldest === undefined || !oldest.frozen) continue;
          const out = new Uint8Array(oldest.size);
          for (const source of stack.sources(0, out.length, 1)) {
            const part = out.subarray(source.start, source.end);
            if (source.kind === "layer") source.layer.read(source.start, part);
            else if (source.kind === "base") part.set(base.subarray(source.start, source.end));
          }
          stack.layers.shift();
          oldest.dispose();
          base = out;
          stack.base = out.length === 0 ? null : "base";
          stack.baseSize = out.length;
        }
        assert.equal(stack.size, model.length);
      }
      assert.ok(Buffer.from(readStack()).equals(Buffer.from(model)), "the bytes are those of the plain file");
      for (const layer of stack.layers) layer.dispose();
    }),
    { numRuns: 200 },
  );
  await journal.close();
  Deno.removeSync(folder, { recursive: true });
}

Deno.test("a file that was synced ten thousand times while nothing could be delivered is read all the same", () => {
  const stack = new LayerStack(null, 0);
  for (let i = 0; i < 10_000; i++) {
    stack.top().write(i, Uint8Array.of(i & 255), () => "");
    stack.top().frozen = true;
  }
  const sources = stack.sources(0, 10_000);
  assert.equal(sources.length, 10_000);
  assert.deepEqual(sources.map((source) => source.start), Array.from({ length: 10_000 }, (_, i) => i));
  assert.ok(sources.every((source) => source.kind === "layer"));
});
