/** A node as JSON, for people and scripts. */
import { kindOf, type Stat, TierBit } from "../fs/stat.ts";
import { nameOf } from "./url_path.ts";

/** `LNC` with `-` for a tier that lacks it: local, NAS, cloud. */
export function tierLetters(tiers: number): string {
  return (tiers & TierBit.local ? "L" : "-") + (tiers & TierBit.nas ? "N" : "-") + (tiers & TierBit.s3 ? "C" : "-");
}

/** RFC 3339 with nanoseconds. */
export function timeText(sec: number, nsec: number): string {
  const date = new Date(sec * 1000);
  if (Number.isNaN(date.getTime())) return `${sec}.${String(nsec).padStart(9, "0")}`;
  return date.toISOString().replace(/\.\d+Z$/, `.${String(nsec).padStart(9, "0")}Z`);
}

export interface NodeJson {
  readonly path: string;
  readonly name: string;
  readonly kind: string;
  readonly size: number;
  /** Permission bits, octal. */
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: string;
  readonly atime: string;
  readonly ctime: string;
  readonly btime: string;
  readonly ino: number;
  readonly nlink: number;
  readonly version: number;
  /** SHA-256 identity of the content; null when empty or no file. */
  readonly content: string | null;
  readonly etag: string;
  /** Bits: 1 local, 2 NAS, 4 S3. */
  readonly tiers: number;
  readonly tiers_text: string;
  readonly target?: string;
}

export function nodeJson(path: string, stat: Stat, target?: string): NodeJson {
  return {
    path,
    name: nameOf(path),
    kind: kindOf(stat.mode),
    size: stat.size,
    mode: (stat.mode & 0o7777).toString(8).padStart(4, "0"),
    uid: stat.uid,
    gid: stat.gid,
    mtime: timeText(stat.mtimeSec, stat.mtimeNsec),
    atime: timeText(stat.atimeSec, stat.atimeNsec),
    ctime: timeText(stat.ctimeSec, stat.ctimeNsec),
    btime: timeText(stat.btimeSec, stat.btimeNsec),
    ino: stat.ino,
    nlink: stat.nlink,
    version: stat.version,
    content: stat.content,
    etag: etagOf(stat),
    tiers: stat.tiers,
    tiers_text: tierLetters(stat.tiers),
    ...(target !== undefined && { target }),
  };
}

/** Strong validator: a file's is its content's identity; what is no file has its version. */
export function etagOf(stat: Stat): string {
  if (kindOf(stat.mode) !== "file") return `"v${stat.ino}.${stat.version}"`;
  return stat.content === null ? '"empty"' : `"${stat.content}"`;
}
