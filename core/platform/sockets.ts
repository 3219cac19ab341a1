/** WebSockets of both ends behind one small interface, a peer to talk HTTP with, and byte connections on unix sockets. */
import { socketPath } from "./socket_path.ts";
import { FsError, toFsError } from "../fs/error.ts";
import { upgradeWebSocket } from "./net.ts";
import { setConnectionNoDelay } from "./no_delay.ts";

/** The events of one WebSocket. Text messages are reported as null: this project speaks bytes only. */
export interface SocketEvents {
  open(): void;
  message(bytes: Uint8Array<ArrayBuffer> | null): void;
  /** Called once. `reason` says what is known of why. */
  close(code: number, reason: string): void;
}
export interface Socket {
  /** Queues the bytes; never waits. */
  send(bytes: Uint8Array<ArrayBuffer>): void;
  /** Bytes queued that the network has not taken yet. */
  readonly buffered: number;
  /** Says goodbye; `close` is reported when the other side has answered. */
  close(code?: number, reason?: string): void;
  /** Forgets the connection: nothing more is reported. */
  drop(): void;
}

function wrapSocket(socket: WebSocket, events: SocketEvents): Socket {
  socket.binaryType = "arraybuffer";
  let ended = false;
  let failure = "";
  const end = (code: number, reason: string) => {
    if (ended) return;
    ended = true;
    events.close(code, reason);
  };
  socket.onopen = () => {
    if (!ended) events.open();
  };
  socket.onmessage = (event: MessageEvent<unknown>) => {
    if (ended) return;
    events.message(event.data instanceof ArrayBuffer ? new Uint8Array(event.data) : null);
  };
  socket.onerror = (event) => {
    event.preventDefault();
    failure = event instanceof ErrorEvent ? event.message : "the connection broke";
  };
  socket.onclose = (event) => end(event.code, event.reason !== "" ? event.reason : failure);
  return {
    send(bytes) {
      if (!ended && socket.readyState === WebSocket.OPEN) socket.send(bytes);
    },
    get buffered() {
      return socket.bufferedAmount;
    },
    close(code, reason) {
      try {
        socket.close(code, reason === undefined ? undefined : clip(reason));
      } catch {
        // Closed already.
      }
    },
    drop() {
      ended = true;
      try {
        socket.close();
      } catch {
        // Closed already.
      }
    },
  };
}

/** A close reason has at most 123 bytes (RFC 6455, 5.5). */
function clip(reason: string): string {
  const bytes = new TextEncoder().encode(reason);
  return bytes.length <= 123 ? reason : new TextDecoder().decode(bytes.subarray(0, 120)).replace(/\uFFFD$/, "");
}

/** The server's side: answers a WebSocket request. Throws invalid_input for any other request. */
export function acceptSocket(request: Request, makeEvents: (socket: Socket) => SocketEvents): Response {
  const { socket, response } = upgradeWebSocket(request);
  const relay: { events: SocketEvents | undefined } = { events: undefined };
  const wrapped = wrapSocket(socket, {
    open: () => relay.events?.open(),
    message: (bytes) => relay.events?.message(bytes),
    close: (code, reason) => relay.events?.close(code, reason),
  });
  relay.events = makeEvents(wrapped);
  return response;
}

/** Connections to servers: their certificates and their idle connections. One a server. */
export interface HttpPeer {
  request(url: string, init?: RequestInit): Promise<Response>;
  /** Opens a WebSocket. A refusal is reported as `close`, with the status in the reason where there was one. */
  connect(url: string, headers: Readonly<Record<string, string>>, events: SocketEvents): Socket;
  close(): void;
}

/** `caCerts`: PEM texts trusted besides the system's. */
export function openPeer(
  options: { readonly caCerts?: readonly string[]; readonly unixSocket?: string } = {},
): HttpPeer {
  const { caCerts, unixSocket } = options;
  const client = Deno.createHttpClient({
    poolMaxIdlePerHost: 16,
    poolIdleTimeout: 30_000,
    http2: false,
    ...(caCerts !== undefined && { caCerts: [...caCerts] }),
    ...(unixSocket !== undefined && { proxy: { transport: "unix", path: socketPath(unixSocket) } }),
  });
  return {
    request: (url, init = {}) => fetch(url, { ...init, client } as RequestInit),
    connect(url, headers, events) {
      const socket = new WebSocket(url, { headers: { ...headers }, client });
      const { port, protocol } = new URL(url);
      return wrapSocket(socket, {
        ...events,
        open() {
          setConnectionNoDelay(Number(port) || (protocol === "wss:" ? 443 : 80));
          events.open();
        },
      });
    },
    close: () => client.close(),
  };
}

/** A connection on a unix socket, as bytes. */
export interface LocalConnection {
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  write(bytes: Uint8Array): Promise<void>;
  close(): void;
}

/** Listens on a unix socket only its owner may open. A stale socket file is replaced. Returns how to stop. */
export function listenLocal(path: string, onConnection: (connection: LocalConnection) => void): () => void {
  try {
    Deno.removeSync(path);
  } catch {
    // There was none.
  }
  let listener: Deno.UnixListener;
  try {
    listener = Deno.listen({ transport: "unix", path: socketPath(path) });
    Deno.chmodSync(path, 0o600);
  } catch (error) {
    throw toFsError(error, { operation: "listen", path });
  }
  let stopped = false;
  void (async () => {
    while (!stopped) {
      try {
        const connection = await listener.accept();
        onConnection(wrapLocal(connection));
      } catch {
        if (stopped) return;
      }
    }
  })();
  return () => {
    stopped = true;
    listener.close();
    try {
      Deno.removeSync(path);
    } catch {
      // Already gone.
    }
  };
}

/** Connects to a unix socket. Throws unavailable when nobody listens there. */
export async function connectLocal(path: string): Promise<LocalConnection> {
  try {
    return wrapLocal(await Deno.connect({ transport: "unix", path: socketPath(path) }));
  } catch (error) {
    throw new FsError("unavailable", `nobody listens on ${path}`, { operation: "connect", path, cause: error });
  }
}

function wrapLocal(connection: Deno.UnixConn): LocalConnection {
  let closed = false;
  return {
    readable: connection.readable,
    async write(bytes) {
      let done = 0;
      while (done < bytes.length) done += await connection.write(bytes.subarray(done));
    },
    close() {
      if (closed) return;
      closed = true;
      try {
        connection.close();
      } catch {
        // Closed by the other side.
      }
    },
  };
}
