/**
 * Part of the executable: runs the scripts that `scripts.ts` made, handing V8 what it compiled of each when the executable
 * was built (docs/decisions/0110). The executable does without Deno's own loader for all but this module.
 *
 * The scripts are in the form of SystemJS (https://github.com/systemjs/systemjs, docs/system-register.md): each calls
 * `System.register(dependencies, declare)`; what a script exports may change later and is then told to all that import it.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import { Script } from "node:vm";

type Namespace = Record<string, unknown>;
type Setter = (from: Namespace) => void;

interface Context {
  readonly meta: { readonly url: string; readonly main: boolean };
  import(name: string): Promise<Namespace>;
}

interface Body {
  readonly setters: readonly (Setter | null)[];
  readonly execute: () => unknown;
}

type Declare = (exports: (name: string | Namespace, value?: unknown) => unknown, context: Context) => Body;

interface Loaded {
  readonly namespace: Namespace;
  readonly importers: Setter[];
}

/** Where scripts come from, by their names without an ending. */
export interface ScriptSource {
  /** Throws when there is none. */
  text(name: string): string;
  /** What V8 compiled of it, or null. Of another version of V8 or other flags: it is not used. */
  code(name: string): Uint8Array | null;
  /** `import.meta.url` of it, and its name in the stack of an error. */
  url(name: string): string;
}

/** The folder of this module in the executable, as a URL and as a path. */
const HERE = import.meta.url.replace(/[^/]+$/, "");
const FOLDER = decodeURIComponent(new URL(HERE).pathname);

/** `NAME.script` beside this module, `NAME.code` there or in another folder. Paths, which are cheaper to open than URLs. */
export function fromFiles(code: string = FOLDER): ScriptSource {
  return {
    text: (name) => Deno.readTextFileSync(`${FOLDER}${name}.script`),
    code: (name) => {
      try {
        return Deno.readFileSync(`${code}${name}.code`);
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return null;
        throw error;
      }
    },
    url: (name) => `${HERE}${name}.js`,
  };
}

/** Runs a script of the executable, and those it imports. Throws what they throw. */
export function runScript(name: string): void {
  new Loader(fromFiles()).run(name);
}

/** Runs scripts and those they import, each once. */
export class Loader {
  /** V8's handle of each script, by its name. */
  readonly scripts = new Map<string, Script>();
  /** Names of the scripts whose compiled code V8 would not have. */
  readonly rejected: string[] = [];
  readonly #loaded = new Map<string, Loaded>();
  readonly #source: ScriptSource;

  constructor(source: ScriptSource) {
    this.#source = source;
  }

  /** Runs a script as the entry of the program: its `import.meta.main` is true. Throws what it throws. */
  run(name: string): Namespace {
    return this.#load(name, true).namespace;
  }

  #load(name: string, main: boolean): Loaded {
    const known = this.#loaded.get(name);
    if (known !== undefined) return known;
    const loaded: Loaded = { namespace: Object.create(null), importers: [] };
    this.#loaded.set(name, loaded);
    const { dependencies, declare } = this.#declaration(name);
    const exports = (given: string | Namespace, value?: unknown) => {
      if (typeof given === "string") loaded.namespace[given] = value;
      else Object.assign(loaded.namespace, given);
      for (const set of loaded.importers) set(loaded.namespace);
      return value;
    };
    const body = declare(exports, {
      meta: { url: this.#source.url(name), main },
      import: (wanted) => new Promise((resolve) => resolve(this.#namespace(wanted))),
    });
    dependencies.forEach((wanted, at) => {
      const set = body.setters[at] ?? null;
      const script = scriptName(wanted);
      if (script === null) return set?.(builtin(wanted));
      const dependency = this.#load(script, false);
      if (set === null) return;
      dependency.importers.push(set);
      set(dependency.namespace);
    });
    if (body.execute() instanceof Promise) {
      throw new Error(`${name} awaits at its top level, which its importers would not`);
    }
    return loaded;
  }

  #declaration(name: string): { dependencies: readonly string[]; declare: Declare } {
    const code = this.#source.code(name);
    const script = new Script(this.#source.text(name), {
      filename: this.#source.url(name),
      ...(code === null ? {} : { cachedData: Buffer.from(code.buffer, code.byteOffset, code.byteLength) }),
    });
    if (script.cachedDataRejected === true) this.rejected.push(name);
    this.scripts.set(name, script);
    const found: { dependencies: readonly string[]; declare: Declare }[] = [];
    const run = script.runInThisContext() as (system: object) => void;
    run({ register: (dependencies: readonly string[], declare: Declare) => found.push({ dependencies, declare }) });
    const [only] = found;
    if (only === undefined) throw new Error(`${name} registers nothing`);
    return only;
  }

  #namespace(wanted: string): Namespace {
    const script = scriptName(wanted);
    return script === null ? builtin(wanted) : this.#load(script, false).namespace;
  }
}

/** `./name.script` of a dependency, or null when it is no script of ours. */
const scriptName = (wanted: string): string | null => /^\.\/(.+)\.script$/.exec(wanted)?.[1] ?? null;

/** A module of Node's as an ES module sees it. Its properties are read when they are used: some are made only then. */
function builtin(name: string): Namespace {
  const found = process.getBuiltinModule(name) as object | undefined;
  if (found === undefined) throw new Error(`the program imports ${name}, which is neither its own nor the runtime's`);
  return Object.create(found, { default: { value: found } });
}
