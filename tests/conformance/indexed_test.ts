/** The filesystem made of index, chunks and tiers passes the suite. */
import { CoreHouse } from "../support/core_house.ts";
import { testBackend } from "./backend.ts";

async function open() {
  const house = new CoreHouse();
  const { fs } = await house.open();
  return { fs, dispose: () => house[Symbol.asyncDispose]() };
}

testBackend("indexed", async () => {
  const { fs, dispose } = await open();
  await dispose();
  return { traits: fs.traits, open };
});
