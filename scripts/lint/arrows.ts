/** Which part of the project may import which: docs/architecture's arrows as a table. */

export interface Part {
  readonly name: string;
  /** Which files belong to it; the first part of the table that matches counts. */
  readonly files: RegExp;
  /** Names of the parts it may import; its own always. */
  readonly mayImport: readonly string[];
}

/** Tests beside the code and everything under tests/ and scripts/ may import what they exercise. */
export const FREE = /(_test\.ts$)|(^(tests|scripts)\/)|(\/testing\/)/;

export const PARTS: readonly Part[] = [
  { name: "main", files: /^main\.ts$/, mayImport: ["cmd", "core", "platform"] },
  {
    name: "cmd/mount",
    files: /^cmd\/(mount|unmount|serve|doctor|sync|migrate)(\.ts$|\/|_)/,
    mayImport: ["cmd", "core", "contract", "platform", "backends", "fuse"],
  },
  { name: "cmd", files: /^cmd\//, mayImport: ["cmd/mount", "core", "contract", "platform", "backends"] },
  { name: "contract", files: /^core\/fs\//, mayImport: [] },
  { name: "platform", files: /^core\/platform\//, mayImport: ["contract"] },
  { name: "core", files: /^core\//, mayImport: ["contract", "platform"] },
  { name: "backends", files: /^backends\//, mayImport: ["contract", "platform"] },
  { name: "fuse", files: /^fuse\//, mayImport: ["contract", "platform"] },
];

export function partOf(file: string): Part | undefined {
  return PARTS.find((part) => part.files.test(file));
}
