/** The crash campaign in short: what was acknowledged outlives SIGKILL of the server and of the mount. `deno task crash` runs it in full. */
import assert from "node:assert/strict";
import { mountObstacle } from "../support/mount_child.ts";
import { crashCampaign } from "./crash_campaign.ts";

const obstacle = mountObstacle();

Deno.test({
  name: `four kills of server and mount under load lose nothing that was acknowledged${
    obstacle === null ? "" : ` (skipped: ${obstacle})`
  }`,
  ignore: obstacle !== null,
  fn: async () => {
    const said: string[] = [];
    const report = await crashCampaign({ kills: 4, seed: 11, lifeMs: 100_000, say: (line) => said.push(line) });
    assert.deepEqual(report.problems, [], said.join("\n"));
    assert.ok(report.kills.serve + report.kills.mount >= 4);
    const { files, lines, rows } = report.acknowledged;
    assert.ok(files > 0 && lines > 0 && rows > 0, "every load had something acknowledged");
  },
});
