/** What is made at the very first start and never again: a folder that is missing later is a disk that is not mounted. */
import type { Config } from "../core/config/config.ts";
import { FsError, toFsError } from "../core/fs/error.ts";
import { info, makeFolder } from "../core/platform/files.ts";

/** Makes the local tier's folder when there is no index yet. Throws invalid_input when it can't be made. */
export async function prepareFirstStart(config: Config): Promise<void> {
  if (await info(`${config.daemon.stateDir}/index.sqlite`) !== null) return;
  const { path } = config.tiers.local;
  await makeFolder(path).catch((error) => {
    const cause = toFsError(error);
    throw new FsError("invalid_input", `[tiers.local] path ${path} can't be made: ${cause.message}`, {
      operation: "serve",
      path,
      cause,
    });
  });
}
