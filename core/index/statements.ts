/** Prepared statements of one database, each prepared once, rows as arrays. */
import type { Database, SqlValue, Statement } from "../platform/sqlite.ts";

export type Row = readonly SqlValue[];

export class Statements {
  readonly #db: Database;
  readonly #prepared = new Map<string, Statement>();
  /** Statements that may have changed something. */
  writes = 0;

  constructor(db: Database) {
    this.#db = db;
  }

  #statement(text: string): Statement {
    let statement = this.#prepared.get(text);
    if (statement === undefined) {
      statement = this.#db.prepare(text);
      (statement as Statement & { setReturnArrays(on: boolean): void }).setReturnArrays(true);
      this.#prepared.set(text, statement);
    }
    return statement;
  }

  /** The first row, or undefined. */
  row(text: string, ...values: SqlValue[]): Row | undefined {
    return this.#statement(text).get(...values) as Row | undefined;
  }
  rows(text: string, ...values: SqlValue[]): Row[] {
    return this.#statement(text).all(...values) as unknown as Row[];
  }
  /** Runs it; returns how many rows it changed. */
  run(text: string, ...values: SqlValue[]): number {
    this.writes++;
    return Number(this.#statement(text).run(...values).changes);
  }
  /** Runs an INSERT that may not conflict; returns its rowid. Never use it with ON CONFLICT: the id would be another row's. */
  insert(text: string, ...values: SqlValue[]): number {
    this.writes++;
    return Number(this.#statement(text).run(...values).lastInsertRowid);
  }
  exec(text: string): void {
    this.#db.exec(text);
  }
  /** Takes back all since the savepoint and ends it. SQLite may have rolled back everything by itself already. */
  undo(savepoint: string): void {
    if (!this.#db.isTransaction) return;
    this.#db.exec(`ROLLBACK TO ${savepoint}`);
    this.#db.exec(`RELEASE ${savepoint}`);
  }
}
