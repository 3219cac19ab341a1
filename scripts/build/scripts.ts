/**
 * Turns the bundle's ES modules into scripts in the form of SystemJS, which can be run with code that V8 compiled earlier:
 * `vm.Script` takes that, `import` does not (docs/decisions/0110).
 */
import { rollup } from "@rollup/wasm-node";

/**
 * Reads the modules `entries` (name to path, absolute) and all they import from their files and writes `NAME.script` for
 * each into `out`, a source map that leads to the original sources into `maps`. Modules keep their names and stay as many;
 * `node:` modules stay outside. Throws when one can't be read, or has a module the executable does not carry.
 */
export async function writeScripts(
  entries: Readonly<Record<string, string>>,
  out: string,
  maps: string,
): Promise<void> {
  const bundle = await rollup({
    input: { ...entries },
    external: (id) => id.startsWith("node:"),
    // What the bundler left is used; a second look at it costs time and could only be wrong.
    treeshake: false,
    plugins: [{
      name: "with-map",
      load: (id) => ({ code: Deno.readTextFileSync(id), map: readMap(`${maps}/${id.split("/").at(-1)}.map`) }),
    }],
    onwarn: (warning) => {
      throw new Error(warning.message);
    },
  });
  const { output } = await bundle.generate({
    dir: out,
    format: "system",
    compact: true,
    sourcemap: "hidden",
    banner: "(function(System){",
    footer: "})",
    entryFileNames: "[name].script",
    chunkFileNames: "[name].script",
    systemNullSetters: true,
    hoistTransitiveImports: false,
  });
  await bundle.close();
  for (const file of output) {
    if (file.type !== "chunk") continue;
    Deno.writeTextFileSync(`${out}/${file.fileName}`, file.code);
    if (file.map !== null) {
      Deno.writeTextFileSync(`${maps}/${file.fileName.replace(/script$/, "js.map")}`, file.map.toString());
    }
  }
}

function readMap(path: string): string | null {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
