/** What the s3 drivers make of a network and a server that fail: clear errors, in time, and nothing left behind. */
import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { openS3Backend } from "../../backends/s3/backend.ts";
import { openS3ObjectStore, type S3ObjectStore } from "../../backends/s3/object_store.ts";
import { hasCode } from "../../core/fs/error.ts";
import { pattern } from "../support/bytes.ts";
import { collect, rejects, text, utf8 } from "../support/expect.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault_proxy.ts";
import { makeBucket, s3Server, settingsOf } from "../support/s3_server.ts";

type Settings = ReturnType<typeof settingsOf> & { bucket: string };
type Uploads = () => Promise<number>;

function test(name: string, body: (settings: Settings, proxy: FaultProxy, uploads: Uploads) => Promise<void>) {
  Deno.test({
    name: `s3: ${name}`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn() {
      const server = await s3Server();
      if ("skip" in server) {
        console.log(`    skipped: ${server.skip}`);
        return;
      }
      const bucket = await makeBucket(server);
      const proxy = startFaultProxy(server.endpoint);
      try {
        const settings = { ...settingsOf(server), bucket: bucket.name, endpoint: `http://127.0.0.1:${proxy.port}` };
        await body(settings, proxy, bucket.uploads);
      } finally {
        await proxy[Symbol.asyncDispose]();
        await bucket.remove();
      }
    },
  });
}

const quick = { requestTimeoutMs: 300, maxAttempts: 1 };

test("a missing bucket is named, with the fix, and never looks like an empty one", async (settings) => {
  const store = openS3ObjectStore({ ...settings, bucket: "no-such-bucket-here" });
  const calls: (() => Promise<unknown>)[] = [
    () => store.check(),
    () => store.get("a"),
    () => store.put("a", utf8("x")),
    () => store.head("a"),
    () => Array.fromAsync(store.list("")),
  ];
  for (const call of calls) {
    const { message } = await rejects("unavailable", call());
    assert.match(message, /bucket no-such-bucket-here does not exist.*create it or fix \[tiers\.s3\] bucket/);
  }
  const fs = openS3Backend({ ...settings, bucket: "no-such-bucket-here", section: "[federation.old]" });
  const { message } = await rejects("unavailable", Array.fromAsync(fs.readDir("/")));
  assert.match(message, /fix \[federation\.old\] bucket/);
  assert.equal(await fs.exists("/x").catch((error) => hasCode(error, "unavailable")), true);
  await store.close();
  await fs.close();
});

test("wrong credentials are access_denied and say where credentials come from", async (settings) => {
  const wrong = openS3ObjectStore({ ...settings, secretAccessKey: "wrong" });
  assert.match((await rejects("access_denied", wrong.check())).message, /AWS_ACCESS_KEY_ID/);
  const unknown = openS3ObjectStore({ ...settings, accessKeyId: "nobody" });
  assert.match((await rejects("access_denied", unknown.get("a"))).message, /InvalidAccessKeyId/);
  await rejects("access_denied", unknown.head("a"));
  await wrong.close();
  await unknown.close();
});

test("an endpoint that refuses or does not exist is unavailable and is named", async (settings, proxy) => {
  const store = openS3ObjectStore({ ...settings, maxAttempts: 1 });
  proxy.refuse();
  const { message } = await rejects("unavailable", store.check());
  assert(message.includes(settings.endpoint), message);
  proxy.pass();
  await store.check();
  const nowhere = openS3ObjectStore({ ...settings, ...quick, endpoint: "http://no-such-host.invalid" });
  assert.match((await rejects(["unavailable", "timeout"], nowhere.get("a"))).message, /no-such-host\.invalid/);
  await store.close();
  await nowhere.close();
});

test("bad settings are refused with the setting's name", () => {
  const refused = (settings: Parameters<typeof openS3ObjectStore>[0], about: RegExp) =>
    assert.throws(
      () => openS3ObjectStore(settings),
      (error) => hasCode(error, "invalid_input") && about.test(String(error)),
    );
  refused({ bucket: "" }, /bucket is empty/);
  refused({ bucket: "b", endpoint: "localhost:9000" }, /endpoint "localhost:9000" is not a URL/);
  return Promise.resolve();
});

test("a silent server makes every operation time out, and none hang", async (settings, proxy) => {
  // What a silent server has taken in is still done when it wakes: so `delete` names another object.
  const store = openS3ObjectStore({ ...settings, ...quick });
  const patient = openS3ObjectStore({ ...settings, requestTimeoutMs: 600_000 });
  await patient.put("a", pattern(100_000, 1));
  proxy.hang();
  const calls: (() => Promise<unknown>)[] = [
    () => store.get("a"),
    () => store.get("a", { offset: 5, length: 10 }),
    () => collect(store.getStream("a")),
    () => store.put("b", pattern(1000, 2)),
    () => store.head("a"),
    () => store.delete("other"),
    () => Array.fromAsync(store.list("")),
    () => store.check(),
  ];
  await Promise.all(calls.map((call) => rejects("timeout", call())));
  const controller = new AbortController();
  const waiting = patient.get("a", { signal: controller.signal });
  controller.abort();
  await rejects("cancelled", waiting);
  proxy.pass();
  assert.deepEqual(await patient.get("a"), pattern(100_000, 1));
  await store.close();
  await patient.close();
});

test("a connection cut in the middle of an answer is an error, never a short read", async (settings, proxy) => {
  const store = openS3ObjectStore({ ...settings, maxAttempts: 1 });
  const bytes = pattern(3_000_000, 3);
  await store.put("a", bytes);
  const calls: (() => Promise<unknown>)[] = [
    () => store.get("a"),
    () => store.get("a", { offset: 1, length: 2_999_999 }),
    () => collect(store.getStream("a")),
  ];
  for (const call of calls) {
    const cut = proxy.cutAfter(1_000_000, "from server");
    await rejects("unavailable", call());
    await cut;
  }
  proxy.pass();
  assert.deepEqual(await store.get("a"), bytes);
  await store.close();
});

test("an upload that is cut leaves no object and no parts", async (settings, proxy, uploads) => {
  const store = openS3ObjectStore({ ...settings, maxAttempts: 1, partSize: 5 << 20 });
  const put = (store: S3ObjectStore) => store.put("big", pattern(23_000_000, 4));
  proxy.cutWhenSent("partNumber=3");
  await rejects("unavailable", put(store));
  assert.equal(await store.head("big"), null);
  assert.equal(await uploads(), 0);
  proxy.pass();
  await put(store);
  assert.equal((await store.head("big"))?.size, 23_000_000);
  await store.close();
});

test("a line that is slow, but alive, is not taken for a dead one", async (settings, proxy) => {
  const store = openS3ObjectStore({ ...settings, requestTimeoutMs: 1500, maxAttempts: 1 });
  const bytes = pattern(1_500_000, 5);
  await store.put("a", bytes);
  proxy.delay(90);
  assert.deepEqual(await store.get("a"), bytes);
  await store.close();
});

test("an object that others stored compressed is read as it is stored, or not at all", async (settings) => {
  const sdk = await import("@aws-sdk/client-s3");
  const { endpoint, region, accessKeyId, secretAccessKey, bucket } = settings;
  const client = new sdk.S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    expectContinueHeader: false,
  });
  const packed = gzipSync(pattern(5000, 6).fill(7, 100));
  await client.send(
    new sdk.PutObjectCommand({ Bucket: bucket, Key: "web.css", Body: packed, ContentEncoding: "gzip" }),
  );
  client.destroy();
  const fs = openS3Backend(settings);
  assert.deepEqual(new Uint8Array(await fs.read("/web.css")), new Uint8Array(packed));
  assert.deepEqual(await fs.read("/web.css", { offset: 10, length: 20 }), new Uint8Array(packed.subarray(10, 30)));
  assert.deepEqual(await collect(await fs.openRead("/web.css")), new Uint8Array(packed));
  await fs.close();
});

test("an append whose answer is lost is not done twice", async (settings, proxy) => {
  // The runtime's fetch and the SDK both repeat a request whose connection broke: the repeated one meets its own work.
  const fs = openS3Backend(settings);
  await fs.write("/log", utf8("one\n"));
  proxy.loseAnswerTo("PUT ");
  await fs.append("/log", utf8("two\n"));
  assert.equal(text(await fs.read("/log")), "one\ntwo\n");
  proxy.loseAnswerTo("PUT ");
  await fs.write("/lock", utf8("mine"), { exclusive: true });
  await rejects("already_exists", fs.write("/lock", utf8("mine"), { exclusive: true }));
  proxy.loseAnswerTo("POST ");
  const big = pattern(9_000_000, 8);
  await fs.write("/big", big);
  assert.equal((await fs.stat("/big")).size, big.length);
  await fs.close();
});
