/** What the runner of the tests reads from a report. */
import assert from "node:assert/strict";
import { countJunit, failuresInJunit } from "./junit.ts";

const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="5" failures="3" errors="0" time="0.019">
    <testsuite name="./a_test.ts" tests="5" disabled="0" errors="0" failures="3">
        <testcase name="fine" classname="./a_test.ts" time="0.000" line="1" col="6">
        </testcase>
        <testcase name="left out" classname="./a_test.ts" time="0.000" line="1" col="6">
            <skipped/>
        </testcase>
        <testcase name="whole" classname="./a_test.ts" time="0.001" line="2" col="6">
            <failure message="1 test step failed">1 test step failed.</failure>
        </testcase>
        <testcase name="whole &gt; a &lt; &quot;b&quot;" classname="./a_test.ts" time="0.000" line="2" col="41">
            <failure message="Uncaught Error: boom &amp;lt;">Error: boom &amp;lt;
    at file:///a_test.ts:2:71</failure>
        </testcase>
    </testsuite>
</testsuites>`;

Deno.test("a JUnit report is counted by steps, and what failed is told with its error", () => {
  assert.deepEqual(countJunit(REPORT), { passed: 1, failed: 1, skipped: 1 });
  assert.deepEqual(failuresInJunit(REPORT), [
    { test: './a_test.ts: whole > a < "b"', error: "Error: boom &lt;\n    at file:///a_test.ts:2:71" },
  ]);
});
