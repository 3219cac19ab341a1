/**
 * Compiles core/store/chunker.as.ts with AssemblyScript and writes core/store/chunker_wasm_bytes.ts.
 * Run it after a change of the source: `deno run -A scripts/build_wasm.ts`; with `--check` it only compares.
 * The compiler comes from npm at run time, so that it stays out of the program's lock file.
 */
const COMPILER = "assemblyscript@0.28.20";
const root = new URL("..", import.meta.url).pathname;
const source = `${root}core/store/chunker.as.ts`;
const target = `${root}core/store/chunker_wasm_bytes.ts`;

const folder = await Deno.makeTempDir();
try {
  const wasm = `${folder}/chunker.wasm`;
  const { code } = await new Deno.Command("npx", {
    args: [
      ...["-y", "-p", COMPILER, "asc", source, "--outFile", wasm],
      ...["-O3", "--converge", "--noAssert", "--runtime", "stub", "--initialMemory", "2", "--memoryBase", "1024"],
    ],
    cwd: folder,
    stdout: "inherit",
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`asc failed with exit code ${code}`);
  const bytes = await Deno.readFile(wasm);
  const lines = (bytes.toBase64().match(/.{1,100}/g) ?? []).map((line) => `  "${line}"`);
  const text = [
    "/** The compiled chunker.as.ts as base64: written by scripts/build_wasm.ts, not by hand. */",
    "export const CHUNKER_WASM = [",
    ...lines.map((line) => `${line},`),
    '].join("");',
    "",
  ].join("\n");
  if (Deno.args.includes("--check")) {
    if (await Deno.readTextFile(target) !== text) {
      console.error(
        "core/store/chunker_wasm_bytes.ts is not what chunker.as.ts compiles to; run scripts/build_wasm.ts",
      );
      Deno.exit(1);
    }
  } else {
    await Deno.writeTextFile(target, text);
  }
  console.log(`${bytes.length} bytes of WebAssembly`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
