/** Plants each violation of the house rules and looks that it is found, and that its harmless likeness is not. */
import assert from "node:assert/strict";
import { findCycles } from "./cycles.ts";
import { type Finding, lintSource } from "./rules.ts";

const HEADER = "/** A file for this test. */\n";

function rulesOf(file: string, code: string): Finding["rule"][] {
  return lintSource({ file, text: HEADER + code }).map((finding) => finding.rule);
}

const BROKEN: readonly [title: string, file: string, code: string, rule: Finding["rule"]][] = [
  ["core importing fuse", "core/tiers/router.ts", `import { mount } from "../../fuse/mount.ts";`, "arrow"],
  ["core importing a backend", "core/tiers/x.ts", `import { S3 } from "../../backends/s3/mod.ts";`, "arrow"],
  ["core importing cmd", "core/index/x.ts", `import { y } from "../../cmd/ls.ts";`, "arrow"],
  ["the contract importing core", "core/fs/x.ts", `import { y } from "../index/tree.ts";`, "arrow"],
  ["the contract importing the platform", "core/fs/x.ts", `import { y } from "../platform/clock.ts";`, "arrow"],
  ["the platform importing core", "core/platform/x.ts", `import { y } from "../config/units.ts";`, "arrow"],
  ["a backend importing core", "backends/s3/x.ts", `import { y } from "../../core/index/tree.ts";`, "arrow"],
  ["a backend importing its neighbour", "backends/s3/x.ts", `import { y } from "../local/mod.ts";`, "arrow"],
  ["fuse importing core", "fuse/loop.ts", `import { y } from "../core/tiers/router.ts";`, "arrow"],
  ["a type from where it must not come", "fuse/loop.ts", `import type { Y } from "../core/tiers/router.ts";`, "arrow"],
  ["an export from there", "fuse/loop.ts", `export * from "../core/tiers/router.ts";`, "arrow"],
  ["an import() from there", "fuse/loop.ts", `const m = await import("../core/tiers/router.ts");`, "arrow"],
  ["an ordinary command importing fuse", "cmd/ls.ts", `import { mount } from "../fuse/mount.ts";`, "arrow"],
  ["a file in no part", "elsewhere/x.ts", `import { y } from "../core/fs/error.ts";`, "arrow"],
  [
    "code that imports test code",
    "core/index/x.ts",
    `import { y } from "../../tests/conformance/suite.ts";`,
    "free-code",
  ],
  ["Date.now", "core/index/x.ts", `const t = Date.now();`, "ambient"],
  ['Date["now"]', "core/index/x.ts", `const t = Date["now"]();`, "ambient"],
  ["Date.now handed over", "core/index/x.ts", `const clock = Date.now;`, "ambient"],
  ["new Date()", "core/index/x.ts", `const t = new Date();`, "ambient"],
  ["new Date without brackets", "core/index/x.ts", `const t = new Date;`, "ambient"],
  ["Date()", "core/index/x.ts", `const t = Date();`, "ambient"],
  ["Math.random", "core/index/x.ts", `const r = Math.random();`, "ambient"],
  ["Math.random destructured", "core/index/x.ts", `const { random } = Math;`, "ambient"],
  ["performance.now", "core/index/x.ts", `const t = performance.now();`, "ambient"],
  ["setTimeout", "core/index/x.ts", `setTimeout(() => {}, 5);`, "ambient"],
  ["setTimeout handed over", "core/index/x.ts", `const wait = { setTimeout };`, "ambient"],
  ["setInterval through globalThis", "core/index/x.ts", `globalThis.setInterval(() => {}, 5);`, "ambient"],
  ["AbortSignal.timeout", "core/index/x.ts", `const s = AbortSignal.timeout(5);`, "ambient"],
  ["fetch", "core/remote/x.ts", `const r = await fetch("http://localhost");`, "ambient"],
  ["WebSocket", "core/remote/x.ts", `const w = new WebSocket("ws://localhost");`, "ambient"],
  ["randomUUID", "core/remote/x.ts", `const id = crypto.randomUUID();`, "ambient"],
  ["getRandomValues", "core/remote/x.ts", `crypto.getRandomValues(new Uint8Array(4));`, "ambient"],
  ["randomBytes", "core/store/x.ts", `import { randomBytes } from "node:crypto";`, "ambient"],
  ["all of node:crypto", "core/store/x.ts", `import * as c from "node:crypto";`, "ambient"],
  ["Deno.readFile", "core/store/x.ts", `const b = await Deno.readFile("x");`, "ambient"],
  ["Deno.env", "cmd/ls.ts", `const home = Deno.env.get("HOME");`, "ambient"],
  ["Deno.readFile in fuse", "fuse/loop.ts", `const b = await Deno.readFile("x");`, "ambient"],
  ["process.env", "core/store/x.ts", `const home = process.env.HOME;`, "ambient"],
  ["node:fs", "core/store/x.ts", `import { readFileSync } from "node:fs";`, "ambient"],
  ["node:net", "core/remote/x.ts", `import net from "node:net";`, "ambient"],
  ["node:child_process", "core/remote/x.ts", `import { spawn } from "node:child_process";`, "ambient"],
  [
    "a global beside a local of that name",
    "core/x/x.ts",
    `function f(fetch: () => void) { fetch(); } fetch("u");`,
    "ambient",
  ],
  ["export default", "core/index/x.ts", `export default 5;`, "default-export"],
  ["export default function", "core/index/x.ts", `export default function f() {}`, "default-export"],
  ["export as default", "core/index/x.ts", `const a = 1; export { a as default };`, "default-export"],
  ["any", "core/index/x.ts", `export const a: any = 1;`, "any"],
  ["any as an argument of a type", "tests/e2e/x_test.ts", `export const a: Map<string, any> = new Map();`, "any"],
  ["non-null", "core/index/x.ts", `export const f = (a?: string) => a!.length;`, "non-null"],
  ["a declaration with !", "core/index/x.ts", `export class A { b!: string; }`, "non-null"],
  [
    "a using that is used at once",
    "core/x/x.ts",
    `export async function f() { using a = g(); await a.h(); }`,
    "lost-using",
  ],
  [
    "a using that is given back",
    "core/x/x.ts",
    `export async function f() { await using a = g(); return await a.h(); }`,
    "lost-using",
  ],
  ["a using that is asked", "core/x/x.ts", `export function f() { using a = g(); if (a.h()) return 1; }`, "lost-using"],
];

for (const [title, file, code, rule] of BROKEN) {
  Deno.test(`house lint finds ${title}`, () => {
    assert.ok(rulesOf(file, code).includes(rule), `no ${rule} in ${code}`);
  });
}

const FINE: readonly [title: string, file: string, code: string][] = [
  [
    "core importing the contract and the platform",
    "core/tiers/x.ts",
    `import "../fs/error.ts"; import "../platform/clock.ts";`,
  ],
  ["the mount command importing fuse", "cmd/mount.ts", `import { mount } from "../fuse/mount.ts";`],
  ["the registry importing backends", "backends/registry.ts", `import { s3 } from "./s3/mod.ts";`],
  [
    "a test importing what it likes",
    "core/index/x_test.ts",
    `import { s3 } from "../../backends/s3/mod.ts"; Date.now();`,
  ],
  ["a parameter called fetch", "core/x/x.ts", `export function f(fetch: () => void) { fetch(); }`],
  ["a method called setTimeout", "core/x/x.ts", `export class A { setTimeout() {} } new A().setTimeout();`],
  ["a date made from a number", "core/x/x.ts", `export const d = (t: number) => new Date(t);`],
  ["Date.parse", "core/x/x.ts", `export const d = Date.parse("2024-01-01");`],
  ["a type named after the world", "core/x/x.ts", `export type S = Deno.HttpServer | WebSocket;`],
  ["a property called process", "core/x/x.ts", `export const o = { process: 1 }; o.process;`],
  ["createHash", "core/store/x.ts", `import { createHash } from "node:crypto"; createHash("sha256");`],
  ["FFI in fuse", "fuse/loop.ts", `export const lib = Deno.dlopen("libc.so.6", {});`],
  ["the clock in the platform", "core/platform/clock.ts", `export const now = () => Date.now();`],
  ["Deno in a script", "scripts/x.ts", `Deno.exit(0);`],
  ["a using that is used twice", "core/x/x.ts", `export function f() { using a = g(); a.h(); a.i(); }`],
  ["a using that is handed over", "core/x/x.ts", `export async function f() { using a = g(); await h(a); }`],
  ["an assertion that isn't a `!`", "core/x/x.ts", `export const a = !true; export const b = 1 as number;`],
];

for (const [title, file, code] of FINE) {
  Deno.test(`house lint has nothing against ${title}`, () => assert.deepEqual(rulesOf(file, code), []));
}

Deno.test("house lint wants a first line that says what the file is for", () => {
  const rules = (text: string) => lintSource({ file: "core/x/x.ts", text }).map((finding) => finding.rule);
  assert.deepEqual(rules(`import "./y.ts";\n`), ["first-line"]);
  assert.deepEqual(rules(`/** Stub. */\n`), ["first-line"]);
  assert.deepEqual(rules(`\n/** Says what it is for, one line late. */\n`), ["first-line"]);
  assert.deepEqual(rules(`#!/usr/bin/env -S deno run\n// Says what it is for.\n`), []);
  assert.deepEqual(rules(`/**\n * Says what it is for.\n */\n`), []);
});

Deno.test("house lint names the line of a finding", () => {
  const [finding] = lintSource({ file: "core/x/x.ts", text: `${HEADER}\n\nconst t = Date.now();\n` });
  assert.equal(finding?.line, 4);
});

const module = (file: string, ...imports: string[]) => ({
  file,
  text: HEADER + imports.map((specifier) => `import "${specifier}";\n`).join(""),
});

Deno.test("a cycle over three modules is found once, and names them", () => {
  const found = findCycles([
    module("core/a.ts", "./b.ts"),
    module("core/b.ts", "./c.ts"),
    module("core/c.ts", "./a.ts"),
    module("core/d.ts", "./a.ts"),
  ]);
  assert.equal(found.length, 1);
  assert.match(found[0]?.message ?? "", /core\/a\.ts -> core\/b\.ts -> core\/c\.ts -> core\/a\.ts/);
});

Deno.test("a module that imports itself is a cycle", () => {
  assert.equal(findCycles([module("core/a.ts", "./a.ts")]).length, 1);
});

Deno.test("a diamond is no cycle, nor is one closed by types or by import()", () => {
  assert.deepEqual(
    findCycles([
      module("a.ts", "./b.ts", "./c.ts"),
      module("b.ts", "./d.ts"),
      module("c.ts", "./d.ts"),
      { file: "d.ts", text: `${HEADER}import type { A } from "./a.ts"; export const f = () => import("./a.ts");` },
    ]),
    [],
  );
});
