/** Idempotency-Key: a request that is sent again with the same key is answered as the first time and not done again. */
import { FsError } from "../fs/error.ts";
import { Serial } from "../fs/serial.ts";
import type { Index } from "../index/index.ts";

interface Kept {
  readonly request: string;
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** Answers above this size are not kept (none of ours is). */
const MAX_KEPT = 64 * 1024;
const running = new WeakMap<object, Serial>();

/** Failures that say nothing about the request itself: the next attempt may go another way. */
const PASSING = new Set([401, 403, 408, 429, 499]);

/**
 * `owner` keeps the keys of different bearers apart. Two requests with one key run one after the other. Throws
 * invalid_input for a malformed key, conflict for a key that was used for another request.
 */
export async function once(
  index: Pick<Index, "answer" | "keepAnswer">,
  owner: string,
  request: Request,
  run: () => Promise<Response>,
): Promise<Response> {
  const given = request.headers.get("idempotency-key");
  if (given === null) return await run();
  if (!/^[!-~]{1,255}$/.test(given)) {
    throw new FsError("invalid_input", "Idempotency-Key: 1 to 255 visible ASCII characters, such as a UUID");
  }
  const key = `${owner} ${given}`;
  const what = `${request.method} ${request.url.replace(/^[a-z]+:\/\/[^/]*/, "")}`;
  let serial = running.get(index);
  if (serial === undefined) running.set(index, serial = new Serial());
  return await serial.run(key, async () => {
    const known = await index.answer(key);
    if (known !== null) {
      const kept = JSON.parse(new TextDecoder().decode(known)) as Kept;
      if (kept.request !== what) {
        throw new FsError("conflict", `this Idempotency-Key was used for ${kept.request}; take a new one`);
      }
      return new Response(kept.status === 204 ? null : kept.body, {
        status: kept.status,
        headers: { ...kept.headers, "idempotency-replayed": "true" },
      });
    }
    const response = await run();
    if (response.status >= 500 || PASSING.has(response.status)) return response;
    const body = await response.text();
    const headers = Object.fromEntries(response.headers);
    if (body.length <= MAX_KEPT) {
      const kept: Kept = { request: what, status: response.status, headers, body };
      await index.keepAnswer(key, new TextEncoder().encode(JSON.stringify(kept)));
    }
    return new Response(response.status === 204 ? null : body, { status: response.status, headers });
  });
}
