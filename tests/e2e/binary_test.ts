/** The compiled executable itself. */
import assert from "node:assert/strict";
import { run } from "../support/mount_child.ts";

const BINARY = Deno.env.get("ANYFS_BIN");

Deno.test({
  name: "the executable runs no cached code from the folder for temporary files, where any user can put some",
  ignore: BINARY === undefined,
  fn: async () => {
    const work = await Deno.makeTempDir({ prefix: "anyfs-binary-" });
    try {
      // Who opens a fifo to read waits for a writer.
      const name = BINARY?.split("/").at(-1);
      assert.equal((await run("mkfifo", [`${work}/deno-compile-${name}.cache`])).code, 0);
      const ran = await run("env", [`TMPDIR=${work}`, "timeout", "20", BINARY ?? "", "--version"]);
      assert.equal(ran.code, 0, `it opened the cache: ${ran.err}`);
      assert.match(ran.out, /^anyfs \d/);
    } finally {
      await Deno.remove(work, { recursive: true });
    }
  },
});
