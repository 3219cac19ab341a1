/** The version of this program and the commit it was made from. */
import manifest from "../../deno.json" with { type: "json" };
import { readTextNow } from "../platform/files.ts";
import { isStandalone } from "../platform/process.ts";

/** Semantic version, from deno.json. */
export const VERSION: string = manifest.version;

/** What `scripts/build.ts` writes beside this program's scripts and embeds; not in the repository. */
const BUILD_INFO = "./build_info.json";

/** A file of this program by its place relative to this module. Resolved: the executable's own files know no `..`. */
function besideThis(relative: string): string {
  return decodeURIComponent(new URL(relative, import.meta.url).pathname);
}

function commitOfBuild(): string | null {
  const text = readTextNow(besideThis(BUILD_INFO));
  if (text === null) return null;
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== "object" || parsed === null || !("commit" in parsed)) return null;
  return typeof parsed.commit === "string" ? parsed.commit : null;
}

/** HEAD as git stores it in files (gitrepository-layout(5)): no process has to be started for it. */
function commitOfCheckout(git: string): string | null {
  const head = readTextNow(`${git}/HEAD`)?.trim();
  if (head === undefined) return null;
  const ref = /^ref: (.+)$/.exec(head)?.[1];
  if (ref === undefined) return head;
  const loose = readTextNow(`${git}/${ref}`)?.trim();
  if (loose !== undefined) return loose;
  const packed = readTextNow(`${git}/packed-refs`) ?? "";
  return packed.split("\n").find((line) => line.endsWith(` ${ref}`))?.split(" ")[0] ?? null;
}

/** Seven hexadecimal digits of the commit, or `source` when it isn't known. */
export function commit(): string {
  const full = isStandalone() ? commitOfBuild() : commitOfCheckout(besideThis("../../.git"));
  return full === null || !/^[0-9a-f]{7,64}$/.test(full) ? "source" : full.slice(0, 7);
}

/** What `anyfs --version` prints. */
export function versionLine(): string {
  return `anyfs ${VERSION} (${commit()})`;
}
