/** The executable's loader, with scripts in memory. */
import assert from "node:assert/strict";
import { Loader } from "./loader.ts";

/** Scripts as the build writes them: `(function(System){System.register(...)})`. */
function loaderOf(scripts: Record<string, string>, code: Record<string, Uint8Array> = {}): Loader {
  return new Loader({
    text: (name) => {
      const script = scripts[name];
      if (script === undefined) throw new Error(`no script ${name}`);
      return `(function(System){${script}})`;
    },
    code: (name) => code[name] ?? null,
    url: (name) => `file:///program/${name}.js`,
  });
}

const COUNTER = `System.register([],function(exports){let n=0;exports("add",()=>exports("n",++n));
  return{setters:[],execute(){exports("n",0)}}});`;

Deno.test("what a script exports is seen as it changes, by all that import it, and each script runs once", () => {
  const reader = (name: string) =>
    `System.register(["./counter.script"],function(exports,module){let n,add;exports("${name}",()=>n);exports("add",()=>add());
      return{setters:[m=>{n=m.n;add=m.add}],execute(){}}});`;
  const main = `System.register(["./a.script","./b.script"],function(exports){let a,b;
    return{setters:[m=>{a=m},m=>{b=m}],execute(){exports("seen",()=>[a.a(),b.b()]);exports("add",()=>a.add())}}});`;
  const program = loaderOf({ counter: COUNTER, a: reader("a"), b: reader("b"), main }).run("main") as {
    seen(): number[];
    add(): void;
  };
  assert.deepEqual(program.seen(), [0, 0]);
  program.add();
  program.add();
  assert.deepEqual(program.seen(), [2, 2]);
});

Deno.test("scripts that import each other find each other's functions, as ES modules do", () => {
  const program = loaderOf({
    main: `System.register(["./other.script"],function(exports){let half;exports("even",even);
      function even(n){return n===0||half(n-1)}
      return{setters:[m=>{half=m.odd}],execute(){exports("answer",even(10))}}});`,
    other: `System.register(["./main.script"],function(exports){let even;exports("odd",odd);
      function odd(n){return n!==0&&even(n-1)}
      return{setters:[m=>{even=m.even}],execute(){}}});`,
  }).run("main");
  assert.equal(program.answer, true);
});

Deno.test("the runtime's own modules come with their default and their names, now or late", async () => {
  const program = loaderOf({
    main: `System.register(["node:path"],function(exports,module){let path,join;
      return{setters:[m=>{path=m.default;join=m.join}],execute(){
        exports("joined",join("a","b")+path.sep);
        exports("meta",module.meta);
        exports("late",()=>module.import("node:os"));
        exports("later",()=>module.import("./late.script"));
        exports("never",()=>module.import("./none.script"));
        exports("foreign",()=>module.import("left-pad"))}}});`,
    late:
      `System.register([],function(exports,module){return{setters:[],execute(){exports("main",module.meta.main)}}});`,
  }).run("main") as Record<"late" | "later" | "never" | "foreign", () => Promise<Record<string, unknown>>> & {
    joined: string;
    meta: unknown;
  };
  assert.equal(program.joined, "a/b/");
  assert.deepEqual(program.meta, { url: "file:///program/main.js", main: true });
  assert.equal((await program.late()).EOL, "\n");
  assert.equal((await program.later()).main, false);
  await assert.rejects(program.never(), /no script none/);
  await assert.rejects(program.foreign(), /left-pad, which is neither/);
});

Deno.test("compiled code is taken, and does not matter when V8 will not have it", () => {
  const first = loaderOf({ counter: COUNTER });
  first.run("counter");
  const code = first.scripts.get("counter")?.createCachedData() ?? new Uint8Array();
  const next = loaderOf({ counter: COUNTER }, { counter: code });
  assert.equal(next.run("counter").n, 0);
  assert.deepEqual(next.rejected, []);
  const other = loaderOf({ counter: `${COUNTER} /* longer */` }, { counter: code });
  assert.equal(other.run("counter").n, 0);
  assert.deepEqual(other.rejected, ["counter"]);
});

Deno.test("a script that throws ends the start; one that awaits at its top level is refused", () => {
  const failing = `System.register([],function(){return{setters:[],execute(){throw new Error("as it should")}}});`;
  const main = `System.register(["./failing.script"],function(){return{setters:[null],execute(){}}});`;
  assert.throws(() => loaderOf({ failing, main }).run("main"), /as it should/);
  const waiting = `System.register([],function(){return{setters:[],async execute(){}}});`;
  assert.throws(() => loaderOf({ waiting }).run("waiting"), /waiting awaits at its top level/);
});
