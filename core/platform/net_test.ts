/** The network seam against real sockets: time limits, failures as FsError, unix sockets, WebSockets, TCP_NODELAY. */
import assert from "node:assert/strict";
import { FsError, hasCode } from "../fs/error.ts";
import { connectWebSocket, httpFetch, openConnections, serveHttp, upgradeWebSocket } from "./net.ts";
import { setListenerNoDelay } from "./no_delay.ts";

async function failure(promise: Promise<unknown>): Promise<FsError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof FsError) return error;
    throw error;
  }
  throw new Error("it didn't fail");
}

/** A TCP server that runs `answer` on every connection. */
function rawServer(answer: (connection: Deno.TcpConn) => Promise<void>): { url: string; close(): void } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const connection of listener) {
      await connection.read(new Uint8Array(4096));
      await answer(connection).catch(() => undefined);
    }
  })().catch(() => undefined);
  const { port } = listener.addr;
  return { url: `http://127.0.0.1:${port}/`, close: () => listener.close() };
}

const say = (connection: Deno.TcpConn, text: string) => connection.write(new TextEncoder().encode(text));

Deno.test("a server answers on a port of the system's choice and ends when told to", async () => {
  let listening = "";
  const server = await serveHttp({
    handler: (request, peer) => new Response(`${new URL(request.url).pathname} for ${peer?.hostname}`),
    onListen: (url) => listening = url,
  });
  assert.equal(listening, server.url);
  assert.equal(await (await httpFetch(`${server.url}/x`)).text(), "/x for 127.0.0.1");
  await server.shutdown();
  await server.finished;
  assert.equal((await failure(httpFetch(server.url))).code, "unavailable");
});

Deno.test("the listening socket has TCP_NODELAY", async () => {
  const server = await serveHttp({ handler: () => new Response("x") });
  assert.equal(setListenerNoDelay(server.port), 1);
  await server.shutdown();
});

Deno.test("an address in use is named, with what to do", async () => {
  const first = await serveHttp({ handler: () => new Response("x") });
  const error = await failure(serveHttp({ port: first.port, handler: () => new Response("y") }));
  assert.equal(error.code, "unavailable");
  assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${first.port}.*--listen`));
  await first.shutdown();
});

Deno.test("an address of another machine is wrong input", async () => {
  const error = await failure(serveHttp({ hostname: "192.0.2.1", handler: () => new Response("x") }));
  assert.equal(error.code, "invalid_input");
  assert.match(error.message, /192\.0\.2\.1:0/);
});

Deno.test("a handler that throws gives 500, and the server lives on", async () => {
  let calls = 0;
  const server = await serveHttp({
    handler() {
      if (calls++ === 0) throw new Error("planted");
      return new Response("fine");
    },
  });
  const failed = await httpFetch(server.url);
  assert.equal(failed.status, 500);
  await failed.body?.cancel();
  assert.equal(await (await httpFetch(server.url)).text(), "fine");
  await server.shutdown();
});

Deno.test("a unix socket serves requests and WebSockets, replaces a dead socket, respects a living one", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/s`;
  const dead = Deno.listen({ transport: "unix", path });
  dead.close();
  const handler = (request: Request) => {
    if (!request.headers.has("upgrade")) return new Response("over unix");
    const { socket, response } = upgradeWebSocket(request);
    socket.onmessage = ({ data }) => socket.send(data);
    return response;
  };
  const server = await serveHttp({ path, handler });
  assert.equal((await Deno.stat(path)).mode, 0o140600);
  assert.equal((await failure(serveHttp({ path, handler }))).code, "unavailable");
  {
    using connections = openConnections({ unixPath: path });
    assert.equal(await (await httpFetch("http://anyfs/x", { connections })).text(), "over unix");
    const socket = await connectWebSocket("http://anyfs/ws", { connections });
    const echoed = new Promise((resolve) => socket.onmessage = ({ data }) => resolve(data));
    socket.send("hello");
    assert.equal(await echoed, "hello");
    const closed = new Promise((resolve) => socket.onclose = resolve);
    socket.close();
    await closed;
  }
  await server.shutdown();
  assert.equal(await Deno.stat(path).catch(() => null), null);
  await Deno.writeTextFile(path, "precious");
  assert.equal((await failure(serveHttp({ path, handler }))).code, "already_exists");
  assert.equal(await Deno.readTextFile(path), "precious");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a server that isn't there is unavailable, and says where", async () => {
  const error = await failure(httpFetch("http://127.0.0.1:1/v1/status"));
  assert.equal(error.code, "unavailable");
  assert.match(error.message, /http:\/\/127\.0\.0\.1:1\/v1\/status: Connection refused.*running/);
});

Deno.test("no answer within the limit is a timeout", async () => {
  const held: Deno.TcpConn[] = [];
  const silent = rawServer((connection) => Promise.resolve(void held.push(connection)));
  assert.equal((await failure(httpFetch(silent.url, { timeoutMs: 50 }))).code, "timeout");
  held.forEach((connection) => connection.close());
  silent.close();
});

Deno.test("a body that stops coming is a timeout, not the end of the file", async () => {
  const held: Deno.TcpConn[] = [];
  const stalling = rawServer(async (connection) => {
    held.push(connection);
    await say(connection, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc");
  });
  const response = await httpFetch(stalling.url, { idleMs: 50 });
  assert.equal((await failure(response.text())).code, "timeout");
  held.forEach((connection) => connection.close());
  stalling.close();
});

Deno.test("a body that stops coming is a timeout also when the runtime's read outlives the abort", async () => {
  const real = globalThis.fetch;
  globalThis.fetch = () => Promise.resolve(new Response(new ReadableStream({ pull: () => new Promise(() => {}) })));
  try {
    const response = await httpFetch("http://127.0.0.1:1/x", { idleMs: 50 });
    assert.equal((await failure(response.text())).code, "timeout");
  } finally {
    globalThis.fetch = real;
  }
});

Deno.test("a body cut short is unavailable, not the end of the file", async () => {
  const cutting = rawServer(async (connection) => {
    await say(connection, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc");
    connection.close();
  });
  const response = await httpFetch(cutting.url);
  assert.equal((await failure(response.text())).code, "unavailable");
  cutting.close();
});

Deno.test("a slow reader is no timeout", async () => {
  const server = await serveHttp({ handler: () => new Response(new Uint8Array(4 << 20)) });
  const response = await httpFetch(server.url, { idleMs: 500 });
  const reader = response.body?.getReader();
  let total = 0;
  for (let first = true;; first = false) {
    const part = await reader?.read();
    if (part === undefined || part.done) break;
    total += part.value.length;
    if (first) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  assert.equal(total, 4 << 20);
  await server.shutdown();
});

Deno.test("an answer has a copy of its bytes: they may be changed at once", async () => {
  const bytes = new Uint8Array(32 << 20).fill(1);
  const server = await serveHttp({
    handler: () => {
      const answer = new Response(bytes);
      bytes.fill(2);
      return answer;
    },
  });
  const got = await (await httpFetch(server.url)).bytes();
  assert.equal(got.length, 32 << 20);
  assert.ok(got.every((byte) => byte === 1));
  await server.shutdown();
});

Deno.test("cancelling ends a request before and after its headers", async () => {
  const held: Deno.TcpConn[] = [];
  const stalling = rawServer(async (connection) => {
    held.push(connection);
    await say(connection, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc");
  });
  const stop = new AbortController();
  const response = await httpFetch(stalling.url, { signal: stop.signal });
  const body = failure(response.text());
  stop.abort();
  assert.equal((await body).code, "cancelled");
  assert.equal((await failure(httpFetch(stalling.url, { signal: stop.signal }))).code, "cancelled");
  held.forEach((connection) => connection.close());
  stalling.close();
});

Deno.test("a WebSocket carries its token, and a refusal is unavailable", async () => {
  const server = await serveHttp({
    handler(request) {
      if (request.headers.get("authorization") !== "Bearer secret") return new Response("no", { status: 401 });
      const { socket, response } = upgradeWebSocket(request, { protocol: "anyfs" });
      socket.onmessage = ({ data }) => socket.send(data);
      return response;
    },
  });
  const refused = await failure(connectWebSocket(`${server.url}/v1/ws`, { token: "wrong" }));
  assert.equal(refused.code, "unavailable");
  const socket = await connectWebSocket(`${server.url}/v1/ws`, { token: "secret", protocols: ["anyfs"] });
  assert.equal(socket.protocol, "anyfs");
  const echoed = new Promise((resolve) => socket.onmessage = ({ data }) => resolve(data));
  socket.send(new Uint8Array([1, 2, 255]));
  const data = await echoed;
  assert.ok(data instanceof ArrayBuffer);
  assert.deepEqual([...new Uint8Array(data)], [1, 2, 255]);
  const closed = new Promise((resolve) => socket.onclose = resolve);
  socket.close();
  await closed;
  await server.shutdown();
});

Deno.test("a WebSocket to a server that isn't there, or says nothing, fails in time", async () => {
  assert.equal((await failure(connectWebSocket("ws://127.0.0.1:1/"))).code, "unavailable");
  const held: Deno.TcpConn[] = [];
  const silent = rawServer((connection) => Promise.resolve(void held.push(connection)));
  const error = await failure(connectWebSocket(silent.url, { timeoutMs: 50 }));
  assert.equal(error.code, "timeout");
  held.forEach((connection) => connection.close());
  silent.close();
});

Deno.test("an ordinary request where a WebSocket is expected is wrong input", () => {
  assert.throws(() => upgradeWebSocket(new Request("http://x/v1/ws")), (error) => hasCode(error, "invalid_input"));
});

Deno.test("shutdown lets an open request finish, and refuses new ones meanwhile", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const entered = Promise.withResolvers<void>();
  const server = await serveHttp({
    async handler() {
      entered.resolve();
      await promise;
      return new Response("finished");
    },
  });
  const request = httpFetch(server.url);
  await entered.promise;
  const ended = server.shutdown(10_000);
  const refused = await httpFetch(server.url);
  assert.equal(refused.status, 503);
  await refused.body?.cancel();
  resolve();
  assert.equal(await (await request).text(), "finished");
  await ended;
});

Deno.test("shutdown ends a request that doesn't end by itself", async () => {
  const server = await serveHttp({ handler: () => new Promise(() => {}) });
  const request = failure(httpFetch(server.url));
  await new Promise((resolve) => setTimeout(resolve, 20));
  await server.shutdown(30);
  assert.equal((await request).code, "unavailable");
});

Deno.test("a unix socket in a folder with a long name is served and reached", async () => {
  const folder = `${await Deno.makeTempDir()}/${"long folder ".repeat(12)}`;
  await Deno.mkdir(folder);
  const server = await serveHttp({ path: `${folder}/control.sock`, handler: () => new Response("hello") });
  using connections = openConnections({ unixPath: `${folder}/control.sock` });
  const response = await httpFetch("http://localhost/", { connections });
  assert.equal(await response.text(), "hello");
  await server.shutdown(0);
  // The socket's file is removed after that.
  await server.finished;
});
