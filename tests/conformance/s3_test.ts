/** The s3 backend passes the suite on a real S3 server, and leaves no parts of uploads. */
import assert from "node:assert/strict";
import { openS3Backend } from "../../backends/s3/backend.ts";
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

testBackend("s3", getFactory);
testFileStorage("s3", getFactory);
