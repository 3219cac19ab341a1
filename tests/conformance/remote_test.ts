/** A server's tree over HTTP passes the suite. */
import { openRemoteBackend, REMOTE_TRAITS } from "../../core/remote/remote_backend.ts";
import { startTempServer } from "../../core/remote/testing/temp_core.ts";
import { systemClock } from "../../core/platform/clock.ts";
import { testBackend } from "./backend.ts";

testBackend("remote", () =>
  Promise.resolve({
    traits: REMOTE_TRAITS,
    // Three pages and a bit: each entry is a durable request of its own.
    manyEntries: 3100,
    async open() {
      const server = await startTempServer();
      const fs = openRemoteBackend({ url: server.url, token: null, clock: systemClock });
      return {
        fs,
        async dispose() {
          await fs.close();
          await server[Symbol.asyncDispose]();
        },
      };
    },
  }));
