/** Server addresses as a person gives them, and the failures that name one. */
import { FsError } from "../fs/error.ts";

/** Where a server listens when nothing else is said. */
export const DEFAULT_URL = "http://127.0.0.1:7734";
export const DEFAULT_PORT = 7734;

/** `host`, `host:port` or a URL, as `http(s)://host:port` without a slash at the end. Throws invalid_input. */
export function parseServerUrl(text: string): string {
  const full = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  let url: URL;
  try {
    url = new URL(full);
  } catch {
    throw badUrl(text);
  }
  if ((url.protocol !== "http:" && url.protocol !== "https:") || url.hostname === "" || url.search !== "") {
    throw badUrl(text);
  }
  if (url.username !== "" || url.password !== "") {
    throw new FsError(
      "invalid_input",
      `the server address ${url.host} must not hold a user or password; put the token into a file and use --token-file`,
    );
  }
  const path = url.pathname.replace(/\/+$/, "");
  const hasPort = url.port !== "" || /:\d+$/.test(full.replace(/\/.*$/, "").slice(-6)) || url.protocol === "https:" ||
    /^http:\/\//i.test(text);
  return `${url.protocol}//${url.host}${hasPort ? "" : `:${DEFAULT_PORT}`}${path}`;
}

function badUrl(text: string): FsError {
  return new FsError(
    "invalid_input",
    `${JSON.stringify(text)} is not a server address; write http://host:port or host:port`,
  );
}

/** Nobody answers at the URL. */
export function unreachable(url: string, cause: string): FsError {
  return new FsError(
    "unavailable",
    `no AnyFS server answers at ${url} (${cause}); start it with "anyfs serve", or give its address with --server`,
    { operation: "connect", path: url },
  );
}

/** The server does not take our token, or wants one. */
export function tokenRefused(url: string, detail: string): FsError {
  return new FsError("access_denied", `the server ${url} refuses access: ${detail}`, {
    operation: "connect",
    path: url,
  });
}
