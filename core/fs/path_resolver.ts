/** PathResolver: a path with its symbolic links followed. Backends follow none, so all following happens here. */
import { hasSymlinks } from "./capability.ts";
import type { CallOptions, Fs } from "./contract.ts";
import { Errno, FsError, hasCode } from "./error.ts";
import { child, dirname, isWithin, normalise, split } from "./path.ts";
import { kindOf } from "./stat.ts";

/** Most links followed in one path (linux/namei.h MAXSYMLINKS). */
export const MAX_LINKS = 40;

export interface ResolveOptions extends CallOptions {
  /** Follow a link in the last component too. @default true */
  readonly followLast?: boolean;
}

export interface PathResolver {
  /**
   * The normalised path without links on the way. A component that does not exist ends the search: the rest is returned as
   * it is, and the operation that follows says what is missing. Throws too_many_links (ELOOP) after 40 links, and
   * invalid_input for a link that leads above the root.
   */
  resolve(path: string, options?: ResolveOptions): Promise<string>;
  /** Something changed at or below this path: forget what is remembered of it. */
  forget(path: string): void;
}

/** Follows nothing: for backends without links, where looking for them only costs time. */
export class NoopPathResolver implements PathResolver {
  resolve(path: string): Promise<string> {
    return Promise.resolve(path);
  }
  forget(): void {}
}

/** Component by component, without recursion. */
export class IterativePathResolver implements PathResolver {
  readonly #fs: Fs;

  constructor(fs: Fs) {
    this.#fs = fs;
  }

  /** The target of a link, null for anything else. Overridden by the one that remembers. */
  protected async linkAt(path: string, options: CallOptions): Promise<string | null> {
    const fs = this.#fs;
    if (!hasSymlinks(fs)) return null;
    try {
      const stat = await fs.stat(path, options);
      return kindOf(stat.mode) === "symlink" ? await fs.readLink(path, options) : null;
    } catch (error) {
      if (hasCode(error, "not_found") || hasCode(error, "not_a_directory")) return null;
      throw error;
    }
  }

  async resolve(path: string, options: ResolveOptions = {}): Promise<string> {
    const call: CallOptions = options.signal === undefined ? {} : { signal: options.signal };
    let followed = 0;
    let at = "/";
    // Names still to walk, the next one last. Here `..` is met only in link targets, where it means the real parent.
    const rest = split(path).reverse();
    while (rest.length > 0) {
      const name = rest.pop();
      if (name === undefined || name === "" || name === ".") continue;
      if (name === "..") {
        if (at === "/") {
          throw new FsError("invalid_input", `${path}: a symbolic link on the way leads above the root`, { path });
        }
        at = dirname(at);
        continue;
      }
      const here = child(at, name);
      const last = rest.length === 0;
      const target = last && options.followLast === false ? null : await this.linkAt(here, call);
      if (target === null) {
        at = here;
        continue;
      }
      if (++followed > MAX_LINKS) {
        throw new FsError("too_many_links", `${path}: more than ${MAX_LINKS} symbolic links, perhaps a loop`, {
          path,
          limit: MAX_LINKS,
          errno: Errno.ELOOP,
        });
      }
      if (target.startsWith("/")) at = "/";
      for (const part of target.split("/").reverse()) rest.push(part);
    }
    return normalise(at);
  }

  forget(_path: string): void {}
}

/**
 * As the iterative one, remembering which of the last `limit` paths are links. For stores that change only through the
 * FileStorage that owns this resolver: changes by others are seen only after `forget`.
 */
export class CachingPathResolver extends IterativePathResolver {
  readonly #links = new Map<string, string | null>();
  readonly #limit: number;

  /** @param limit paths remembered, 1 or more */
  constructor(fs: Fs, limit = 10_000) {
    super(fs);
    this.#limit = limit;
  }

  protected override async linkAt(path: string, options: CallOptions): Promise<string | null> {
    const known = this.#links.get(path);
    if (known !== undefined) {
      // The least recently used is the first of the map.
      this.#links.delete(path);
      this.#links.set(path, known);
      return known;
    }
    const target = await super.linkAt(path, options);
    this.#links.set(path, target);
    if (this.#links.size > this.#limit) {
      const oldest = this.#links.keys().next();
      if (!oldest.done) this.#links.delete(oldest.value);
    }
    return target;
  }

  override forget(path: string): void {
    for (const known of this.#links.keys()) if (isWithin(known, path)) this.#links.delete(known);
  }
}
