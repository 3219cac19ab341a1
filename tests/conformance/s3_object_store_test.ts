/** The s3 store passes the suite of ObjectStore on a real S3 server. */
import assert from "node:assert/strict";
import { openS3ObjectStore } from "../../backends/s3/object_store.ts";
import { makeBucket, s3Server, settingsOf } from "../support/s3_server.ts";
import { testObjectStore } from "./object_store.ts";

testObjectStore("s3", async () => {
  const server = await s3Server();
  if ("skip" in server) return server;
  return {
    manyObjects: 130,
    async open() {
      const bucket = await makeBucket(server);
      const store = openS3ObjectStore({
        ...settingsOf(server),
        bucket: bucket.name,
        prefix: "some/prefix",
        pageSize: 40,
      });
      return {
        store,
        async dispose() {
          assert.equal(await bucket.uploads(), 0, "parts of an upload are left");
          await bucket.remove();
        },
      };
    },
  };
});
