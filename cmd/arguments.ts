/** Values of arguments and options: sizes, times, rates, counts, paths in the tree. */
import { InvalidArgumentError } from "commander";
import { FsError } from "../core/fs/error.ts";
import { normalise } from "../core/fs/path.ts";
import { parseDuration, parseRate, parseSize } from "../core/config/units.ts";

/** What marks a path of the tree where a local path could be meant too. */
const TREE_PREFIX = "anyfs:";

function checked<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof FsError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

/** Bytes. */
export const sizeArgument = checked(parseSize);
/** Milliseconds. */
export const durationArgument = checked(parseDuration);
/** Bytes a second; null: no limit. */
export const rateArgument = checked(parseRate);

/** A whole number from 1 on. */
export function countArgument(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) {
    throw new InvalidArgumentError(`${JSON.stringify(text)} is not a whole number from 1 on`);
  }
  return Number(text);
}

/**
 * As `treePath`, where no option or argument of commander's is parsed. `..` is taken by its letters, `/a/../b` is `/b`, and
 * never leads above the root: a path that does was not meant so. Throws FsError `invalid_input`, `name_too_long`.
 */
export function parseTreePath(text: string): string {
  const path = text.startsWith(TREE_PREFIX) ? text.slice(TREE_PREFIX.length) : text;
  if (!path.startsWith("/")) {
    throw new FsError(
      "invalid_input",
      `${JSON.stringify(text)} is not a path in the tree; such paths begin with a slash, for example /photos`,
      { path: text },
    );
  }
  return normalise(path);
}

/** A path in the tree, `/photos` or `anyfs:/photos`, without `.`, `..`, doubled slashes and one at the end. */
export const treePath = checked(parseTreePath);

/** One of several such paths. */
export function treePaths(text: string, before: readonly string[] | undefined): string[] {
  return [...before ?? [], treePath(text)];
}

/** A path where both kinds may be meant: only `anyfs:/x` is one of the tree. */
export type Place = { readonly kind: "tree"; readonly path: string } | {
  readonly kind: "local";
  readonly path: string;
};

export function placeArgument(text: string): Place {
  if (text.startsWith(TREE_PREFIX)) return { kind: "tree", path: treePath(text) };
  if (text === "") throw new InvalidArgumentError("the path is empty");
  return { kind: "local", path: text };
}
