/**
 * The loader of an executable that is only used while building (`compiled_code.ts`): when the program ends, it writes what V8
 * has compiled of each script so far to ANYFS_CODE_OUT, with the names of those whose code V8 would not have in
 * `rejected.json`. It takes compiled code from the folder ANYFS_CODE_IN.
 */
import { fromFiles, Loader } from "./loader.ts";

/** Runs a script as the loader does. */
export function runScript(name: string): void {
  const given = Deno.env.get("ANYFS_CODE_IN");
  const out = Deno.env.get("ANYFS_CODE_OUT");
  const loader = new Loader(fromFiles(given === undefined ? "/nowhere/" : `${given}/`));
  if (out !== undefined) {
    addEventListener("unload", () => {
      Deno.mkdirSync(out, { recursive: true });
      for (const [script, handle] of loader.scripts) {
        Deno.writeFileSync(`${out}/${script}.code`, handle.createCachedData());
      }
      Deno.writeTextFileSync(`${out}/rejected.json`, JSON.stringify(loader.rejected));
    });
  }
  loader.run(name);
}
