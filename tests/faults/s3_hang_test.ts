/** A real server whose S3 tier hangs: what needs it ends in time, everything else goes on; then all works again. */
import assert from "node:assert/strict";
import { MountHouse } from "../e2e/mount_house.ts";
import { startFaultProxy } from "../support/fault_proxy.ts";
import { makeBucket, s3Server } from "../support/s3_server.ts";
import {
  assertNoneStuck,
  checkCalls,
  everyCall,
  faultTest,
  furnish,
  mode,
  runFor,
  sh,
  waitFor,
} from "./fault_house.ts";

const TIMED_READ = `
import errno, os, sys, time
start = time.monotonic()
try:
    fd = os.open(sys.argv[1], os.O_RDONLY)
    n = len(os.read(fd, 1 << 20))
    print("read", n, round((time.monotonic() - start) * 1000))
except OSError as e:
    print(errno.errorcode[e.errno], 0, round((time.monotonic() - start) * 1000))
`;

faultTest("S3 hanging: a read that needs it ends within its time, all else goes on; then it reads", async () => {
  const s3 = await s3Server();
  if ("skip" in s3) {
    console.log(s3.skip);
    return;
  }
  const bucket = await makeBucket(s3);
  await using _bucket = { [Symbol.asyncDispose]: () => bucket.remove() };
  await using proxy = startFaultProxy(s3.endpoint);
  await using house = new MountHouse(150_000, {
    config: `[mount]\nrequest_timeout = "3s"\nread_timeout = "6s"\n[tiers.s3]\nbucket = "${bucket.name}"\n` +
      `endpoint = "http://127.0.0.1:${proxy.port}"\npath_style = true\nregion = "us-east-1"\n`,
    env: { AWS_ACCESS_KEY_ID: s3.accessKeyId, AWS_SECRET_ACCESS_KEY: s3.secretAccessKey },
  });
  await house.serve();
  const dir = await furnish(house, "a");
  await house.cli("wal", "flush", "--timeout", "30s");
  await house.cli("evict", "--tier", "local", "--to", "0");
  // A new server has nothing of it in memory.
  await house.killServer("SIGTERM");
  await house.serve();
  await waitFor("the mount is online", 20_000, async () => await mode(house, "a") === "online");
  proxy.hang();
  for (let i = 0; i < 2; i++) {
    const ran = await runFor(20_000, "python3", ["-c", TIMED_READ, `${dir}/unseen/f9`]);
    const [how = "", , ms = NaN] = ran.out.trim().split(" ").map((word, n) => n === 0 ? word : Number(word));
    assert.match(String(how), /^(EIO|ETIMEDOUT|EHOSTUNREACH)$/, ran.out + ran.err);
    assert.ok(Number(ms) < 7500, `the read took ${ms} ms`);
  }
  const ended = await everyCall(dir, 20);
  // What was never read is on S3 only, and all of these need its bytes.
  for (const call of ["read", "read uncached", "overwrite", "truncate"]) delete ended[`unseen: ${call}`];
  delete ended["seen: read uncached"];
  checkCalls(ended, 4500, "none");
  await assertNoneStuck(house);
  proxy.pass();
  assert.equal(
    await sh(
      `for i in $(seq 30); do wc -c < "$1/unseen/f9" && cat "$1/unseen/f9" | wc -c && exit 0; sleep 0.5; done; exit 1`,
      dir,
    ),
    "300000\n300000",
  );
  checkCalls(await everyCall(dir, 20), 7500, "none");
  assert.ok(await house.drain("a"));
}, { sanitizeResources: false, sanitizeOps: false });
