/** The reference of the configuration says what the program reads. */
import assert from "node:assert/strict";
import { configurationPage, PAGE } from "./config_reference.ts";

Deno.test("docs/configuration.md is what scripts/config_reference.ts writes", () => {
  const squeeze = (text: string) => text.replace(/[ \t]*\|[ \t]*/g, "|").replace(/-{3,}/g, "---").replace(/\s+/g, " ");
  assert.equal(squeeze(Deno.readTextFileSync(PAGE)), squeeze(configurationPage()));
});
