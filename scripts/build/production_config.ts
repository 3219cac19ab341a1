/** The configuration the executable is compiled with: deno.json and its lock file without what only development needs. */
import { run } from "../lib/run.ts";

interface ModuleGraph {
  readonly modules: readonly { readonly specifier: string; readonly dependencies?: readonly { specifier: string }[] }[];
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** `@scope/name/sub` and `name/sub` to the package's name, as it stands in "imports". */
function packageOf(specifier: string): string {
  return specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

/** Bare specifiers anywhere in the graphs of these modules. */
async function packagesUsed(root: string, entries: readonly string[]): Promise<Set<string>> {
  const used = new Set<string>();
  for (const entry of entries) {
    const info = await run([Deno.execPath(), "info", "--json", entry], { cwd: root, timeoutMs: 120_000 });
    if (info.code !== 0) throw new Error(`deno info ${entry} failed: ${info.stderr.trim()}`);
    const graph = JSON.parse(info.stdout) as ModuleGraph;
    for (const module of graph.modules) {
      for (const { specifier } of module.dependencies ?? []) used.add(packageOf(specifier));
    }
  }
  return used;
}

/**
 * The lock file without some packages (`name@version`): as entries, as dependencies, and as the peers that stand in other
 * packages' keys (`valibot@1.5.0_typescript@5.9.3`).
 */
export function lockWithout(lock: Json, packages: readonly string[]): Json {
  const names = new Set(packages.map((one) => one.slice(0, one.lastIndexOf("@"))));
  const suffixes = packages.map((one) => `_${one.replaceAll("/", "+")}`);
  const isOne = (text: string) => packages.some((one) => text === one || text === `npm:${one}`);
  const rename = (text: string) => suffixes.reduce((name, suffix) => name.replace(suffix, ""), text);
  const visit = (value: Json): Json => {
    if (typeof value === "string") return rename(value);
    if (Array.isArray(value)) {
      return value.filter((item) => typeof item !== "string" || !(names.has(item) || isOne(item))).map(visit);
    }
    if (typeof value !== "object" || value === null) return value;
    const kept = Object.entries(value).filter(([key]) => !isOne(key));
    return Object.fromEntries(kept.map(([key, inner]) => [rename(key), visit(inner)]));
  };
  return visit(lock);
}

/**
 * Writes the configuration and its lock file into `work` and returns the configuration's path. `deno compile` embeds every
 * package the lock file names (TypeScript alone: 23 MB), so what the entries never reach is left out; versions and hashes
 * stay those of deno.lock.
 */
export async function productionConfig(root: string, work: string, entries: readonly string[]): Promise<string> {
  const used = await packagesUsed(root, entries);
  const manifest = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`)) as { [key: string]: Json };
  const all = Object.entries(manifest["imports"] as Record<string, string>);
  const unused = all.filter(([name]) => !used.has(packageOf(name))).map(([, specifier]) =>
    specifier.replace(/^npm:/, "")
  );
  const lock = JSON.parse(Deno.readTextFileSync(`${root}/deno.lock`)) as Json;
  Deno.writeTextFileSync(`${work}/deno.lock`, JSON.stringify(lockWithout(lock, unused), null, 2));
  const path = `${work}/deno.json`;
  Deno.writeTextFileSync(
    path,
    JSON.stringify(
      {
        nodeModulesDir: "none",
        compilerOptions: manifest["compilerOptions"],
        imports: Object.fromEntries(all.filter(([name]) => used.has(packageOf(name)))),
        lock: { path: "./deno.lock" },
      },
      null,
      2,
    ),
  );
  return path;
}
