/** `deno task lint:house`: the project's own rules on every source file; exits with 1 when one is broken. */
import { findCycles } from "./lint/cycles.ts";
import { lintSource, type Source } from "./lint/rules.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const SKIP = new Set(["node_modules", "dist"]);

function sources(): Source[] {
  const found: Source[] = [];
  const visit = (folder: string) => {
    for (const entry of Deno.readDirSync(`${ROOT}/${folder}`)) {
      if (entry.name.startsWith(".") || SKIP.has(entry.name)) continue;
      const file = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory) visit(file);
      // AssemblyScript has TypeScript's syntax and other rules.
      else if (/\.ts$/.test(entry.name) && !/\.as\.ts$/.test(entry.name)) {
        found.push({ file, text: Deno.readTextFileSync(`${ROOT}/${file}`) });
      }
    }
  };
  visit("");
  return found.sort((a, b) => a.file < b.file ? -1 : 1);
}

if (import.meta.main) {
  const all = sources();
  const findings = [...all.flatMap(lintSource), ...findCycles(all)];
  for (const { file, line, rule, message } of findings) console.log(`${file}:${line}: ${rule}: ${message}`);
  console.log(`house lint: ${all.length} files, ${findings.length} findings`);
  Deno.exit(findings.length === 0 ? 0 : 1);
}
