/** The configuration the executable is compiled with: deno.json without the packages only development needs. */
import { run } from "../lib/run.ts";

interface ModuleGraph {
  readonly modules: readonly { readonly specifier: string; readonly dependencies?: readonly { specifier: string }[] }[];
}

/** `@scope/name/sub` and `name/sub` to the package's name, as it stands in "imports". */
function packageOf(specifier: string): string {
  return specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

/**
 * Writes the configuration and a copy of the lock file into `work` and returns the configuration's path.
 * `deno compile` embeds every package the lock file names, so what main.ts never reaches is left out here; the versions
 * stay those of deno.lock.
 */
export async function productionConfig(root: string, work: string): Promise<string> {
  const info = await run([Deno.execPath(), "info", "--json", "main.ts"], { cwd: root, timeoutMs: 120_000 });
  if (info.code !== 0) throw new Error(`deno info main.ts failed: ${info.stderr.trim()}`);
  const graph = JSON.parse(info.stdout) as ModuleGraph;
  const used = new Set(graph.modules.flatMap((module) => module.dependencies ?? []).map((d) => packageOf(d.specifier)));
  const manifest = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`)) as Record<string, unknown>;
  const imports = Object.entries(manifest["imports"] as Record<string, string>).filter(([name]) =>
    used.has(packageOf(name))
  );
  const path = `${work}/deno.json`;
  Deno.copyFileSync(`${root}/deno.lock`, `${work}/deno.lock`);
  Deno.writeTextFileSync(
    path,
    JSON.stringify(
      {
        version: manifest["version"],
        nodeModulesDir: "none",
        compilerOptions: manifest["compilerOptions"],
        imports: Object.fromEntries(imports),
        lock: { path: "./deno.lock" },
      },
      null,
      2,
    ),
  );
  return path;
}
