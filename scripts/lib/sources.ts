/** What the compiled program is made of, to know when it is stale. */

const PARTS = [
  "main.ts",
  "deno.json",
  "deno.lock",
  "cmd",
  "core",
  "backends",
  "fuse",
  "scripts/build.ts",
  "scripts/build",
];

/** Time of the newest change to anything the executable is made of, milliseconds since 1970. */
export function newestSource(root: string): number {
  let newest = 0;
  const visit = (path: string) => {
    let info: Deno.FileInfo;
    try {
      info = Deno.statSync(path);
    } catch {
      return;
    }
    if (!info.isDirectory && /_test\.ts$/.test(path)) return;
    newest = Math.max(newest, info.mtime?.getTime() ?? 0);
    if (info.isDirectory) { for (const entry of Deno.readDirSync(path)) visit(`${path}/${entry.name}`); }
  };
  for (const part of PARTS) visit(`${root}/${part}`);
  return newest;
}
