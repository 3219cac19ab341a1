/** Errors as HTTP answers: application/problem+json (RFC 9457) with the project's code. */
import { type FsError, toFsError } from "../fs/error.ts";

/** Headers of every answer: Deno would compress bodies by itself, and nothing in between may either. */
export const PLAIN_HEADERS = { "cache-control": "no-transform" } as const;

export interface Problem {
  readonly type: "about:blank";
  readonly title: string;
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly errno: number;
  readonly path?: string;
  readonly limit?: number;
}

export function problemOf(error: unknown, path?: string, status?: number): Problem {
  const failure: FsError = toFsError(error);
  const where = failure.details.path ?? path;
  const { limit } = failure.details;
  return {
    type: "about:blank",
    title: failure.code.replaceAll("_", " "),
    status: status ?? failure.httpStatus,
    code: failure.code,
    message: failure.message,
    errno: failure.errno,
    ...(where !== undefined && { path: where }),
    ...(limit !== undefined && { limit }),
  };
}

/** `status` where the situation says more than the code does (405, 416, 426). */
export function problemResponse(
  error: unknown,
  path?: string,
  extra: Record<string, string> = {},
  status?: number,
): Response {
  const problem = problemOf(error, path, status);
  return new Response(JSON.stringify(problem), {
    // 499 is no registered status; a client that is gone does not read it anyway.
    status: problem.status,
    headers: {
      ...PLAIN_HEADERS,
      "content-type": "application/problem+json",
      ...(problem.status === 401 && { "www-authenticate": 'Bearer realm="anyfs"' }),
      ...extra,
    },
  });
}

export function jsonResponse(value: unknown, status = 200, extra: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(value), {
    status,
    headers: { ...PLAIN_HEADERS, "content-type": "application/json", ...extra },
  });
}
