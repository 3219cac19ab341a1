/** HotFiles: descriptors of packs on the hot tier, the last used kept open, read on another thread. */
import { FsError } from "../fs/error.ts";
import { missingObject, shortObject } from "../fs/object_store.ts";
import { Fd } from "../platform/dir.ts";
import { O_RDONLY, openFd, preadFdAsync } from "../platform/posix.ts";
import { packKey } from "../store/open_pack.ts";

interface Open {
  readonly fd: Fd;
  readers: number;
  /** Close it with the last reader. */
  dropped: boolean;
}

export class HotFiles {
  readonly #folder: string;
  readonly #limit: number;
  readonly #open = new Map<string, Open>();

  /** `limit`: descriptors kept open while nobody reads. */
  constructor(folder: string, limit = 128) {
    this.#folder = folder;
    this.#limit = limit;
  }

  /** Exactly these bytes of the pack called `name`. Throws not_found; corrupt when the file is shorter. */
  async read(name: string, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const file = this.#use(name);
    file.readers++;
    try {
      const bytes = new Uint8Array(length);
      const got = await preadFdAsync(file.fd.number, bytes, offset);
      if (got < length) throw shortObject(packKey(name), offset + got, offset + length);
      return bytes;
    } finally {
      file.readers--;
      if (file.dropped && file.readers === 0) file.fd[Symbol.dispose]();
    }
  }

  #use(name: string): Open {
    const found = this.#open.get(name);
    if (found !== undefined) {
      this.#open.delete(name);
      this.#open.set(name, found);
      return found;
    }
    const made = { fd: this.#openFile(name), readers: 0, dropped: false };
    this.#open.set(name, made);
    if (this.#open.size > this.#limit) {
      const oldest = this.#open.keys().next().value;
      if (oldest !== undefined) this.forget(oldest);
    }
    return made;
  }
  #openFile(name: string): Fd {
    try {
      return new Fd(openFd(`${this.#folder}/${packKey(name)}`, O_RDONLY));
    } catch (error) {
      if (error instanceof FsError && error.code === "not_found") throw missingObject(packKey(name), this.#folder);
      throw error;
    }
  }

  /** The file was removed or replaced. */
  forget(name: string): void {
    const file = this.#open.get(name);
    if (file === undefined) return;
    this.#open.delete(name);
    file.dropped = true;
    if (file.readers === 0) file.fd[Symbol.dispose]();
  }

  close(): void {
    for (const name of [...this.#open.keys()]) this.forget(name);
  }
}
