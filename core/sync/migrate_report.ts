/** What a migration did. */

export interface MigrateFailure {
  readonly path: string;
  readonly message: string;
}

export interface MigrateReport {
  readonly dryRun: boolean;
  /** Files taken in, their content new or changed. */
  files: number;
  directories: number;
  /** Symbolic links, further names of files, pipes and devices. */
  links: number;
  /** Bytes of the files taken in. */
  bytes: number;
  /** Bytes that had to be sent. */
  sent: number;
  /** Bytes of files taken in that the server had already. */
  deduplicated: number;
  /** Files that were there already, unchanged. */
  skipped: number;
  skippedBytes: number;
  /** Number of items that failed; each was named. */
  failed: number;
  /** The first of them. */
  readonly failures: MigrateFailure[];
}

/** Failures kept in the report; each is named as it happens, too. */
export const MAX_FAILURES = 1000;

export function emptyReport(dryRun: boolean): MigrateReport {
  return {
    dryRun,
    files: 0,
    directories: 0,
    links: 0,
    bytes: 0,
    sent: 0,
    deduplicated: 0,
    skipped: 0,
    skippedBytes: 0,
    failed: 0,
    failures: [],
  };
}
