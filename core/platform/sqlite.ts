/** SQLite databases (node:sqlite). */
import { DatabaseSync, type StatementSync } from "node:sqlite";

export type SqlValue = null | number | bigint | string | Uint8Array;
export type Database = DatabaseSync;
export type Statement = StatementSync;

/** Opens (creates) a database; `:memory:` works. The caller sets its pragmas. */
export function openDatabase(path: string, options: { readOnly?: boolean } = {}): Database {
  return new DatabaseSync(path, { readOnly: options.readOnly ?? false, enableForeignKeyConstraints: true });
}
