/** The pool of descriptors against a model, and the limit of the process itself. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DescriptorPool, raiseOpenFileLimit, type Reopenable } from "./open_files.ts";
import { fileLimit, setFileLimit } from "./posix.ts";

Deno.test("the files used last stay open, the others are let go of", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 5 }),
    fc.array(fc.record({ file: fc.nat(9), remove: fc.boolean() }), { maxLength: 60 }),
    (limit, steps) => {
      const open = new Set<number>();
      const files: Reopenable[] = Array.from({ length: 10 }, (_, i) => ({ letGo: () => assert.ok(open.delete(i)) }));
      const pool = new DescriptorPool(() => limit);
      let model: number[] = [];
      for (const { file, remove } of steps) {
        const which = files[file];
        assert.ok(which !== undefined);
        model = model.filter((other) => other !== file);
        if (remove) {
          pool.remove(which);
          open.delete(file);
        } else {
          open.add(file);
          pool.use(which);
          model.push(file);
        }
        model = model.slice(-limit);
        assert.deepEqual([...open].sort(), model.toSorted());
        assert.equal(pool.size, model.length);
      }
    },
  ));
});

Deno.test("the process may have as many files open as the system allows it", () => {
  const before = fileLimit();
  assert.ok(before.soft > 0 && before.soft <= before.hard);
  try {
    assert.ok(setFileLimit({ soft: Math.floor(before.hard / 2), hard: before.hard }));
    raiseOpenFileLimit();
    assert.deepEqual(fileLimit(), { soft: before.hard, hard: before.hard });
  } finally {
    setFileLimit(before);
  }
});
