/** A local S3 server for the demonstration: the Ceph gateway when it is installed, else npm s3rver. */
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { run } from "./run.ts";

export interface DemoS3 {
  /** What it is. */
  readonly name: string;
  readonly endpoint: string;
  readonly key: string;
  readonly secret: string;
  /** What a person types to end it. */
  readonly stopCommand: string;
  makeBucket(name: string): Promise<void>;
  stop(): Promise<void>;
}

/** A port nobody uses now. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** The gateway adds 10000 and 20000 to its port for its other parts. */
function gatewayPort(): number {
  for (let i = 0; i < 50; i++) {
    const port = 7500 + Math.floor(Math.random() * 2000);
    try {
      for (const each of [port, port + 10000, port + 20000]) Deno.listen({ hostname: "127.0.0.1", port: each }).close();
      return port;
    } catch {
      // Taken: another.
    }
  }
  throw new Error("no free ports from 7500 on for the S3 server");
}

function withBuckets(server: Omit<DemoS3, "makeBucket">): DemoS3 {
  return {
    ...server,
    async makeBucket(name) {
      const client = new S3Client({
        endpoint: server.endpoint,
        region: "us-east-1",
        forcePathStyle: true,
        credentials: { accessKeyId: server.key, secretAccessKey: server.secret },
      });
      try {
        await client.send(new CreateBucketCommand({ Bucket: name }));
      } finally {
        client.destroy();
      }
    },
  };
}

/** Starts one with its data in `folder`. Throws when neither can be started. */
export async function startDemoS3(root: string, folder: string): Promise<DemoS3> {
  await Deno.mkdir(folder, { recursive: true });
  const installed = await run(["sh", "-c", "command -v radosgw && command -v ceph-osd"]);
  if (installed.code === 0) {
    const ceph = await startCeph(root, folder);
    if (ceph !== null) return ceph;
  }
  return await startS3rver(folder);
}

async function startCeph(root: string, folder: string): Promise<DemoS3 | null> {
  const script = `${root}/scripts/ceph_rgw.sh`;
  const port = gatewayPort();
  const env = { CEPH_DIR: `${folder}/ceph`, RGW_PORT: String(port) };
  const wipe = async () => {
    await run(["sh", "-c", '"$0" wipe >/dev/null 2>&1', script], { env, timeoutMs: 30_000 });
  };
  // To a file: its daemons inherit the streams, and a pipe would stay open as long as they live.
  const log = `${folder}/start.log`;
  const started = await run(["sh", "-c", '"$0" start >"$1" 2>&1', script, log], { env, timeoutMs: 90_000 });
  const said = await Deno.readTextFile(log).catch(() => "");
  const ready = /(https?:\/\/\S+) key=(\S+) secret=(\S+)/.exec(said);
  if (started.code !== 0 || ready === null) {
    console.log(`the Ceph gateway did not start, taking npm s3rver instead: ${said.trim().slice(-300)}`);
    await wipe();
    return null;
  }
  const [, endpoint = "", key = "", secret = ""] = ready;
  const stopCommand = `CEPH_DIR=${env.CEPH_DIR} RGW_PORT=${port} ${script} wipe`;
  return withBuckets({ name: "Ceph RADOS gateway", endpoint, key, secret, stopCommand, stop: wipe });
}

async function startS3rver(folder: string): Promise<DemoS3> {
  const port = freePort();
  const data = `${folder}/s3rver`;
  await Deno.mkdir(data);
  const args = ["run", "-A", "--no-lock", "--no-config", "npm:s3rver@3.7.1", "-d", data];
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args, "-a", "127.0.0.1", "-p", String(port), "--silent"],
    cwd: folder,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  child.unref();
  let ended = false;
  void child.status.then(() => ended = true);
  const stop = async () => {
    if (!ended) child.kill("SIGTERM");
    await child.status;
  };
  for (const deadline = Date.now() + 60_000; Date.now() < deadline && !ended;) {
    const up = await Deno.connect({ hostname: "127.0.0.1", port }).then((c) => (c.close(), true), () => false);
    if (up) {
      return withBuckets({
        name: "npm s3rver 3.7.1 (the Ceph gateway, Debian package radosgw, is not installed)",
        endpoint: `http://127.0.0.1:${port}`,
        key: "S3RVER",
        secret: "S3RVER",
        stopCommand: `kill ${child.pid}`,
        stop,
      });
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  if (!ended) await stop();
  throw new Error("no S3 server: neither the Ceph gateway (Debian package radosgw) nor npm s3rver could be started");
}
