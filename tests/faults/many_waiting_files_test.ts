/** More files than a process may have open are written while the server is away: all of them read, also after kill -9, and arrive. */
import assert from "node:assert/strict";
import { MountHouse } from "../e2e/mount_house.ts";
import { faultTest, sh } from "./fault_house.ts";

const FILES = 260;
const LIMIT = 256;
/** Larger than what the journal takes in itself. */
const WRITE = `for i in $(seq ${FILES}); do { head -c 300000 /dev/zero; echo $i; } > $1/$i; done`;
const READ =
  `for i in $(seq ${FILES}); do [ "$(tail -c +300001 $1/$i)" = $i ] || { echo "$i is wrong"; exit 1; }; done`;

faultTest("more files than may be open wait for delivery", async () => {
  await using house = new MountHouse(120_000);
  await house.serve();
  const options = { prefix: ["prlimit", `--nofile=${LIMIT}:${LIMIT}`] };
  const dir = await house.mount("a", options);
  await house.killServer();
  await sh(WRITE, dir);
  await sh(READ, dir);
  await house.killMount("a");
  await house.mount("a", options);
  await sh(READ, dir);
  await house.serve();
  assert.ok(await house.drain("a", 30_000));
  await sh(READ, await house.mount("b"));
});
