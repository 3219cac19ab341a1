/** Time to the first byte of a file that only an S3 store has any more: AnyFS alone, with a server and a mount of its own. */
import { makeBucket, s3Server } from "../support/s3_server.ts";
import { type MountedHouse, type Program, shell, startMount, startServer } from "./house.ts";
import { FORGET_BYTES } from "./targets.ts";
import { NotSupported, seconds, type Task } from "./task.ts";

const MIB = 2 ** 20;
/** How long the upload may take. */
const UPLOAD_LIMIT_MS = 240_000;

export interface S3Measurement {
  readonly task: Task;
  /** Ends what was started; the S3 server itself ends with the last process that uses it. */
  stop(): Promise<void>;
}

/** `place` names the program under test and a folder, when the first round begins. */
export function s3Measurement(place: () => { program: Program; folder: string }, mib: number): S3Measurement {
  const stops: (() => Promise<unknown>)[] = [];
  let mount: MountedHouse | undefined;
  let evict: (() => Promise<void>) | undefined;
  const path = () => `${mount?.dir}/cold`;

  const open = async (source: string) => {
    const found = await s3Server();
    if ("skip" in found) throw new NotSupported(found.skip);
    const bucket = await makeBucket(found);
    stops.push(() => bucket.remove());
    const { program, folder: base } = place();
    const folder = `${base}/s3`;
    const keys = { AWS_ACCESS_KEY_ID: found.accessKeyId, AWS_SECRET_ACCESS_KEY: found.secretAccessKey };
    // A bundle for other hosts; this store speaks plain HTTP.
    const env = { ...program.env, ...keys, AWS_CA_BUNDLE: "" };
    const server = await startServer(
      { ...program, env },
      folder,
      `[tiers.s3]\nbucket = "${bucket.name}"\nendpoint = "${found.endpoint}"\npath_style = true\nregion = "us-east-1"\n` +
        "[upload]\nflush_interval_secs = 1\n",
    );
    stops.push(() => server.stop());
    const house = await startMount(program, server.url, folder);
    stops.push(() => house.stop());
    mount = house;
    await shell('dd if="$1" of="$2" bs=1M count="$3" status=none', [source, path(), String(mib)]);
    await house.settle();
    evict = async () => {
      const [first = "", ...rest] = program.command;
      const command = [first, ...rest, "--server", server.url, "--json", "evict", "--tier", "local", "--to", "0"];
      const end = performance.now() + UPLOAD_LIMIT_MS;
      for (;;) {
        const { reports } = JSON.parse(await shell('"$@"', command)) as { reports: { after: number }[] };
        const left = reports.reduce((sum, { after }) => sum + after, 0);
        // The last pack may stay open.
        if (left < mib * MIB / 8) return;
        if (performance.now() > end) throw new Error(`${left} bytes are still on the hot tier only`);
        await new Promise((done) => setTimeout(done, 500));
      }
    };
  };

  return {
    task: {
      only: "anyfs",
      rows: [
        { id: "first_byte_s3", title: `first byte of a cold file of ${mib} MiB that only S3 has`, unit: "ms" },
        { id: "cold_read_s3", title: `the rest of its first ${Math.min(mib, 64)} MiB`, unit: "MB/s" },
      ],
      prepare: ({ tools }) => open(tools.source),
      before: async () => {
        await mount?.call("cache.clear");
        await evict?.();
        await shell(FORGET_BYTES, [path()]);
      },
      run: async ({ tools }) => {
        const first = Number(await shell('"$1" firstbyte "$2" 1 0', [tools.client, path()]));
        const part = Math.min(mib, 64);
        const read = () =>
          shell('dd if="$1" of=/dev/null bs=1M count="$2" status=none', [path(), String(part)], 120_000);
        return {
          first_byte_s3: { value: first },
          cold_read_s3: { value: part * MIB / 1e6 / await seconds(read) },
        };
      },
    },
    stop: async () => {
      for (const step of stops.splice(0).reverse()) await step();
    },
  };
}
