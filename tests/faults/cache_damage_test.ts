/** A client's cache folder that is removed or damaged, under a running mount and before a start: no wrong byte, no empty folder, and it goes on. */
import assert from "node:assert/strict";
import { MountHouse } from "../e2e/mount_house.ts";
import { assertNoneStuck, checkCalls, everyCall, faultTest, furnish, runFor, sh } from "./fault_house.ts";

/** Flips a bit in every 512 bytes of each file, or cuts the files in half. */
const DAMAGE = `
import os, sys
for path in sys.argv[2:]:
    size = os.path.getsize(path)
    if size == 0: continue
    if sys.argv[1] == "cut":
        os.truncate(path, size // 2)
        continue
    with open(path, "r+b") as f:
        data = bytearray(f.read())
        for at in range(100, len(data), 512): data[at] ^= 4
        f.seek(0); f.write(data)
`;
async function damage(how: "flip" | "cut", folder: string, find: string): Promise<number> {
  const files = (await sh(`find "$1" ${find} -type f`, folder)).split("\n").filter((path) => path !== "");
  const ran = await runFor(20_000, "python3", ["-c", DAMAGE, how, ...files]);
  assert.equal(ran.code, 0, ran.err);
  return files.length;
}
async function sums(dir: string): Promise<string> {
  return await sh(`cd "$1"; find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum; find . | LC_ALL=C sort`, dir);
}
const dropPages = () => sh(`echo 1 > /proc/sys/vm/drop_caches`);

/** A mount \`a\` with contents of all kinds in its cache, and what they are. */
async function furnished(house: MountHouse): Promise<{ dir: string; truth: string }> {
  const dir = await furnish(house, "a");
  await sh(
    `head -c 3000000 /dev/urandom > "$1/seen/written"; mkdir "$1/big"; head -c 9000000 /dev/urandom > "$1/big/b"`,
    dir,
  );
  assert.ok(await house.drain("a"));
  const truth = await sums(dir);
  assert.equal(await sums(dir), truth);
  return { dir, truth };
}

for (const how of ["flip", "cut"] as const) {
  faultTest(
    `cached contents damaged (${how}) under a running mount and before a start: never a wrong byte`,
    async () => {
      await using house = new MountHouse(100_000);
      await house.serve();
      const { dir, truth } = await furnished(house);
      assert.ok(
        await damage(how, `${house.folder}/cache-a`, "-path '*/content/slabs/*' -o -path '*/content/big/*'") >= 3,
      );
      await dropPages();
      assert.equal(await sums(dir), truth);
      await house.killMount("a", "SIGTERM");
      await damage(how, `${house.folder}/cache-a`, "-path '*/content/slabs/*' -o -path '*/content/big/*'");
      await house.mount("a");
      assert.equal(await sums(dir), truth);
      // With the contents whole again in the cache, it reads without the server.
      await house.killServer();
      await dropPages();
      assert.equal(await sums(dir), truth);
    },
  );

  for (const file of ["content/cache.db*", "replica.db*", "device", "mount.json", "lock"]) {
    faultTest(`${file} damaged (${how}) before a start: it starts, and shows what is there`, async () => {
      await using house = new MountHouse(100_000);
      await house.serve();
      const { dir, truth } = await furnished(house);
      await house.killMount("a");
      await damage(how, `${house.folder}/cache-a`, `-path '*/mounts/*/${file}'`);
      await house.mount("a");
      assert.equal(await sums(dir), truth);
      await sh(`echo more > "$1/seen/more"; mkdir "$1/made"; mv "$1/seen/more" "$1/made/"`, dir);
      assert.ok(await house.drain("a"));
      const after = await sums(dir);
      await house.killMount("a", "SIGTERM");
      await house.mount("a", { cacheDir: `${house.folder}/other` });
      assert.equal(await sums(dir), after);
    });
  }
}

faultTest("the cache folder removed under a running mount: all goes on, and what is written then is kept", async () => {
  await using house = new MountHouse(100_000);
  await house.serve();
  const { dir, truth } = await furnished(house);
  await sh(`rm -rf "$1"`, `${house.folder}/cache-a`);
  await dropPages();
  assert.equal(await sums(dir), truth);
  checkCalls(await everyCall(dir, 20), 5000, "none");
  await sh(`head -c 5000000 /dev/urandom > "$1/seen/large"; seq 1000 > "$1/seen/small"; sync "$1/seen/small"`, dir);
  await assertNoneStuck(house);
  const after = await sums(dir);
  await house.killServer();
  await sh(`echo offline > "$1/seen/offline"; sync "$1/seen/offline"`, dir);
  await house.killMount("a");
  await house.serve();
  await house.mount("a");
  // What is known of the tree went with the folder: the file is seen again when it has been delivered.
  assert.ok(await house.drain("a"));
  assert.equal(await sh(`cat "$1/seen/offline"`, dir), "offline");
  await sh(`rm "$1/seen/offline"`, dir);
  assert.equal(await sums(dir), after);
});
