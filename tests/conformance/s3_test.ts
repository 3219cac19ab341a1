/** The s3 backend passes the suite on a real S3 server, and leaves no parts of uploads. */
import assert from "node:assert/strict";
import { openS3Backend } from "../../backends/s3/backend.ts";
import { S3Connection } from "../../backends/s3/connection.ts";
import { putWhole } from "../../backends/s3/transfer.ts";
import { kindOf } from "../../core/fs/stat.ts";
import { text, utf8 } from "../support/expect.ts";
import { makeBucket, s3Server, settingsOf } from "../support/s3_server.ts";
import { testBackend } from "./backend.ts";
import { testFileStorage } from "./file_storage.ts";

async function getFactory() {
  const server = await s3Server();
  if ("skip" in server) return server;
  return {
    traits: openS3Backend({ bucket: "any" }).traits,
    // Each costs some requests, so pages are small instead.
    manyEntries: 500,
    async open() {
      const bucket = await makeBucket(server);
      const fs = openS3Backend({ ...settingsOf(server), bucket: bucket.name, prefix: "some/prefix", pageSize: 90 });
      return {
        fs,
        async dispose() {
          await fs.close();
          assert.equal(await bucket.uploads(), 0, "parts of an upload are left");
          await bucket.remove();
        },
      };
    },
  };
}

Deno.test({
  name: "s3: shows what others have put into a bucket, and survives their odd keys",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const server = await s3Server();
    if ("skip" in server) return;
    const bucket = await makeBucket(server);
    const connection = new S3Connection({ ...settingsOf(server), bucket: bucket.name });
    const keys = [
      "plain",
      "x/y/only.txt",
      "both",
      "both/below",
      "odd//double",

      "/leading",
      "%41",
    ];
    for (const key of keys) await putWhole(connection, key, utf8(key), undefined);
    const fs = openS3Backend({ ...settingsOf(server), bucket: bucket.name });
    const names = async (path: string) => (await Array.fromAsync(fs.readDir(path))).map((e) => e.name).sort();
    assert.deepEqual(await names("/"), ["%41", "both", "odd", "plain", "x"]);
    assert.deepEqual(await names("/odd"), []);
    assert.deepEqual(await names("/both"), ["below"]);
    assert.equal(kindOf((await fs.stat("/both")).mode), "directory");
    assert.equal(text(await fs.read("/%41")), "%41");
    await fs.removeFile("/x/y/only.txt");
    assert.deepEqual(await names("/x/y"), [], "a directory nobody made stays when its last file goes");
    await fs.removeDir("/x/y");
    assert.deepEqual(await names("/x"), []);
    await fs.close();
    await connection.close();
    await bucket.remove();
  },
});

testBackend("s3", getFactory);
testFileStorage("s3", getFactory);
