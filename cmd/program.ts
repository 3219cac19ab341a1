/** Stub. */
export function run(_a: readonly string[]): Promise<number> {
  return Promise.resolve(0);
}
