/** Tests of the REST interface over real sockets, bad input included. */
import assert from "node:assert/strict";
import { S_IFLNK } from "../fs/stat.ts";
import { systemClock } from "../platform/clock.ts";
import { systemRandom } from "../platform/random.ts";
import { createToken } from "./auth.ts";
import { startTempServer, type TempServer } from "./testing/temp_core.ts";

function pattern(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0, x = 1; i < length; i++) bytes[i] = (x = (x * 1103515245 + 12345) & 0x7fffffff) >> 16;
  return bytes;
}
const utf8 = (text: string) => new TextEncoder().encode(text);

/** fetch, with the whole body taken at once. */
async function ask(url: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(url, init);
  const body = await response.bytes();
  const { status, headers } = response;
  return new Response([204, 304].includes(status) ? null : body, { status, headers });
}

/** Sends the request as it stands and returns the whole answer; `cut` closes the connection after sending. */
async function raw(server: TempServer, request: string | Uint8Array, cut = false): Promise<string> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: server.server.port });
  const bytes = typeof request === "string" ? utf8(request) : request;
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
  if (cut) {
    connection.close();
    return "";
  }
  const answer = new TextDecoder().decode(await new Response(connection.readable).bytes());
  return answer;
}
interface ProblemJson {
  readonly code: string;
  readonly message: string;
  readonly path?: string;
  readonly status: number;
}
async function problem(response: Response): Promise<ProblemJson> {
  assert.equal(response.headers.get("content-type"), "application/problem+json");
  const body = await response.json() as ProblemJson;
  assert.equal(body.status, response.status);
  return body;
}

Deno.test("a file put is got back whole and by any range, with its validators", async () => {
  await using server = await startTempServer();
  const url = `${server.url}/v1/files/deep/er/file.bin`;
  const bytes = pattern(5_300_007);
  const put = await ask(url, { method: "PUT", body: bytes });
  assert.equal(put.status, 201, "parents are made");
  const etag = put.headers.get("etag") ?? "";
  assert.match(etag, /^"[0-9a-f]{64}"$/);
  assert.equal((await put.json()).size, bytes.length);

  const whole = await ask(url);
  assert.equal(whole.headers.get("content-length"), String(bytes.length));
  assert.equal(whole.headers.get("etag"), etag);
  assert.match(whole.headers.get("cache-control") ?? "", /no-transform/);
  assert.deepEqual(await whole.bytes(), bytes);

  const size = bytes.length;
  const cases: [string, number, number][] = [
    ["bytes=0-0", 0, 1],
    ["bytes=65535-70000", 65535, 70001],
    ["bytes=262143-262144", 262143, 262145],
    [`bytes=${size - 1}-`, size - 1, size],
    ["bytes=-4097", size - 4097, size],
    ["bytes=100-999999999", 100, size],
    ["bytes=1000000-5200000", 1_000_000, 5_200_001],
  ];
  for (const [range, start, end] of cases) {
    const part = await ask(url, { headers: { range } });
    assert.equal(part.status, 206, range);
    assert.equal(part.headers.get("content-range"), `bytes ${start}-${end - 1}/${size}`);
    assert.deepEqual(await part.bytes(), bytes.subarray(start, end), range);
  }
  const beyond = await ask(url, { headers: { range: `bytes=${size}-` } });
  assert.equal(beyond.status, 416);
  assert.equal(beyond.headers.get("content-range"), `bytes */${size}`);
  assert.equal((await problem(beyond)).code, "invalid_input");

  const head = await ask(url, { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(head.headers.get("content-length"), String(size));
  assert.equal((await head.bytes()).length, 0);
});

Deno.test("conditional requests hold: 304, 412, If-Range", async () => {
  await using server = await startTempServer();
  const url = `${server.url}/v1/files/f`;
  const etag = (await ask(url, { method: "PUT", body: "one" })).headers.get("etag") ?? "";
  const status = async (method: string, headers: Record<string, string>, body?: string) => {
    const response = await ask(url, { method, headers, ...(body !== undefined && { body }) });
    await response.body?.cancel();
    return response.status;
  };
  assert.equal(await status("GET", { "if-none-match": etag }), 304);
  assert.equal(await status("GET", { "if-none-match": '"other", W/"x"' }), 200);
  assert.equal(await status("GET", { "if-match": '"other"' }), 412);
  assert.equal(await status("GET", { range: "bytes=0-0", "if-range": etag }), 206);
  assert.equal(await status("GET", { range: "bytes=0-0", "if-range": '"other"' }), 200);
  assert.equal(await status("PUT", { "if-none-match": "*" }, "two"), 412, "it exists");
  assert.equal(await status("PUT", { "if-match": '"other"' }, "two"), 412);
  assert.equal(await status("DELETE", { "if-match": '"other"' }), 412);
  assert.equal(await (await ask(url)).text(), "one", "nothing of this changed it");
  assert.equal(await status("PUT", { "if-match": etag }, "two"), 200);
  assert.equal(await status("PUT", { "if-match": etag }, "three"), 412, "the tag is old by now");
  assert.equal(await (await ask(url)).text(), "two");
});

Deno.test("of many writers with one If-Match exactly one wins", async () => {
  await using server = await startTempServer();
  const url = `${server.url}/v1/files/f`;
  const etag = (await ask(url, { method: "PUT", body: "0" })).headers.get("etag") ?? "";
  const answers = await Promise.all(Array.from({ length: 8 }, async (_, i) => {
    const response = await ask(url, { method: "PUT", headers: { "if-match": etag }, body: `writer ${i}` });
    await response.body?.cancel();
    return response.status;
  }));
  assert.equal(answers.filter((status) => status === 200).length, 1, answers.join());
  assert.equal(answers.filter((status) => status === 412).length, 7, answers.join());
});

Deno.test("a body that is cut in the middle leaves the old file and no new one", async () => {
  await using server = await startTempServer();
  const url = `${server.url}/v1/files/f`;
  await (await ask(url, { method: "PUT", body: "old content" })).body?.cancel();
  const head = (path: string, more: string) => `PUT /v1/files/${path} HTTP/1.1\r\nhost: x\r\n${more}\r\n\r\n`;
  await raw(server, head("f", "content-length: 1000000") + "x".repeat(300_000), true);
  await raw(server, head("new", "content-length: 1000000") + "x".repeat(300_000), true);
  await raw(server, head("new2", "transfer-encoding: chunked") + "5\r\nabcde\r\n", true);
  // The server has noticed the cuts when a later request of the same kind has been answered.
  await (await ask(`${server.url}/v1/files/after`, { method: "PUT", body: "x" })).body?.cancel();
  assert.equal(await (await ask(url)).text(), "old content");
  const listing = await (await ask(`${server.url}/v1/ls/`)).json() as { entries: { name: string }[] };
  assert.deepEqual(listing.entries.map((entry) => entry.name), ["after", "f"]);
});

Deno.test("bad paths get one clear 400 each", async () => {
  await using server = await startTempServer();
  const cases: [string, string, RegExp][] = [
    ["/v1/files/a/../b", "invalid_input", /must not contain "\.\."/],
    ["/v1/files/a/%2e%2e/b", "invalid_input", /must not contain "\.\."/],
    ["/v1/files//a", "invalid_input", /empty component/],
    ["/v1/files/a%00b", "invalid_input", /NUL/],
    [`/v1/files/${"n".repeat(300)}`, "name_too_long", /255 bytes/],
    ["/v1/files/%zz", "invalid_input", /hexadecimal/],
  ];
  for (const [path, code, words] of cases) {
    for (const method of ["GET", "PUT"]) {
      const answer = await raw(
        server,
        `${method} ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`,
      );
      assert.match(answer, /^HTTP\/1\.1 400 /, `${method} ${path}`);
      const body = JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4)) as ProblemJson;
      assert.equal(body.code, code);
      assert.match(body.message, words);
    }
  }
});

Deno.test("what can't be is said by code and status", async () => {
  await using server = await startTempServer();
  const at = (path: string) => `${server.url}${path}`;
  await (await ask(at("/v1/files/d/f"), { method: "PUT", body: "x" })).body?.cancel();
  const cases: [string, RequestInit, number, string][] = [
    ["/v1/files/none", {}, 404, "not_found"],
    ["/v1/files/d", {}, 409, "is_a_directory"],
    ["/v1/files/d", { method: "PUT", body: "x" }, 409, "is_a_directory"],
    ["/v1/files/new/", { method: "PUT", body: "x" }, 409, "is_a_directory"],
    ["/v1/files/", { method: "PUT", body: "x" }, 409, "is_a_directory"],
    ["/v1/files/d", { method: "DELETE" }, 409, "directory_not_empty"],
    ["/v1/files/", { method: "DELETE" }, 400, "invalid_input"],
    ["/v1/files/d/f/below", { method: "PUT", body: "x" }, 409, "not_a_directory"],
    ["/v1/ls/d/f", {}, 409, "not_a_directory"],
    ["/v1/ls/d?limit=0", {}, 400, "invalid_input"],
    ["/v1/files/d/f", { method: "PATCH", body: "x" }, 405, "not_supported"],
    ["/v1/nothing", {}, 404, "not_found"],
    ["/v1/ws", {}, 426, "invalid_input"],
    ["/v1/contents/xyz", {}, 400, "invalid_input"],
    [`/v1/contents/${"0".repeat(64)}`, {}, 404, "not_found"],
    ["/v1/chunks", { method: "POST", body: "nonsense" }, 400, "invalid_input"],
    ["/v1/fs/explode", { method: "POST", body: "{}" }, 501, "not_supported"],
    ["/v1/fs/stat", { method: "POST", body: "[" }, 400, "invalid_input"],
    ["/v1/fs/stat", { method: "POST", body: '{"path":"a/b"}' }, 400, "invalid_input"],
    ["/v1/fs/stat", { method: "POST", body: '{"path":"/a/../b"}' }, 400, "invalid_input"],
    ["/v1/fs/chmod", { method: "POST", body: '{"path":"/d","mode":-1}' }, 400, "invalid_input"],
    ["/v1/admin/evict", { method: "POST", body: '{"tier":"s3"}' }, 400, "invalid_input"],
    ["/v1/admin/nope", { method: "POST", body: "{}" }, 404, "not_found"],
    ["/v1/admin/wal/retry", { method: "POST", body: '{"id":99}' }, 404, "not_found"],
  ];
  for (const [path, init, status, code] of cases) {
    const response = await ask(at(path), init);
    const body = await problem(response);
    assert.deepEqual([response.status, body.code], [status, code], `${init.method ?? "GET"} ${path}: ${body.message}`);
    assert.ok(body.message.length > 10);
  }
});

Deno.test("listings come in pages, by cursor, in a stable order, with names of any bytes", async () => {
  await using server = await startTempServer();
  const { fs } = server.core;
  await fs.createDir("/d");
  const names = ["a", "b%41", "c d", "ö", "\udcff\udcfe"];
  for (const name of names) await fs.write(`/d/${name}`, utf8(name.toWellFormed()));
  const seen: string[] = [];
  let cursor: string | null = "";
  while (cursor !== null) {
    const page = await (await ask(`${server.url}/v1/ls/d?limit=2${cursor === "" ? "" : `&cursor=${cursor}`}`)).json();
    seen.push(...page.entries.map((entry: { name: string }) => entry.name));
    cursor = page.cursor;
  }
  assert.deepEqual(seen, names);
  assert.equal((await ask(`${server.url}/v1/files/d/%FF%FE`)).status, 200);
  const meta = await (await ask(`${server.url}/v1/meta/d/%FF%FE`)).json();
  assert.equal(meta.name, "\udcff\udcfe");
  assert.equal(meta.tiers_text, "L--");
});

Deno.test("links are followed inside the tree, in circles not for ever", async () => {
  await using server = await startTempServer();
  const { fs } = server.core;
  await fs.createDirAll("/a/b");
  await fs.write("/a/b/f", utf8("found"));
  await fs.symlink("a/b", "/short");
  await fs.symlink("/a/../short/f", "/long");
  await fs.symlink("loop", "/loop");
  await fs.symlink("../../../../etc/passwd", "/out");
  const text = async (path: string) => (await ask(`${server.url}/v1/files${path}`)).text();
  assert.equal(await text("/short/f"), "found");
  assert.equal(await text("/long"), "found");
  await (await ask(`${server.url}/v1/files/short/new`, { method: "PUT", body: "n" })).body?.cancel();
  assert.equal(await text("/a/b/new"), "n");
  assert.equal((await problem(await ask(`${server.url}/v1/files/loop`))).code, "too_many_links");
  assert.equal((await problem(await ask(`${server.url}/v1/files/out`))).code, "not_found");
  const meta = await (await ask(`${server.url}/v1/meta/long`)).json();
  assert.deepEqual([meta.kind, meta.target], ["symlink", "/a/../short/f"]);
  assert.equal((await fs.stat("/long")).mode & S_IFLNK, S_IFLNK);
});

Deno.test("a repeated request with the same Idempotency-Key is answered again and not done again", async () => {
  await using server = await startTempServer();
  const { fs } = server.core;
  await fs.write("/from", utf8("x"));
  const rename = (key: string, to = "/to") =>
    ask(`${server.url}/v1/fs/rename`, {
      method: "POST",
      headers: { "idempotency-key": key },
      body: JSON.stringify({ from: "/from", to }),
    });
  const first = await rename("k1");
  assert.equal(first.status, 200);
  const again = await rename("k1");
  assert.equal(again.status, 200, "a second rename would be not_found");
  assert.equal(again.headers.get("idempotency-replayed"), "true");
  assert.equal(await again.text(), await first.text());
  assert.equal((await rename("k2")).status, 404, "another key is another request");
  assert.equal((await rename("k2")).status, 404, "a failure is kept too");

  const append = (key: string) =>
    ask(`${server.url}/v1/fs/append/log`, { method: "POST", headers: { "idempotency-key": key }, body: "line\n" });
  const statuses = (await Promise.all([append("a"), append("a"), append("a"), append("b")])).map((r) => r.status);
  assert.deepEqual(statuses, [200, 200, 200, 200]);
  assert.equal(new TextDecoder().decode(await fs.read("/log")), "line\nline\n");

  const other = await ask(`${server.url}/v1/fs/removeFile`, {
    method: "POST",
    headers: { "idempotency-key": "k1" },
    body: '{"path":"/to"}',
  });
  assert.equal((await problem(other)).code, "conflict");
  assert.equal(await fs.exists("/to"), true);
});

Deno.test("tokens: once there is one it is asked for; scopes, subtrees, ends and revocation hold", async () => {
  await using server = await startTempServer();
  const { core } = server;
  const make = (options: Parameters<typeof createToken>[3]) =>
    createToken(core.index, systemRandom, systemClock, options);
  const status = async (token: string | null, path: string, init: RequestInit = {}) => {
    const headers = { ...(token !== null && { authorization: `Bearer ${token}` }) };
    const response = await ask(`${server.url}${path}`, { ...init, headers });
    await response.body?.cancel();
    return response.status;
  };
  await core.fs.createDirAll("/photos/a");
  await core.fs.symlink("/secret", "/photos/out");
  await core.fs.createDir("/secret");
  assert.equal(await status(null, "/v1/ls/"), 200, "loopback without tokens is open");
  const [reader, writer, admin, part, ended] = await Promise.all([
    make({ scope: "read" }),
    make({ scope: "write" }),
    make({ scope: "admin" }),
    make({ scope: "write", path: "/photos" }),
    make({ scope: "admin", expires: systemClock.now() - 1 }),
  ]);
  server.server.context.auth.changed();
  const put = { method: "PUT", body: "x" };
  assert.equal(await status(null, "/v1/ls/"), 401);
  assert.equal(await status("anyfs_nonsense", "/v1/ls/"), 401);
  assert.equal(await status(ended.secret, "/v1/ls/"), 401);
  assert.equal(await status(null, "/healthz"), 200, "health is for everybody");
  assert.equal(await status(reader.secret, "/v1/ls/"), 200);
  assert.equal(await status(reader.secret, "/v1/files/x", put), 403);
  assert.equal(await status(writer.secret, "/v1/files/x", put), 201);
  assert.equal(await status(writer.secret, "/v1/admin/wal"), 403);
  assert.equal(await status(admin.secret, "/v1/admin/wal"), 200);
  assert.equal(await status(part.secret, "/v1/files/photos/x", put), 201);
  assert.equal(await status(part.secret, "/v1/files/photosX", put), 403, "a prefix of the name is not the folder");
  assert.equal(await status(part.secret, "/v1/files/x"), 403);
  assert.equal(await status(part.secret, "/v1/ls/photos/out"), 403, "not out through a link");
  assert.equal(await status(part.secret, `/v1/contents/${"0".repeat(64)}`), 403);
  assert.equal(
    await status(part.secret, "/v1/fs/rename", { method: "POST", body: '{"from":"/photos/x","to":"/y"}' }),
    403,
  );
  const revoke = { method: "POST", body: JSON.stringify({ id: reader.info.id }) };
  assert.equal(await status(admin.secret, "/v1/admin/tokens/revoke", revoke), 200);
  assert.equal(await status(reader.secret, "/v1/ls/"), 401, "at once");
});

Deno.test("a script that is too fast is told to come back", async () => {
  await using server = await startTempServer({ requestsPerSecond: 5 });
  const answers = await Promise.all(Array.from({ length: 20 }, () => ask(`${server.url}/v1/ls/`)));
  const refused = answers.filter((response) => response.status === 429);
  assert.ok(refused.length >= 10);
  for (const response of refused) assert.ok(Number(response.headers.get("retry-after")) >= 1);
  for (const response of answers) await response.body?.cancel();
});

Deno.test("an address others can reach is not served without tokens, unless that is asked for", async () => {
  await assert.rejects(startTempServer({ hostname: "0.0.0.0" }), /token create.*--insecure-no-auth/);
  await using open = await startTempServer({ hostname: "0.0.0.0", insecureNoAuth: true });
  const response = await ask(`http://127.0.0.1:${open.server.port}/v1/ls/`);
  assert.equal(response.status, 200);
  await response.body?.cancel();
});

Deno.test("status, metrics and health tell what is", async () => {
  await using server = await startTempServer();
  await server.core.fs.write("/f", pattern(1000));
  const status = await (await ask(`${server.url}/v1/status`)).json();
  assert.equal(status.tree.bytes, 1000);
  assert.equal(status.tiers[0].name, "local");
  assert.deepEqual(Object.keys(status.wal), ["entries", "bytes"]);
  const metrics = await (await ask(`${server.url}/metrics`)).text();
  assert.match(metrics, /^anyfs_tree_bytes 1000$/m);
  assert.match(metrics, /^anyfs_tier_healthy\{tier="local"\} 1$/m);
  assert.match(metrics, /^anyfs_http_requests_total\{route="status",status="200"\} 1$/m);
  for (const line of metrics.trim().split("\n")) {
    assert.match(line, /^(# (HELP|TYPE) anyfs_|anyfs_\w+(\{.*\})? [\d.e+-]+$)/);
  }
  assert.equal(await (await ask(`${server.url}/healthz`)).text(), "ok\n");
  assert.match(await (await ask(`${server.url}/`)).text(), /AnyFS/);
});
