/** Conditional requests (RFC 9110, 13): If-Match, If-None-Match, If-Modified-Since, If-Range. */
import { FsError } from "../fs/error.ts";
import type { Stat } from "../fs/stat.ts";
import { etagOf } from "./node_json.ts";

function listed(header: string, etag: string | null, weak: boolean): boolean {
  if (header.trim() === "*") return etag !== null;
  if (etag === null) return false;
  for (const [, isWeak, tag] of header.matchAll(/(W\/)?("[^"]*")/g)) {
    if (tag === etag && (weak || isWeak === undefined)) return true;
  }
  return false;
}

/** For a write. `stat` is null when there is nothing yet. Throws conflict (412) when a condition does not hold. */
export function checkWriteConditions(headers: Headers, stat: Stat | null, path: string): void {
  const etag = stat === null ? null : etagOf(stat);
  const failed = (message: string) => new FsError("conflict", `${path}: ${message}`, { operation: "write", path });
  const ifMatch = headers.get("if-match");
  if (ifMatch !== null && !listed(ifMatch, etag, false)) {
    throw failed(
      etag === null ? "If-Match: there is no such file" : `If-Match: it was changed meanwhile, its ETag is ${etag}`,
    );
  }
  const ifNoneMatch = headers.get("if-none-match");
  if (ifNoneMatch !== null && listed(ifNoneMatch, etag, true)) throw failed(`If-None-Match: it exists, with ${etag}`);
}

/** For a read: true when 304 is the answer. Throws conflict (412) when If-Match does not hold. */
export function notModified(headers: Headers, stat: Stat, path: string): boolean {
  const etag = etagOf(stat);
  const ifMatch = headers.get("if-match");
  if (ifMatch !== null && !listed(ifMatch, etag, false)) {
    throw new FsError("conflict", `${path}: If-Match: its ETag is ${etag}`, { operation: "read", path });
  }
  const ifNoneMatch = headers.get("if-none-match");
  if (ifNoneMatch !== null) return listed(ifNoneMatch, etag, true);
  const since = headers.get("if-modified-since");
  if (since === null) return false;
  const at = Date.parse(since);
  return !Number.isNaN(at) && stat.mtimeSec * 1000 <= at;
}

/** Does If-Range allow a part to be sent? */
export function rangeAllowed(headers: Headers, stat: Stat): boolean {
  const ifRange = headers.get("if-range");
  if (ifRange === null) return true;
  if (ifRange.startsWith('"')) return ifRange.trim() === etagOf(stat);
  // A date is a weak validator unless it is exact to the second and older; a weak tag never matches.
  return false;
}
