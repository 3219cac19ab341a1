/** Random sequences of filesystem operations, and a process that executes them: for comparing a mount with ext4. */
import fc from "fast-check";

/** A name of tests/support/posix_ops.py and its arguments. */
export type Operation = readonly [string, ...(string | number)[]];

// Nothing may lead out of the sequence's folder, which is two deep: the operations are done by root.
const NAMES = ["a", "b", "d", "d/a", "d/b", "e", "e/a", "l", "d/e", "a/x", "none/x", ".", "d/..", "e/d"];
const path = fc.constantFrom(...NAMES);
const slot = fc.integer({ min: 0, max: 3 });
const mode = fc.constantFrom(0o644, 0o600, 0o755, 0o4755, 0o2755, 0o2644, 0o6777, 0o1777, 0o777, 0o2777, 0);
const offset = fc.oneof(
  fc.constantFrom(0, 1, 4095, 4096, 65536, 262144),
  fc.integer({ min: 0, max: 400_000 }),
);
const length = fc.oneof(fc.constantFrom(0, 1, 4096, 65536, 300_000), fc.integer({ min: 0, max: 20_000 }));
const seed = fc.integer({ min: 0, max: 9 });
const id = fc.constantFrom(-1, 0, 65534, 65533);
const attribute = fc.constantFrom("user.a", "user.b", "trusted.t", "security.s", "user.", "system.x", "nonsense");
const flags = fc.constantFrom(0, 1, 2);

const op = <T extends (string | number)[]>(name: string, ...args: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.tuple(...args).map((values): Operation => [name, ...values as (string | number)[]]);

/** Without an owner to give, the kernel asks a FUSE filesystem nothing, so it can't refuse as ext4 does on a setuid file. */
const asEverywhere = ([name, , uid, gid]: Operation) => name !== "chown" || uid !== -1 || gid !== -1;
/** Operations that need no descriptor; an ordinary user tries some of them too. */
const byPath = [
  op("mkdir", path, mode),
  op("rmdir", path),
  op("unlink", path),
  op("rename", path, path, fc.constantFrom(0, 0, 0, 1, 2, 4)),
  op("link", path, path),
  op("symlink", fc.constantFrom("a", "d", "l", "../a", "none"), path),
  op("mkfifo", path, mode),
  op("chmod", path, mode),
  op("chown", path, id, id),
  op("truncate", path, offset),
  op("access", path, fc.integer({ min: 0, max: 7 })),
];
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 12,
    arbitrary: op("open", slot, path, fc.constantFrom("r", "w", "rw", "c", "c", "x", "t", "a", "d", "n"), mode),
  },
  { weight: 2, arbitrary: op("open", slot, fc.constantFrom(".", "d", "e"), fc.constant("tmp"), mode) },
  { weight: 2, arbitrary: op("linkfd", slot, path) },
  { weight: 5, arbitrary: op("close", slot) },
  { weight: 10, arbitrary: op("write", slot, seed, length) },
  { weight: 10, arbitrary: op("pwrite", slot, offset, seed, length) },
  { weight: 6, arbitrary: op("pread", slot, offset, length) },
  { weight: 4, arbitrary: op("map", slot, offset, seed, length) },
  { weight: 4, arbitrary: op("ftruncate", slot, offset) },
  { weight: 5, arbitrary: op("fallocate", slot, fc.constantFrom(0, 1, 3, 16, 17, 2), offset, length) },
  {
    weight: 4,
    arbitrary: op(
      "copy",
      slot,
      slot,
      fc.constantFrom(0, 0, 5, 4096),
      fc.constantFrom(0, 0, 100_000),
      fc.constantFrom(1000, 1_000_000),
    ),
  },
  { weight: 3, arbitrary: op("holes", slot) },
  { weight: 4, arbitrary: op("fstat", slot) },
  { weight: 2, arbitrary: op("fsync", slot) },
  { weight: 2, arbitrary: op("fchmod", slot, mode) },
  { weight: 2, arbitrary: op("fsetxattr", slot, attribute, seed, fc.constantFrom(0, 5, 500), flags) },
  { weight: 1, arbitrary: op("flistxattr", slot) },
  { weight: 30, arbitrary: fc.oneof(...byPath) },
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constantFrom(65534, 65533), fc.oneof(...byPath).filter(asEverywhere)).map((
      [uid, inner],
    ): Operation => ["user", uid, ...inner]),
  },
  { weight: 3, arbitrary: op("setxattr", path, attribute, seed, fc.constantFrom(0, 5, 500), flags) },
  { weight: 2, arbitrary: op("getxattr", path, attribute) },
  { weight: 2, arbitrary: op("listxattr", path) },
  { weight: 2, arbitrary: op("removexattr", path, attribute) },
  { weight: 2, arbitrary: op("readlink", path) },
  { weight: 3, arbitrary: op("stat", path) },
  { weight: 3, arbitrary: op("lstat", path) },
  { weight: 3, arbitrary: op("list", path) },
  {
    weight: 2,
    arbitrary: op("utime", path, fc.constantFrom(0, 1, -5, 1_700_000_000, 2 ** 32), fc.constantFrom(0, 1, 999_999_999)),
  },
  { weight: 1, arbitrary: op("times", path) },
);

/** Sequences of `min` to `max` operations in a folder of their own. */
export const sequences = (max: number): fc.Arbitrary<Operation[]> =>
  fc.array(operation, { minLength: 1, maxLength: max, size: "max" });

/** A process that executes sequences, so that the one that serves the mount never touches it. */
export class Operator implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #in: WritableStreamDefaultWriter<Uint8Array>;
  readonly #out: ReadableStreamDefaultReader<string>;
  readonly #folder: string;
  #rest = "";
  #next = 0;

  /** @param folder where the folders of the sequences are made */
  constructor(folder: string) {
    this.#folder = folder;
    this.#child = new Deno.Command("timeout", {
      args: ["-s", "KILL", "7200", "python3", new URL("posix_ops.py", import.meta.url).pathname],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#in = this.#child.stdin.getWriter();
    this.#out = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }
  /** The result of each operation, then the tree they left. */
  async run(ops: readonly Operation[]): Promise<string[]> {
    const dir = `${this.#folder}/s${this.#next++}`;
    await this.#in.write(new TextEncoder().encode(JSON.stringify({ dir, ops }) + "\n"));
    for (;;) {
      const end = this.#rest.indexOf("\n");
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        return JSON.parse(line) as string[];
      }
      const { value, done } = await this.#out.read();
      if (done) throw new Error(`the process that executes sequences ended at ${JSON.stringify(ops)}`);
      this.#rest += value;
    }
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#in.close().catch(() => {});
    await this.#out.cancel().catch(() => {});
    await this.#child.status;
  }
}

/** What two filesystems did differently, one line each; empty: nothing that matters. */
export function differences(ops: readonly Operation[], ext4: readonly string[], mount: readonly string[]): string[] {
  const out: string[] = [];
  for (let i = 0; i < ext4.length; i++) {
    if (ext4[i] === mount[i]) continue;
    const what = i < ops.length ? `${i}: ${JSON.stringify(ops[i])}` : "the tree";
    out.push(`${what}\n  ext4:  ${ext4[i]}\n  mount: ${mount[i]}`);
  }
  return out;
}
