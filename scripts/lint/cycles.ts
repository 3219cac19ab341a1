/** Import cycles: modules that wait for each other while they are evaluated. */
import { type Finding, importsOf, parse, resolveImport, type Source } from "./rules.ts";

/**
 * One finding a cycle (strongly connected component with more than one module, or a module that imports itself), after
 * Tarjan, "Depth-first search and linear graph algorithms" (1972). Types and `import()` don't count: neither is evaluated
 * with the module.
 */
export function findCycles(sources: readonly Source[]): Finding[] {
  const known = new Set(sources.map((source) => source.file));
  const edges = new Map<string, { to: string; line: number }[]>();
  for (const source of sources) {
    const out: { to: string; line: number }[] = [];
    for (const { specifier, typeOnly, dynamic, line } of importsOf(parse(source))) {
      const to = typeOnly || dynamic ? null : resolveImport(source.file, specifier);
      if (to !== null && known.has(to)) out.push({ to, line });
    }
    edges.set(source.file, out);
  }
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const onStack = new Set<string>();
  const findings: Finding[] = [];
  const visit = (file: string) => {
    const own = index.size;
    index.set(file, own);
    low.set(file, own);
    stack.push(file);
    onStack.add(file);
    for (const { to } of edges.get(file) ?? []) {
      if (!index.has(to)) visit(to);
      if (onStack.has(to)) low.set(file, Math.min(low.get(file) ?? own, low.get(to) ?? own));
    }
    if (low.get(file) !== own) return;
    const members = stack.splice(stack.indexOf(file));
    members.forEach((member) => onStack.delete(member));
    const self = edges.get(file)?.find(({ to }) => to === file);
    if (members.length === 1 && self === undefined) return;
    const line = edges.get(file)?.find(({ to }) => members.includes(to))?.line ?? 1;
    findings.push({ file, line, rule: "cycle", message: `import cycle: ${[...members, file].join(" -> ")}` });
  };
  for (const { file } of sources) if (!index.has(file)) visit(file);
  return findings;
}
