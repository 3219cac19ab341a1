/** Files of the npm packages that a running program never opens: the executable reads all it carries at every start. */
import { run } from "../lib/run.ts";

/** Type declarations, source maps and documentation. */
const UNUSED_FILE = /\.(?:d\.[cm]?ts|map|md)$/;
/** The same code once more: for type checkers, for script tags. */
const UNUSED_FOLDER = /^(?:dist-types|dist\.umd)$/;
/** Deno takes the `node` export of these: `dist-cjs`. */
const ES_COPY = /\/@(?:aws|aws-sdk|smithy)\/[^/]+\/[^/]+\/dist-es$/;

/** Absolute paths in Deno's own cache of npm packages, for `deno compile --exclude`. `modules`: what is to be compiled. */
export async function unusedFiles(root: string, config: string, modules: readonly string[]): Promise<string[]> {
  const options = { cwd: root, timeoutMs: 300_000 };
  // All packages are in the cache afterwards.
  const cached = await run([Deno.execPath(), "cache", "--quiet", "--config", config, ...modules], options);
  if (cached.code !== 0) throw new Error(`deno cache failed: ${cached.stderr.trim()}`);
  const info = JSON.parse((await run([Deno.execPath(), "info", "--json"], options)).stdout) as { npmCache: string };
  const found: string[] = [];
  const visit = (folder: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(folder)) {
      const path = `${folder}/${name}`;
      if (isDirectory ? UNUSED_FOLDER.test(name) || ES_COPY.test(path) : UNUSED_FILE.test(name)) found.push(path);
      else if (isDirectory) visit(path);
    }
  };
  visit(info.npmCache);
  return found.sort();
}
