/** Worker threads: starting one from a module, and typed messages both ways. */

/** The main side of a worker. */
export interface WorkerPort<Request> {
  /** Sends a message; the transferred buffers are gone here afterwards. */
  post(message: Request, transfer?: Transferable[]): void;
  /** Ends the thread at once, whatever it does. No message or failure is reported afterwards. */
  terminate(): void;
}

export interface WorkerListener<Reply> {
  onMessage(reply: Reply): void;
  /** The module could not be loaded, or threw where nothing caught it. The thread is dead. */
  onFailure(message: string): void;
}

/** Starts a worker; the type parameters are what its module says it takes and answers. */
export type SpawnWorker<Request, Reply> = (listener: WorkerListener<Reply>) => WorkerPort<Request>;

/**
 * Starts the module at `url` on a thread of its own. In a compiled binary the module must have been given to
 * `deno compile --include`. Takes about 20 ms and 16 MB; returns at once.
 */
export function spawnWorker<Request, Reply>(
  url: string | URL,
  name: string,
  listener: WorkerListener<Reply>,
): WorkerPort<Request> {
  const worker = new Worker(url, { type: "module", name });
  let alive = true;
  const fail = (message: string) => {
    if (!alive) return;
    alive = false;
    worker.terminate();
    listener.onFailure(message);
  };
  worker.onmessage = (event: MessageEvent<Reply>) => {
    if (alive) listener.onMessage(event.data);
  };
  worker.onmessageerror = () => fail("a message could not be read");
  worker.onerror = (event) => {
    // Otherwise the error would also end the main thread.
    event.preventDefault();
    fail(event.message);
  };
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    terminate() {
      alive = false;
      worker.terminate();
    },
  };
}

/** The worker's side, called once by its module: `onRequest` gets every message, `post` answers. */
export function serveWorker<Request, Reply>(
  onRequest: (request: Request, post: (reply: Reply, transfer?: Transferable[]) => void) => void,
): void {
  const post = (reply: Reply, transfer: Transferable[] = []) => self.postMessage(reply, { transfer });
  self.onmessage = (event: MessageEvent<Request>) => onRequest(event.data, post);
}

/** Number of processors this process may use. */
export const processorCount = (): number => navigator.hardwareConcurrency;
