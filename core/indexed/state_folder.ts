/** StateFolder: the folder that holds the index, used by one server at a time. */
import { FsError, toFsError } from "../fs/error.ts";
import { Fd } from "../platform/dir.ts";
import { makeFolder, readTextNow, removeTree } from "../platform/files.ts";
import { ftruncateFd, O_CREAT, O_RDWR, openFd, pwriteFd, tryLockFd } from "../platform/posix.ts";
import { pid } from "../platform/process.ts";

export interface StateFolder extends Disposable {
  readonly path: string;
  readonly indexPath: string;
  /** Sparse files of writes under way; emptied at each start. */
  readonly stagingFolder: string;
}

/**
 * Opens (creates) the folder, takes its lock and removes what an earlier run left over.
 * Throws unavailable when another process has it or when it can't be written.
 */
export async function openStateFolder(path: string): Promise<StateFolder> {
  const folder = path.replace(/\/+$/, "") || "/";
  let fd: Fd;
  try {
    await makeFolder(folder);
    fd = new Fd(openFd(`${folder}/lock`, O_RDWR | O_CREAT));
  } catch (error) {
    const cause = toFsError(error);
    throw new FsError(
      "unavailable",
      `the state folder ${folder} can't be used: ${cause.message}; make it writable for this user or configure another one`,
      { operation: "open", path: folder, cause },
    );
  }
  try {
    if (!tryLockFd(fd.number)) {
      const holder = readTextNow(`${folder}/lock`)?.trim() || "another process";
      throw new FsError(
        "unavailable",
        `the state folder ${folder} is in use by process ${holder}: only one server may use it; stop that one first`,
        { operation: "open", path: folder },
      );
    }
    try {
      const text = new TextEncoder().encode(`${pid()}\n`);
      ftruncateFd(fd.number, 0);
      pwriteFd(fd.number, text, 0);
      const stagingFolder = `${folder}/staging`;
      await removeTree(stagingFolder);
      await makeFolder(stagingFolder);
    } catch (error) {
      const cause = toFsError(error);
      throw new FsError(cause.code, `the state folder ${folder} can't be written: ${cause.message}`, {
        ...cause.details,
        cause,
      });
    }
  } catch (error) {
    fd[Symbol.dispose]();
    throw error;
  }
  return {
    path: folder,
    indexPath: `${folder}/index.sqlite`,
    stagingFolder: `${folder}/staging`,
    [Symbol.dispose]: () => fd[Symbol.dispose](),
  };
}
