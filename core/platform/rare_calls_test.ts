/** Functions bound for rare calls, against libc itself. */
import assert from "node:assert/strict";
import { bindRare } from "./rare_calls.ts";

const libc = bindRare("libc.so.6", {
  getpid: { parameters: [], result: "i32" },
  place_of: { name: "lseek", parameters: ["i32", "i64", "i32"], result: "i64" },
  rename: { parameters: ["buffer", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
});

Deno.test("functions bound for rare calls take and give what Deno.dlopen's do, and leave errno", () => {
  assert.equal(libc.getpid(), Deno.pid);
  using file = Deno.openSync("/proc/self/status");
  assert.equal(Number(libc.place_of(-1, 0n, 0)), -1);
  file.readSync(new Uint8Array(10));
  const location = libc.__errno_location();
  assert(location !== null);
  const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4));
  const bytes = (text: string) => new TextEncoder().encode(`${text}\0`);
  for (let i = 0; i < 10_000; i++) {
    errno[0] = 0;
    assert.equal(libc.rename(bytes("/nowhere/a"), bytes("/nowhere/b")), -1);
    assert.equal(errno[0], 2);
  }
});

// The library stays loaded though its function was not found.
Deno.test("a name that the library lacks is an error at once", { sanitizeResources: false }, () => {
  assert.throws(() => bindRare("libc.so.6", { no_such_call: { parameters: [], result: "i32" } }), /no_such_call/);
});
