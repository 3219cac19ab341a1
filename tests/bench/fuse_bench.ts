/**
 * What the kernel protocol costs: a null filesystem under a C client and dd. `deno run -A tests/bench/fuse_bench.ts`;
 * needs root, gcc. Prints one line a figure; entry and attribute caching is off for the first ones (1 ms attributes).
 */
import { bash, mountInChild, run } from "../support/mount_child.ts";

const SECONDS = 2;
const GIB = 2 ** 30;
const client = await Deno.makeTempFile({ prefix: "anyfs-bench-" });
const built = await run("gcc", ["-O2", "-pthread", "-o", client, new URL("./fuse_client.c", import.meta.url).pathname]);
if (built.code !== 0) throw new Error(`gcc: ${built.err}`);

const report = (name: string, value: string): void => console.log(`${name.padEnd(34)} ${value.padStart(12)}`);
const ops = async (mode: string, dir: string, threads: number): Promise<string> =>
  (await bash(dir, `${client} ${mode} "$1" ${threads} ${SECONDS}`)).split(" ")[0] ?? "";

{
  await using mount = await mountInChild({
    fs: "null",
    options: { entryTimeoutSec: 0, attrTimeoutSec: 0.001, negativeTimeoutSec: 0 },
  });
  for (const threads of [1, 8]) {
    report(`stat /s, ${threads} thread(s)`, await ops("stat", mount.dir, threads));
    report(`open+read 4 KiB+close /s, ${threads}`, await ops("openread", mount.dir, threads));
    report(`create+write 4 KiB+close /s, ${threads}`, await ops("create", mount.dir, threads));
  }
}
{
  await using mount = await mountInChild({ fs: "null" });
  report("readdir 100,000, entries/s", await ops("readdir", `${mount.dir}/d100k`, 1));
  const sequential = async (name: string, threads: number, script: string) => {
    // Of five: the first ones touch memory that the machine has to get from its host.
    let best = Infinity;
    for (let i = 0; i < 5; i++) {
      await bash(mount.dir, "echo 1 > /proc/sys/vm/drop_caches");
      const start = performance.now();
      await bash(mount.dir, script);
      best = Math.min(best, performance.now() - start);
    }
    report(`${name}, ${threads}`, `${(GIB / 1e6 / best).toFixed(2)} GB/s`);
  };
  for (const threads of [1, 8]) {
    const each = 1024 / threads;
    const jobs = (command: (i: number) => string) =>
      Array.from({ length: threads }, (_, i) => `${command(i)} status=none & `).join("") + "wait";
    await sequential(
      "sequential read 1 MiB",
      threads,
      jobs((i) => `dd if="$1/big" of=/dev/null bs=1M count=${each} skip=${each * i}`),
    );
    await sequential(
      "sequential write 1 MiB",
      threads,
      jobs((i) => `dd if=/dev/zero of="$1/w/s${i}" bs=1M count=${each}`),
    );
  }
  await sequential(
    "sequential write 4 KiB (1 GiB)",
    1,
    `dd if=/dev/zero of="$1/w/small" bs=4k count=262144 status=none`,
  );
  const { rss } = await mount.stats();
  report("server RSS", `${(rss / 1e6).toFixed(0)} MB`);
}
await Deno.remove(client);
