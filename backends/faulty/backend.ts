/** A filesystem that goes wrong on command: errors, delays, hangs, short reads, torn writes, flipped bits. For tests. */
import { FS_METHODS, OPTIONAL_METHODS } from "../../core/fs/capability.ts";
import type { CallOptions, FileWriter, Fs, ReadDirOptions, ReadOptions, WriteOptions } from "../../core/fs/contract.ts";
import { failure } from "../../core/fs/failure.ts";
import { makeFileWriter } from "../../core/fs/file_writer.ts";
import { forward, type Overrides, type Wrapped } from "../../core/fs/stack.ts";
import type { ByteFaults, FaultScript } from "./script.ts";

function signalOf(args: readonly unknown[]): AbortSignal | undefined {
  for (const arg of args) {
    if (typeof arg !== "object" || arg === null || !("signal" in arg)) continue;
    if (arg.signal instanceof AbortSignal) return arg.signal;
  }
  return undefined;
}

/** Reads: what the inner one gives, shortened and flipped. */
function hurtRead(bytes: Uint8Array, faults: ByteFaults): Uint8Array<ArrayBuffer> {
  return faults.flipped(bytes.slice(0, Math.max(0, bytes.length - faults.short)));
}

/** Ends the stream `short` bytes early and flips a bit of its first chunk. */
export function hurtStream(stream: ReadableStream<Uint8Array>, faults: ByteFaults): ReadableStream<Uint8Array> {
  let held: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  return stream.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        const all = new Uint8Array(held.length + chunk.length);
        all.set(held);
        all.set(chunk, held.length);
        const give = Math.max(0, all.length - faults.short);
        held = all.slice(give);
        if (give > 0) controller.enqueue(faults.flipped(all.slice(0, give)));
      },
    }),
  );
}

/** `inner` under the script. Capabilities stay what they are. */
export function faultyBackend<F extends Fs>(inner: F, script: FaultScript): Wrapped<F> {
  const overrides: Record<string, unknown> = {};
  for (const name of [...FS_METHODS, ...OPTIONAL_METHODS]) {
    const method: unknown = Reflect.get(inner, name);
    if (typeof method !== "function" || name === "close") continue;
    overrides[name] = (...args: unknown[]) => {
      const path = String((name === "symlink" ? args[1] : typeof args[0] === "string" ? args[0] : "/") ?? "/");
      return script.run(name, path, signalOf(args), () => Promise.resolve(method.apply(inner, args)));
    };
  }
  const special: Overrides = {
    read: (path: string, options?: ReadOptions) =>
      script.run("read", path, options?.signal, async (faults) => hurtRead(await inner.read(path, options), faults)),
    openRead: (path: string, options?: ReadOptions) =>
      script.run("openRead", path, options?.signal, async (faults) => {
        const stream = await inner.openRead(path, options);
        return faults.short === 0 ? eachChunk(stream, faults) : hurtStream(stream, faults);
      }),
    write: (path: string, data: Uint8Array, options?: WriteOptions) =>
      script.run("write", path, options?.signal, async (faults) => {
        const bytes = faults.flipped(data.slice());
        if (faults.torn === undefined) return await inner.write(path, bytes, options);
        await inner.write(path, bytes.subarray(0, Math.floor(bytes.length * faults.torn)), options);
        throw failure("unavailable", "write", path);
      }),
    append: (path: string, data: Uint8Array, options?: CallOptions) =>
      script.run("append", path, options?.signal, async (faults) => {
        const bytes = faults.flipped(data.slice());
        if (faults.torn === undefined) return await inner.append(path, bytes, options);
        await inner.append(path, bytes.subarray(0, Math.floor(bytes.length * faults.torn)), options);
        throw failure("unavailable", "append", path);
      }),
    openWrite: (path: string, options?: WriteOptions) =>
      script.run("openWrite", path, options?.signal, async (faults) => {
        const below = await inner.openWrite(path, options);
        return faults.torn === undefined ? below : tornWriter(path, below, faults.torn, options);
      }),
    async *readDir(path: string, options?: ReadDirOptions) {
      await script.run("readDir", path, options?.signal, () => Promise.resolve());
      yield* inner.readDir(path, options);
    },
  };
  return forward(inner, { ...overrides, ...special });
}

function eachChunk(stream: ReadableStream<Uint8Array>, faults: ByteFaults): ReadableStream<Uint8Array> {
  return stream.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => controller.enqueue(faults.flipped(chunk.slice())),
    }),
  );
}

/** Stores the share of what it was given when it is closed, and fails then. */
function tornWriter(path: string, below: FileWriter, share: number, options: CallOptions = {}): FileWriter {
  const parts: Uint8Array[] = [];
  const sink = below.writable.getWriter();
  return makeFileWriter(path, {
    write: (chunk) => {
      parts.push(chunk.slice());
      return Promise.resolve();
    },
    commit: async () => {
      let left = Math.floor(parts.reduce((sum, part) => sum + part.length, 0) * share);
      for (const part of parts) {
        await sink.write(part.subarray(0, left));
        left -= Math.min(left, part.length);
      }
      await sink.close();
      await below.done;
      throw failure("unavailable", "write", path);
    },
    discard: () => sink.abort().catch(() => {}),
  }, options.signal);
}
