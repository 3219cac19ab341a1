/** FsError: the one error class of AnyFS and the one table that maps its codes to errno, HTTP status and exit code. */

/** One row of the table. `errno` values are Linux's (asm-generic/errno.h). */
interface ErrorRow {
  readonly errno: number;
  readonly http: number;
  readonly exit: number;
}

/** code <-> errno <-> HTTP status <-> exit code. Nothing else in the project translates between these. */
export const ERROR_TABLE = {
  not_found: { errno: 2, http: 404, exit: 3 },
  already_exists: { errno: 17, http: 409, exit: 4 },
  not_a_directory: { errno: 20, http: 409, exit: 1 },
  is_a_directory: { errno: 21, http: 409, exit: 1 },
  directory_not_empty: { errno: 39, http: 409, exit: 1 },
  permission_denied: { errno: 1, http: 403, exit: 1 },
  access_denied: { errno: 13, http: 401, exit: 1 },
  read_only: { errno: 30, http: 403, exit: 1 },
  quota_exceeded: { errno: 122, http: 507, exit: 1 },
  file_too_large: { errno: 27, http: 413, exit: 1 },
  no_space: { errno: 28, http: 507, exit: 1 },
  rate_limited: { errno: 11, http: 429, exit: 1 },
  conflict: { errno: 116, http: 412, exit: 4 },
  too_many_links: { errno: 40, http: 409, exit: 1 },
  name_too_long: { errno: 36, http: 400, exit: 2 },
  invalid_input: { errno: 22, http: 400, exit: 2 },
  not_supported: { errno: 95, http: 501, exit: 2 },
  corrupt: { errno: 5, http: 500, exit: 1 },
  unavailable: { errno: 113, http: 503, exit: 5 },
  timeout: { errno: 110, http: 504, exit: 5 },
  cancelled: { errno: 4, http: 499, exit: 130 },
  internal: { errno: 5, http: 500, exit: 1 },
} as const satisfies Record<string, ErrorRow>;

/** The closed set of error codes. */
export type FsErrorCode = keyof typeof ERROR_TABLE;

/** What an error can say beside its message. Sizes in bytes. */
export interface FsErrorDetails {
  /** The operation that failed, for example `rename`. */
  readonly operation?: string;
  /** The path (or object) it failed on. */
  readonly path?: string;
  readonly limit?: number;
  readonly usage?: number;
  readonly requested?: number;
  /** The exact Linux errno when the code's own is too coarse (EMLINK, EXDEV, ENODATA, ERANGE, EBUSY ...). */
  readonly errno?: number;
  readonly cause?: unknown;
}

/** Linux errno values the project names (asm-generic/errno-base.h, errno.h). */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EMLINK: 31,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  EHOSTUNREACH: 113,
  ESTALE: 116,
  EDQUOT: 122,
  ECANCELED: 125,
} as const;

/** Every failure a caller can meet. `message` names the thing, the cause and, where there is one, the fix. */
export class FsError extends Error {
  override readonly name = "FsError";
  readonly code: FsErrorCode;
  readonly details: FsErrorDetails;

  constructor(code: FsErrorCode, message: string, details: FsErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.details = details;
  }

  /** Positive Linux errno. */
  get errno(): number {
    return this.details.errno ?? ERROR_TABLE[this.code].errno;
  }
  get httpStatus(): number {
    return ERROR_TABLE[this.code].http;
  }
  get exitCode(): number {
    return ERROR_TABLE[this.code].exit;
  }
}

const BY_ERRNO = new Map<number, FsErrorCode>();
for (const [code, row] of Object.entries(ERROR_TABLE)) {
  if (!BY_ERRNO.has(row.errno)) BY_ERRNO.set(row.errno, code as FsErrorCode);
}
BY_ERRNO.set(Errno.EIO, "internal");
BY_ERRNO.set(Errno.EMLINK, "too_many_links");
BY_ERRNO.set(Errno.ENOSYS, "not_supported");
BY_ERRNO.set(Errno.EBADF, "invalid_input");
BY_ERRNO.set(Errno.EBUSY, "unavailable");
BY_ERRNO.set(Errno.EXDEV, "not_supported");
BY_ERRNO.set(Errno.ENODATA, "not_found");
BY_ERRNO.set(Errno.ENOTCONN, "unavailable");

/** The FsError for a Linux errno (positive); an unknown one becomes `internal` and keeps the number. */
export function errorFromErrno(errno: number, message: string, details: FsErrorDetails = {}): FsError {
  return new FsError(BY_ERRNO.get(errno) ?? "internal", message, { ...details, errno });
}

/** Is this value a string of the closed set? Used where a code arrives from the network. */
export function isFsErrorCode(code: unknown): code is FsErrorCode {
  return typeof code === "string" && Object.hasOwn(ERROR_TABLE, code);
}

/** Any thrown value as an FsError; what is not one becomes `internal` with the original as its cause. */
export function toFsError(error: unknown, details: FsErrorDetails = {}): FsError {
  if (error instanceof FsError) return error;
  if (error instanceof DOMException && error.name === "AbortError") {
    return new FsError("cancelled", "the operation was cancelled", { ...details, cause: error });
  }
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new FsError("timeout", "the operation took too long", { ...details, cause: error });
  }
  const message = error instanceof Error ? error.message : String(error);
  // SQLITE_FULL, sqlite.org/rescode.html
  if (message === "database or disk is full") return new FsError("no_space", message, { ...details, cause: error });
  return new FsError("internal", message, { ...details, cause: error });
}

/** Is `error` an FsError with this code? */
export function hasCode(error: unknown, code: FsErrorCode): boolean {
  return error instanceof FsError && error.code === code;
}

/** As AbortSignal.throwIfAborted, with an FsError: `cancelled`, or what the signal was aborted with. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw toFsError(signal.reason);
}
