/** Files of the npm packages that a running program never opens: the executable reads all it carries at every start. */
import { existsSync } from "node:fs";
import { run } from "../lib/run.ts";

/** Type declarations, source maps and documentation. */
const UNUSED_FILE = /\.(?:d\.[cm]?ts|map|md)$/;
/** The same code once more: for type checkers, for script tags. */
const UNUSED_FOLDER = /^(?:dist-types|dist\.umd)$/;
/** Deno takes the `node` export of these: `dist-cjs`. */
const ES_COPY = /\/@(?:aws|aws-sdk|smithy)\/[^/]+\/[^/]+\/dist-es$/;

/** `name@1.2.3_peer@4.5.6` of a lock file as the folder the package has in Deno's cache. */
export function packageFolder(key: string): string {
  const at = key.indexOf("@", 1);
  const [version = ""] = key.slice(at + 1).split("_");
  return `${key.slice(0, at)}/${version}`;
}

/** The paths in the folder of a package that nothing opens while it runs. */
export function unusedIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    if (isDirectory ? UNUSED_FOLDER.test(name) || ES_COPY.test(path) : UNUSED_FILE.test(name)) return [path];
    return isDirectory ? unusedIn(path) : [];
  });
}

/**
 * Absolute paths in Deno's own cache of npm packages, for `deno compile --exclude`. `config`: what productionConfig made;
 * `modules`: what is to be compiled.
 */
export async function unusedFiles(root: string, config: string, modules: readonly string[]): Promise<string[]> {
  const options = { cwd: root, timeoutMs: 300_000 };
  // All packages are in the cache afterwards.
  const cached = await run([Deno.execPath(), "cache", "--quiet", "--config", config, ...modules], options);
  if (cached.code !== 0) throw new Error(`deno cache failed: ${cached.stderr.trim()}`);
  const info = JSON.parse((await run([Deno.execPath(), "info", "--json"], options)).stdout) as { npmCache: string };
  const lockFile = config.replace(/deno\.json$/, "deno.lock");
  const lock = JSON.parse(Deno.readTextFileSync(lockFile)) as { npm?: { [key: string]: unknown } };
  const found: string[] = [];
  for (const { name: registry, isDirectory } of Deno.readDirSync(info.npmCache)) {
    if (!isDirectory) continue;
    for (const key of Object.keys(lock.npm ?? {})) {
      const folder = `${info.npmCache}/${registry}/${packageFolder(key)}`;
      if (existsSync(folder)) found.push(...unusedIn(folder));
    }
  }
  return found.sort();
}
