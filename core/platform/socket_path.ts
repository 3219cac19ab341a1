/** Unix socket paths that fit: the kernel takes 107 bytes (sun_path, unix(7)), folders of people's caches are longer. */
import { nameByteLength } from "../fs/names.ts";
import { O_DIRECTORY, O_RDONLY, openFd } from "./posix.ts";

/** Longest path that is used as it is, bytes. */
const SUN_PATH_MAX = 107;

const folders = new Map<string, number>();

/**
 * The path, or when it is too long another one for the same socket, by way of a descriptor of its folder that stays open
 * as long as the process lives. Throws not_found when the folder is missing.
 */
export function socketPath(path: string): string {
  if (nameByteLength(path) <= SUN_PATH_MAX) return path;
  const cut = path.lastIndexOf("/");
  const folder = cut <= 0 ? "/" : path.slice(0, cut);
  let fd = folders.get(folder);
  if (fd === undefined) {
    fd = openFd(folder, O_RDONLY | O_DIRECTORY);
    folders.set(folder, fd);
  }
  return `/proc/self/fd/${fd}/${path.slice(cut + 1)}`;
}
