/** A real server whose NAS hangs (a folder of a mount that is frozen): what needs it ends in time, all else goes on. */
import assert from "node:assert/strict";
import { MountHouse } from "../e2e/mount_house.ts";
import { assertNoneStuck, checkCalls, everyCall, faultTest, furnish, runFor, sh } from "./fault_house.ts";

faultTest("NAS hanging: a read that needs it ends within its time, all else goes on; then it reads", async () => {
  await using far = new MountHouse(170_000);
  await far.serve();
  const nas = `${await far.mount("nas")}/tier`;
  await Deno.mkdir(nas);
  await using house = new MountHouse(160_000, {
    config: `[mount]\nrequest_timeout = "3s"\nread_timeout = "6s"\n[tiers.nas]\npath = "${nas}"\n`,
  });
  await house.serve();
  const dir = await furnish(house, "a");
  await house.cli("wal", "flush", "--timeout", "30s");
  await house.cli("evict", "--tier", "local", "--to", "0");
  // A new server has nothing of it in memory.
  await house.killServer("SIGTERM");
  await house.serve();
  const frozen = far.mountPid("nas");
  Deno.kill(frozen, "SIGSTOP");
  try {
    let longest = 0;
    for (let i = 0; i < 12; i++) {
      // Uploads to it begin, and reads from it.
      if (i % 4 === 1) await house.cli("wal", "flush", "--timeout", "200ms").catch(() => {});
      const reading = i % 4 === 2 ? runFor(20_000, "timeout", ["20", "cat", `${dir}/unseen/f9`]) : null;
      const start = performance.now();
      await house.cli("mkdir", `/made ${i}`);
      longest = Math.max(longest, performance.now() - start);
      if (reading !== null) assert.equal((await reading).code, 1, "the read fails before it is killed");
    }
    assert.ok(longest < 5000, `a change took ${longest} ms`);
    const ended = await everyCall(dir, 20);
    for (const call of ["read", "read uncached", "overwrite", "truncate"]) delete ended[`unseen: ${call}`];
    delete ended["seen: read uncached"];
    checkCalls(ended, 4500, "none");
    await assertNoneStuck(house);
  } finally {
    Deno.kill(frozen, "SIGCONT");
  }
  assert.equal(
    await sh(`for i in $(seq 60); do cat "$1/unseen/f9" | wc -c | grep 300000 && exit 0; sleep 0.5; done; exit 1`, dir),
    "300000",
  );
  assert.ok(await house.drain("a"));
  await house.cli("wal", "flush", "--timeout", "40s");
  await house.killServer("SIGTERM");
  Deno.kill(frozen, "SIGSTOP");
  try {
    const start = performance.now();
    await house.serve();
    const took = performance.now() - start;
    assert.ok(took < 15_000, `the start took ${took} ms`);
    await house.cli("mkdir", "/made after the start");
  } finally {
    Deno.kill(frozen, "SIGCONT");
  }
}, { sanitizeResources: false, sanitizeOps: false });
