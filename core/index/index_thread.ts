/** IndexThread: the main side of the index's worker; the thread is started at first use. */
import { FsError } from "../fs/error.ts";
import { spawnWorker, type WorkerPort } from "../platform/workers.ts";
import type { IndexReply, IndexRequest } from "./index_messages.ts";

interface Waiting {
  resolve(problems: string[]): void;
  reject(error: FsError): void;
}

export class IndexThread {
  readonly #path: string;
  readonly #waiting = new Map<number, Waiting>();
  #port: WorkerPort<IndexRequest> | null = null;
  #nextId = 1;
  #closed = false;
  #idle: PromiseWithResolvers<void> | null = null;

  /** `path`: the database file. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Throws internal when the thread fails. */
  run(kind: IndexRequest["kind"]): Promise<string[]> {
    if (this.#closed) return Promise.reject(new FsError("cancelled", "the index is closed"));
    this.#idle ??= Promise.withResolvers();
    const port = this.#port ??= this.#start();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      port.post({ id, kind, path: this.#path });
    });
  }

  #start(): WorkerPort<IndexRequest> {
    return spawnWorker<IndexRequest, IndexReply>(new URL("./index_worker.ts", import.meta.url), "index", {
      onMessage: ({ id, problems, error }) => {
        const waiting = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error === null) waiting?.resolve([...problems]);
        else waiting?.reject(new FsError("internal", `the index thread: ${error}`));
        this.#endIfIdle();
      },
      onFailure: (message) => {
        this.#port = null;
        this.#fail(new FsError("internal", `the index thread died: ${message}`));
      },
    });
  }

  #fail(error: FsError): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#endIfIdle();
  }
  #endIfIdle(): void {
    if (this.#waiting.size > 0) return;
    this.#idle?.resolve();
    this.#idle = null;
  }

  /** Waits for what runs, so that no connection is left behind, and ends the thread. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#idle?.promise;
    this.#port?.terminate();
    this.#port = null;
  }
}
