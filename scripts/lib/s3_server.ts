/** A real S3 server for a test run: one that the environment names, else the Ceph gateway of scripts/ceph_rgw.sh. */
import { run } from "./run.ts";

export interface S3Server {
  /** ANYFS_TEST_S3_ENDPOINT, ANYFS_TEST_S3_KEY, ANYFS_TEST_S3_SECRET. */
  readonly env: Record<string, string>;
  stop(): Promise<void>;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** Null when there is none; says why, because the tests that need it then skip. */
export async function startS3(root: string, work: string, mark: Record<string, string>): Promise<S3Server | null> {
  const given = Deno.env.get("ANYFS_TEST_S3_ENDPOINT");
  if (given !== undefined && given !== "") return { env: {}, stop: () => Promise.resolve() };
  const script = `${root}/scripts/ceph_rgw.sh`;
  if (!await exists(script)) return null;
  const gateway = await run(["sh", "-c", "command -v radosgw"], {}).catch(() => null);
  if (gateway?.code !== 0) {
    console.log("no radosgw on this machine: tests against a real S3 server are skipped (apt-get install radosgw)");
    return null;
  }
  // The script's other ports follow from this one; runs side by side must not meet.
  const port = 7500 + Math.floor(Math.random() * 2000);
  const env = { ...mark, CEPH_DIR: `${work}/ceph`, RGW_PORT: String(port) };
  const log = `${work}/ceph.log`;
  // To a file: the gateway's daemons inherit the streams, and a pipe would stay open as long as they live.
  const start = await run(["sh", "-c", `"$0" start >"$1" 2>&1`, script, log], { cwd: root, env, timeoutMs: 90_000 });
  const said = await Deno.readTextFile(log).catch(() => "");
  const stop = async () => {
    await run(["sh", "-c", `"$0" wipe >/dev/null 2>&1`, script], { cwd: root, env, timeoutMs: 30_000 });
  };
  const ready = /(https?:\/\/\S+) key=(\S+) secret=(\S+)/.exec(said);
  if (start.code !== 0 || ready === null) {
    console.log(
      `the Ceph gateway didn't start, tests against a real S3 server are skipped:\n${said.trim().slice(-600)}`,
    );
    await stop();
    return null;
  }
  const [, endpoint = "", key = "", secret = ""] = ready;
  return {
    env: { ANYFS_TEST_S3_ENDPOINT: endpoint, ANYFS_TEST_S3_KEY: key, ANYFS_TEST_S3_SECRET: secret },
    stop,
  };
}
