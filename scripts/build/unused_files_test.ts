/** Which files of packages the executable does without. */
import assert from "node:assert/strict";
import { packageFolder, unusedIn } from "./unused_files.ts";

Deno.test("a package of the lock file is found in the cache, whatever its peers", () => {
  assert.equal(packageFolder("tslib@2.9.1"), "tslib/2.9.1");
  assert.equal(packageFolder("@scope/name@1.2.3"), "@scope/name/1.2.3");
  assert.equal(packageFolder("valibot@1.5.0_typescript@5.9.3_@dev+tool@1.0.0"), "valibot/1.5.0");
});

Deno.test("what runs stays: of the packages of AWS the CommonJS copy, of others all code", () => {
  const root = Deno.makeTempDirSync();
  const files = [
    "@aws-sdk/core/1.0.0/dist-cjs/index.js",
    "@aws-sdk/core/1.0.0/dist-es/index.js",
    "@aws-sdk/core/1.0.0/dist-types/index.d.ts",
    "@aws-sdk/core/1.0.0/LICENSE",
    "@aws-sdk/core/1.0.0/README.md",
    "other/2.0.0/dist-es/index.js",
    "other/2.0.0/dist/index.d.mts",
    "other/2.0.0/dist/index.mjs",
    "other/2.0.0/dist/index.mjs.map",
  ];
  for (const file of files) {
    Deno.mkdirSync(`${root}/${file.slice(0, file.lastIndexOf("/"))}`, { recursive: true });
    Deno.writeTextFileSync(`${root}/${file}`, "");
  }
  const left = ["@aws-sdk/core/1.0.0", "other/2.0.0"].flatMap((folder) => unusedIn(`${root}/${folder}`));
  assert.deepEqual(left.map((path) => path.slice(root.length + 1)).sort(), [
    "@aws-sdk/core/1.0.0/README.md",
    "@aws-sdk/core/1.0.0/dist-es",
    "@aws-sdk/core/1.0.0/dist-types",
    "other/2.0.0/dist/index.d.mts",
    "other/2.0.0/dist/index.mjs.map",
  ]);
  Deno.removeSync(root, { recursive: true });
});
