/** Reads the JUnit report that `deno test --junit-path` writes: what it counts, and what failed why. */

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export interface Failure {
  /** File and name, with the names of the tests a step is in. */
  readonly test: string;
  /** The error with its stack, as the runner prints it. */
  readonly error: string;
}

/**
 * Ignored tests count as skipped. Every step of a test counts as a test; a test that failed only because its steps did is
 * not counted once more.
 */
export function countJunit(xml: string): Counts {
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  for (const { body } of testCases(xml)) {
    if (/<(failure|error)\b/.test(body)) failed++;
    else if (/<skipped\b/.test(body)) skipped++;
    else passed++;
  }
  return { passed, failed, skipped };
}

/** Every failure that `countJunit` counts, in the report's order. */
export function failuresInJunit(xml: string): Failure[] {
  const found: Failure[] = [];
  for (const { attributes, body } of testCases(xml)) {
    const failure = /<(?:failure|error)\b[^>]*?(?:\/>|>([\s\S]*?)<\/(?:failure|error)>)/.exec(body);
    if (failure === null) continue;
    const attribute = (name: string) => unescape(new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "");
    found.push({
      test: `${attribute("classname")}: ${attribute("name")}`,
      error: unescape(failure[1] ?? "").trim(),
    });
  }
  return found;
}

/** The report's tests and steps, without those that failed only because their steps did. */
function* testCases(xml: string): Generator<{ attributes: string; body: string }> {
  for (const match of xml.matchAll(/<testcase\b([^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const body = match[3] ?? "";
    if (/<failure message="\d+ test steps? failed"/.test(body)) continue;
    yield { attributes: match[1] ?? "", body };
  }
}

function unescape(text: string): string {
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&apos;", "'")
    .replaceAll("&amp;", "&");
}
