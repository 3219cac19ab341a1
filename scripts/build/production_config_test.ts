/** What the executable's lock file keeps and leaves out. */
import assert from "node:assert/strict";
import { lockWithout } from "./production_config.ts";

Deno.test("a development package goes from the lock file, also where it is another one's peer", () => {
  const lock = {
    version: "5",
    specifiers: {
      "npm:@dev/tool@1.0.0": "1.0.0",
      "npm:typescript@5.9.3": "5.9.3",
      "npm:valibot@1.5.0": "1.5.0_typescript@5.9.3_@dev+tool@1.0.0",
    },
    npm: {
      "@dev/tool@1.0.0": { integrity: "a" },
      "typescript@5.9.3": { integrity: "b" },
      "valibot@1.5.0_typescript@5.9.3_@dev+tool@1.0.0": {
        integrity: "c",
        dependencies: ["typescript", "tslib"],
        optionalPeers: ["typescript"],
      },
    },
    workspace: { dependencies: ["npm:typescript@5.9.3", "npm:valibot@1.5.0"] },
  };
  assert.deepEqual(lockWithout(lock, ["typescript@5.9.3", "@dev/tool@1.0.0"]), {
    version: "5",
    specifiers: { "npm:valibot@1.5.0": "1.5.0" },
    npm: { "valibot@1.5.0": { integrity: "c", dependencies: ["tslib"], optionalPeers: [] } },
    workspace: { dependencies: ["npm:valibot@1.5.0"] },
  });
});
