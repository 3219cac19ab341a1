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

  /** `path`: the database file. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Throws internal when the thread fails. */
  run(kind: IndexRequest["kind"]): Promise<string[]> {
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
  }

  close(): void {
    this.#port?.terminate();
    this.#port = null;
    this.#fail(new FsError("cancelled", "the index was closed"));
  }
}
