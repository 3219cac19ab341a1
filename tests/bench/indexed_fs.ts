/**
 * Measures IndexedFs on the local tier: a large file written and read as a stream, small files one and sixteen at a time
 * (each durable before the next), and the longest pause of the event loop meanwhile.
 * Run: deno run -A tests/bench/indexed_fs.ts [folder] [MiB]
 */
import { LocalObjectStore } from "../../backends/local/object_store.ts";
import { openServerCore } from "../../core/indexed/open_core.ts";
import { patternBytes } from "../../core/store/testing/bytes.ts";

const folder = await Deno.makeTempDir({ dir: Deno.args[0] ?? "/tmp", prefix: "anyfs-bench-" });
const MIB = Number(Deno.args[1] ?? 1024);
const SMALL_FILES = 2000;
const SMALL_BYTES = 4096;

/** Runs `work`; the longest time between two ticks of a 1 ms timer is the stall. */
async function measured<T>(work: () => Promise<T>): Promise<{ seconds: number; stallMs: number }> {
  let last = performance.now();
  let stall = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    stall = Math.max(stall, now - last);
    last = now;
  }, 1);
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  clearInterval(timer);
  return { seconds, stallMs: stall };
}

async function smallFiles(fs: Awaited<ReturnType<typeof openServerCore>>["fs"], name: string, parallel: number) {
  await fs.createDir(`/${name}`);
  let next = 0;
  const one = async () => {
    while (next < SMALL_FILES) {
      const i = next++;
      await fs.write(`/${name}/${i}`, patternBytes(i + parallel * 1e6, SMALL_BYTES));
    }
  };
  const result = await measured(() => Promise.all(Array.from({ length: parallel }, one)));
  console.log(
    `${SMALL_FILES} files of ${SMALL_BYTES} bytes, ${parallel} at a time: ` +
      `${(SMALL_FILES / result.seconds).toFixed(0)}/s, stall ${result.stallMs.toFixed(1)} ms`,
  );
}

try {
  await Deno.mkdir(`${folder}/hot`);
  const open = () =>
    openServerCore({
      stateDir: `${folder}/state`,
      tiers: {
        local: { store: new LocalObjectStore({ folder: `${folder}/hot` }), path: `${folder}/hot`, place: "hot" },
      },
      log: (message) => console.log(message),
    });
  await using core = await open();
  for (const style of ["random", "text"] as const) {
    const piece = patternBytes(style.length, 1024 * 1024, style);
    const path = `/${style}`;
    const write = await measured(async () => {
      const { writable, done } = await core.fs.openWrite(path);
      const writer = writable.getWriter();
      const stamp = new DataView(piece.buffer);
      for (let i = 0; i < MIB; i++) {
        // Every 4 KiB another number, so that no two chunks are the same.
        for (let at = 0; at < piece.length; at += 4096) stamp.setUint32(at, i * 256 + at / 4096);
        await writer.write(piece);
      }
      await writer.close();
      await done;
    });
    let bytes = 0;
    const read = await measured(async () => {
      for await (const part of await core.fs.openRead(path)) bytes += part.length;
    });
    const rate = (s: number) => (MIB * 1.048576 / s).toFixed(0);
    console.log(
      `${MIB} MiB ${style}: write ${rate(write.seconds)} MB/s, stall ${write.stallMs.toFixed(1)} ms; ` +
        `read ${rate(read.seconds)} MB/s, stall ${read.stallMs.toFixed(1)} ms` +
        (bytes === MIB * 1024 * 1024 ? "" : " WRONG LENGTH"),
    );
  }
  await smallFiles(core.fs, "one", 1);
  await smallFiles(core.fs, "sixteen", 16);
  console.log(`rss ${(Deno.memoryUsage().rss / 1e6).toFixed(0)} MB`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
