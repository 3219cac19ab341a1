/** docs/semantics.md: its examples are run on two real mounts of one server, and must print what the page shows. */
import assert from "node:assert/strict";
import { mountObstacle, run } from "../support/mount_child.ts";
import { MountHouse } from "./mount_house.ts";

const PAGE = new URL("../../docs/semantics.md", import.meta.url);
const obstacle = mountObstacle();

/** A command and the lines the page shows under it. */
interface Shown {
  readonly command: string;
  readonly output: string;
}
/** The fenced `console` blocks: lines that begin with `$ ` are commands, the lines after one its output. */
function examples(page: string): { heading: string; shown: Shown[] }[] {
  const out: { heading: string; shown: Shown[] }[] = [];
  let heading = "";
  let block: { command: string; output: string }[] | null = null;
  for (const line of page.split("\n")) {
    if (block !== null && line === "```") {
      out.push({ heading, shown: block });
      block = null;
    } else if (block !== null) {
      if (line.startsWith("$ ")) block.push({ command: line.slice(2), output: "" });
      else {
        const last = block.at(-1);
        assert.ok(last, `output before the first command: ${line}`);
        last.output += `${line}\n`;
      }
    } else if (line === "```console") block = [];
    else if (line.startsWith("## ")) heading = line.slice(3);
  }
  assert.equal(block, null, "the last block is not closed");
  return out;
}

Deno.test("examples are found with their outputs", () => {
  assert.deepEqual(examples("## H\n```console\n$ a\n1\n2\n$ b\n```\n```sh\n$ c\n```\n"), [
    { heading: "H", shown: [{ command: "a", output: "1\n2\n" }, { command: "b", output: "" }] },
  ]);
});

Deno.test({
  name: `docs/semantics.md shows what a mount does${obstacle === null ? "" : ` (skipped: ${obstacle})`}`,
  ignore: obstacle !== null,
  async fn(t) {
    const found = examples(await Deno.readTextFile(PAGE));
    assert.ok(found.length >= 5, "the page has examples");
    await using house = new MountHouse(120_000);
    await house.serve();
    const [a, b] = [await house.mount("a"), await house.mount("b")];
    for (const [i, { heading, shown }] of found.entries()) {
      await t.step(`${heading} ${i + 1}`, async () => {
        await run("mkdir", [`${a}/${i}`]);
        await run("bash", ["-c", `for n in $(seq 200); do [ -d "$0" ] && exit; sleep 0.05; done`, `${b}/${i}`]);
        // One shell runs the block; a line that no command prints ends each command's output.
        const end = "-- end of output --";
        const script = shown.map(({ command }) => `${command}\necho; echo '${end}'`).join("\n");
        const ran = await run("timeout", [
          "40",
          "env",
          "LC_ALL=C",
          `A=${a}/${i}`,
          `B=${b}/${i}`,
          "bash",
          "-c",
          `exec 2>&1; cd "$A"\n${script}`,
        ]);
        const outputs = ran.out.split(`\n${end}\n`);
        assert.equal(outputs.length, shown.length + 1, `${ran.out}\n${ran.err}`);
        for (const [n, { command, output }] of shown.entries()) {
          // Commands that print no newline at the end are shown with one.
          const printed = (outputs[n] ?? "").replace(/\n?$/, outputs[n] === "" ? "" : "\n");
          assert.equal(printed, output, `$ ${command}`);
        }
      });
    }
  },
});
