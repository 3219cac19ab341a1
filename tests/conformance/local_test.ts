/** The local backend passes the suite, and leaves no unfinished files. */
import assert from "node:assert/strict";
import { openLocalBackend } from "../../backends/local/backend.ts";
import { testBackend } from "./backend.ts";
import { testFileStorage } from "./file_storage.ts";

async function open() {
  const root = await Deno.makeTempDir();
  const fs = await openLocalBackend({ root });
  return {
    fs,
    async dispose() {
      await fs.close();
      const listed = new Deno.Command("find", { args: [root, "-name", ".~anyfs-*"] });
      assert.equal(new TextDecoder().decode((await listed.output()).stdout), "", "unfinished files are left");
      await Deno.remove(root, { recursive: true });
    },
  };
}

testBackend("local", async () => {
  const { fs, dispose } = await open();
  await dispose();
  return { traits: fs.traits, open };
});
testFileStorage("local", () => Promise.resolve({ open }));
