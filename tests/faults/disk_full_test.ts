/** A full disk, on the client or under the server's hot tier: ENOSPC for who writes, nothing acknowledged lost, and all works again with room. */
import assert from "node:assert/strict";
import { MountHouse } from "../e2e/mount_house.ts";
import { assertNoneStuck, faultTest, furnish, mode, runFor, sh, waitFor } from "./fault_house.ts";

/** Writes files until `count` in a row were refused; prints what was acknowledged (close returned 0) and the errnos seen. */
const WRITE_UNTIL_FULL = `
import errno, hashlib, json, os, random, sys
folder, size, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kept, errors, refused = {}, {}, 0
for n in range(most):
    path = f"{folder}/w{sys.argv[4]}-{n}"
    data = random.Random(path).randbytes(size)
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            at = 0
            while at < len(data): at += os.write(fd, data[at:at + 65536])
            os.fsync(fd)
        finally:
            os.close(fd)
        kept[path] = hashlib.sha256(data).hexdigest()
        refused = 0
    except OSError as e:
        name = errno.errorcode[e.errno]
        errors[name] = errors.get(name, 0) + 1
        refused += 1
        if refused == 5: break
print(json.dumps({"kept": kept, "errors": errors}))
`;
const CHECK = `
import hashlib, json, sys
bad = []
for path, digest in json.load(open(sys.argv[1])).items():
    try:
        if hashlib.sha256(open(path, "rb").read()).hexdigest() != digest: bad.append("differs: " + path)
    except OSError as e: bad.append(f"{e}")
print(json.dumps(bad))
`;
interface Written {
  readonly kept: Record<string, string>;
  readonly errors: Record<string, number>;
}
let rounds = 0;
async function writeUntilFull(folder: string, size: number, most: number): Promise<Written> {
  const ran = await runFor(60_000, "python3", [
    "-c",
    WRITE_UNTIL_FULL,
    folder,
    String(size),
    String(most),
    `${++rounds}`,
  ]);
  assert.equal(ran.code, 0, ran.err);
  return JSON.parse(ran.out) as Written;
}
async function assertAllThere(house: MountHouse, kept: Record<string, string>): Promise<void> {
  const list = `${house.folder}/kept.json`;
  await Deno.writeTextFile(list, JSON.stringify(kept));
  const ran = await runFor(60_000, "python3", ["-c", CHECK, list]);
  assert.equal(ran.code, 0, ran.err);
  assert.deepEqual(JSON.parse(ran.out), []);
}

/** A small disk of its own in memory. */
class SmallDisk implements AsyncDisposable {
  private constructor(readonly path: string) {}
  static async make(path: string, size: string): Promise<SmallDisk> {
    await Deno.mkdir(path, { recursive: true });
    await sh(`mount -t tmpfs -o size="$2" anyfs-test "$1"`, path, size);
    return new SmallDisk(path);
  }
  /** Takes all the room there is. */
  async fill(): Promise<void> {
    await sh(`cat /dev/zero > "$1/filler" 2> /dev/null || true`, this.path);
  }
  async free(): Promise<void> {
    await Deno.remove(`${this.path}/filler`);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await runFor(10_000, "umount", ["-l", this.path]);
  }
}

for (const online of [true, false]) {
  const how = online ? "online" : "offline";
  faultTest(`disk full on the client, ${how}: ENOSPC, nothing acknowledged is lost, and it recovers`, async () => {
    const place = await Deno.makeTempDir({ prefix: "anyfs-small-" });
    await using _place = { [Symbol.asyncDispose]: () => Deno.remove(place, { recursive: true }) };
    await using disk = await SmallDisk.make(`${place}/d`, "40m");
    await using house = new MountHouse(150_000);
    await house.serve();
    const dir = await furnish(house, "a", { cacheDir: `${disk.path}/c` });
    if (!online) await house.killServer();
    const kept: Record<string, string> = {};
    const before = await writeUntilFull(`${dir}/seen`, 40_000, 5);
    assert.deepEqual(before.errors, {});
    await disk.fill();
    // Small files go into the journal, large ones into files of their own; some still find room.
    for (const size of [40_000, 2_000_000]) {
      const written = await writeUntilFull(`${dir}/seen`, size, online ? 60 : 400);
      assert.deepEqual(
        Object.keys(written.errors).filter((name) => name !== "ENOSPC"),
        [],
        `only ENOSPC is right:\n${house.log.slice(-3000)}`,
      );
      if (!online || size > 1_000_000) assert.ok((written.errors["ENOSPC"] ?? 0) > 0, "the disk is full");
      Object.assign(kept, written.kept);
    }
    Object.assign(kept, before.kept);
    // What is there can be looked at and read all the same.
    assert.equal(await sh(`ls "$1/seen" | grep -c '^f[0-9]$'`, dir), "10");
    await assertAllThere(house, kept);
    if (online) {
      assert.equal(
        await sh(`ls "$1/unseen" | wc -l; cat "$1/unseen/f9" | wc -c; cat "$1/unseen/f1" | wc -l`, dir),
        "12\n300000\n500",
      );
    }
    await assertNoneStuck(house);
    await disk.free();
    if (!online) {
      await house.serve();
      await waitFor("the mount is online", 20_000, async () => await mode(house, "a") === "online");
    }
    let after: Written = { kept: {}, errors: { none: 1 } };
    await waitFor("writing works again", 10_000, async () => {
      after = await writeUntilFull(`${dir}/seen`, 40_000, 5);
      return Object.keys(after.errors).length === 0;
    });
    Object.assign(kept, after.kept);
    assert.ok(await house.drain("a"));
    await assertAllThere(house, kept);
    await house.killMount("a");
    // The server has all of it: a mount with a cache of its own sees it.
    await house.mount("a", { cacheDir: `${house.folder}/other` });
    await assertAllThere(house, kept);
  });
}

faultTest(
  "disk full under the hot tier: the mount says ENOSPC, HTTP 507, and what was acknowledged stays",
  async () => {
    const place = await Deno.makeTempDir({ prefix: "anyfs-small-" });
    await using _place = { [Symbol.asyncDispose]: () => Deno.remove(place, { recursive: true }) };
    await using disk = await SmallDisk.make(`${place}/d`, "48m");
    await using house = new MountHouse(150_000, `[tiers.local]\npath = "${disk.path}/hot"\n`);
    await house.serve();
    const dir = await furnish(house, "a");
    const put = async (name: string, bytes: number) =>
      await sh(
        `head -c "$3" /dev/urandom > "$4/body"; curl -sS -o "$4/answer" -w '%{http_code}' -T "$4/body" "$1/v1/files/$2"; echo; cat "$4/answer"`,
        house.url,
        name,
        String(bytes),
        house.folder,
      );
    const kept: Record<string, string> = {};
    const written = await writeUntilFull(`${dir}/seen`, 2_000_000, 60);
    assert.deepEqual(Object.keys(written.errors), ["ENOSPC"]);
    assert.ok(Object.keys(written.kept).length >= 5);
    Object.assign(kept, written.kept);
    const [code = "", body = ""] = (await put("too-large", 30_000_000)).split("\n");
    assert.equal(code, "507", body);
    assert.equal(JSON.parse(body).code, "no_space");
    await assertAllThere(house, kept);
    assert.equal(await sh(`cat "$1/unseen/f9" | wc -c`, dir), "300000");
    await sh(`rm "$1/seen/"w*-0 "$1/seen/"w*-1 "$1/seen/"w*-2 "$1/seen/"w*-3 "$1/seen/"w*-4`, dir);
    for (const path of Object.keys(kept)) if (/-[0-4]$/.test(path)) delete kept[path];
    await house.killMount("a");
    await house.killServer();
    await sh(`mount -o remount,size=200m "$1"`, disk.path);
    await house.serve();
    await house.mount("a");
    await assertAllThere(house, kept);
    const after = await writeUntilFull(`${dir}/seen`, 2_000_000, 5);
    assert.deepEqual(after.errors, {});
    assert.ok(await house.drain("a"));
    assert.equal((await put("fits", 3_000_000)).split("\n")[0]?.startsWith("20"), true);
  },
);
