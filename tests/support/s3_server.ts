/**
 * An S3 server for tests. In this order: the one that ANYFS_TEST_S3_ENDPOINT, ANYFS_TEST_S3_KEY and ANYFS_TEST_S3_SECRET
 * name; a Ceph gateway of our own when its packages are installed; npm s3rver when ANYFS_TEST_S3RVER=1 (smoke tests only);
 * else none, and the reason.
 * One server serves all test processes of a run: a lock file serialises its start, one file a user counts the users, and
 * when the last of them has ended it is stopped.
 */
import { fileURLToPath } from "node:url";
import type { S3Settings } from "../../backends/s3/connection.ts";

export interface S3Server {
  readonly kind: "environment" | "ceph" | "s3rver";
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}
/** Why there is no server, as a sentence. */
export interface NoS3Server {
  readonly skip: string;
}

const SCRIPT = fileURLToPath(new URL("../../scripts/ceph_rgw.sh", import.meta.url));
/** Not the script's default, so that a gateway someone runs by hand is left alone. */
const PORT = Deno.env.get("ANYFS_TEST_S3_PORT") ?? "7488";

function stateFolder(): string {
  const base = Deno.env.get("TMPDIR") ?? "/tmp";
  return `${base}/anyfs-test-s3-${Deno.uid() ?? 0}-${PORT}`;
}

async function onPath(program: string): Promise<boolean> {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    if (await Deno.stat(`${folder}/${program}`).then((s) => s.isFile, () => false)) return true;
  }
  return false;
}

function alive(pid: string): boolean {
  try {
    Deno.statSync(`/proc/${pid}`);
    return true;
  } catch {
    return false;
  }
}

/** Runs `work` while no other test process does; the lock ends with the process. */
async function locked<T>(work: () => Promise<T>): Promise<T> {
  const state = stateFolder();
  await Deno.mkdir(`${state}/users`, { recursive: true });
  using lock = await Deno.open(`${state}/lock`, { write: true, create: true });
  await lock.lock(true);
  try {
    return await work();
  } finally {
    await lock.unlock();
  }
}

async function script(command: string): Promise<{ ok: boolean; text: string }> {
  // Not a pipe: the daemons inherit it, and it would never end.
  const log = `${stateFolder()}/${command}.log`;
  const child = new Deno.Command("bash", {
    args: ["-c", `exec "$0" ${command} </dev/null >"$1" 2>&1`, SCRIPT, log],
    env: { RGW_PORT: PORT, CEPH_DIR: `${stateFolder()}/ceph` },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  });
  const { success } = await child.output();
  return { ok: success, text: await Deno.readTextFile(log) };
}

/**
 * npm s3rver in a child process of its own, outside our lock file so that no compiled program carries it. It ignores
 * preconditions and never heard of some errors: good for a smoke test of a machine without Ceph, not for a verdict.
 */
async function startS3rver(): Promise<S3Server | NoS3Server> {
  const folder = await Deno.makeTempDir();
  const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = probe.addr;
  probe.close();
  const args = [
    "run",
    "-A",
    "--no-lock",
    "--no-config",
    "npm:s3rver@3.7.1",
    "-d",
    folder,
    "-a",
    "127.0.0.1",
    "-p",
    `${port}`,
  ];
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args, "--silent"],
    cwd: folder,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let ended = false;
  child.status.then(() => ended = true);
  globalThis.addEventListener("unload", () => {
    if (!ended) child.kill();
    Deno.removeSync(folder, { recursive: true });
  });
  for (const deadline = Date.now() + 60_000; Date.now() < deadline && !ended;) {
    const up = await Deno.connect({ hostname: "127.0.0.1", port }).then((c) => (c.close(), true), () => false);
    if (up) {
      const keys = { accessKeyId: "S3RVER", secretAccessKey: "S3RVER" };
      return { kind: "s3rver", endpoint: `http://127.0.0.1:${port}`, ...keys };
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  return { skip: "no S3 server: neither Ceph (see scripts/ceph_rgw.sh) nor npm s3rver could be started" };
}

/**
 * Test files come and go within a process, each with its own end, so no file can tell when the server is done with. A small
 * process of its own can: it waits until no user's process is left and stops the server, under the same lock as a start.
 */
const WATCHER = `
cd "$1" || exit
while :; do
  while :; do
    left=
    for user in users/*; do if [ -e "/proc/\${user#users/}" ]; then left=1; else rm -f "$user"; fi; done
    if [ -z "$left" ]; then break; fi
    sleep 1
  done
  exec 9>lock
  flock 9
  if [ -z "$(ls users)" ]; then
    rm -f watcher
    "$0" wipe 9>&-
    exit
  fi
  exec 9>&-
done`;

async function startWatcher(): Promise<void> {
  const mark = `${stateFolder()}/watcher`;
  const running = await Deno.readTextFile(mark).catch(() => "");
  if (running !== "" && alive(running)) return;
  const child = new Deno.Command("setsid", {
    args: ["bash", "-c", WATCHER, SCRIPT, stateFolder()],
    env: { RGW_PORT: PORT, CEPH_DIR: `${stateFolder()}/ceph` },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  child.unref();
  await Deno.writeTextFile(mark, String(child.pid));
}

async function startCeph(): Promise<S3Server | NoS3Server> {
  const started = await locked(async () => {
    await Deno.writeTextFile(`${stateFolder()}/users/${Deno.pid}`, "");
    const result = await script("start");
    if (result.ok) await startWatcher();
    return result;
  });
  if (!started.ok) return { skip: `no S3 server: ${started.text.trim()}` };
  return {
    kind: "ceph",
    endpoint: `http://127.0.0.1:${PORT}`,
    accessKeyId: "anyfs",
    secretAccessKey: "anyfssecret",
  };
}

let server: Promise<S3Server | NoS3Server> | undefined;

async function find(): Promise<S3Server | NoS3Server> {
  const endpoint = Deno.env.get("ANYFS_TEST_S3_ENDPOINT");
  if (endpoint !== undefined && endpoint !== "") {
    const accessKeyId = Deno.env.get("ANYFS_TEST_S3_KEY");
    const secretAccessKey = Deno.env.get("ANYFS_TEST_S3_SECRET");
    if (accessKeyId === undefined || secretAccessKey === undefined) {
      return { skip: "ANYFS_TEST_S3_ENDPOINT is set, but not ANYFS_TEST_S3_KEY and ANYFS_TEST_S3_SECRET" };
    }
    return { kind: "environment", endpoint, accessKeyId, secretAccessKey };
  }
  for (const program of ["radosgw", "ceph-mon", "ceph-osd", "ceph", "curl"]) {
    if (!await onPath(program)) {
      // Only on demand: it is downloaded, and fails what a real server passes.
      if (Deno.env.get("ANYFS_TEST_S3RVER") === "1") return await startS3rver();
      return { skip: `no S3 server: ${program} is not installed; ANYFS_TEST_S3RVER=1 tries npm s3rver instead` };
    }
  }
  return await startCeph();
}

/** The server of this test run, started at the first call. */
export function s3Server(): Promise<S3Server | NoS3Server> {
  server ??= find();
  return server;
}

async function emptyBucket(
  sdk: typeof import("@aws-sdk/client-s3"),
  client: import("@aws-sdk/client-s3").S3Client,
  bucket: string,
) {
  while (true) {
    const page = await client.send(new sdk.ListObjectsV2Command({ Bucket: bucket, EncodingType: "url" }));
    for (const { Key } of page.Contents ?? []) {
      const key = decodeURIComponent((Key ?? "").replaceAll("+", " "));
      await client.send(new sdk.DeleteObjectCommand({ Bucket: bucket, Key: key }));
    }
    if (page.IsTruncated !== true) break;
  }
}

/** Runs `test` with a fresh bucket, which is removed afterwards. Returns the reason when there is no server. */
export async function withS3Server(
  test: (settings: S3Settings & { endpoint: string }, server: S3Server) => Promise<void>,
): Promise<NoS3Server | undefined> {
  const found = await s3Server();
  if ("skip" in found) return found;
  const bucket = await makeBucket(found);
  try {
    await test({ ...settingsOf(found), bucket: bucket.name }, found);
  } finally {
    await bucket.remove();
  }
  return undefined;
}

export function settingsOf(found: S3Server) {
  return {
    endpoint: found.endpoint,
    region: "us-east-1",
    accessKeyId: found.accessKeyId,
    secretAccessKey: found.secretAccessKey,
  };
}

/** A fresh bucket; `remove` takes what is left in it too, unfinished uploads included. */
export async function makeBucket(
  found: S3Server,
): Promise<{ name: string; uploads(): Promise<number>; remove(): Promise<void> }> {
  const sdk = await import("@aws-sdk/client-s3");
  const client = new sdk.S3Client({
    endpoint: found.endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    expectContinueHeader: false,
    credentials: { accessKeyId: found.accessKeyId, secretAccessKey: found.secretAccessKey },
  });
  const name = `anyfs-test-${crypto.randomUUID()}`;
  await client.send(new sdk.CreateBucketCommand({ Bucket: name }));
  const uploads = async () => (await client.send(new sdk.ListMultipartUploadsCommand({ Bucket: name }))).Uploads ?? [];
  return {
    name,
    uploads: async () => (await uploads()).length,
    async remove() {
      for (const { Key, UploadId } of await uploads()) {
        await client.send(new sdk.AbortMultipartUploadCommand({ Bucket: name, Key, UploadId }));
      }
      await emptyBucket(sdk, client, name);
      await client.send(new sdk.DeleteBucketCommand({ Bucket: name }));
      client.destroy();
    },
  };
}
