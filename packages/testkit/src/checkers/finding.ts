/** Something a correct system could not have done. */
export interface Finding {
  /** The rule that is broken: one of a few fixed words per checker. */
  readonly rule: string;
  /** What happened, in a sentence, with the numbers. */
  readonly what: string;
  /** The smallest part of the history that shows it, one line each. */
  readonly context: readonly string[];
}

/** How a finding is shown to people. */
export function showFinding({ rule, what, context }: Finding): string {
  return [`[${rule}] ${what}`, ...context.map((line) => `    ${line}`)].join('\n');
}

/** Throws an error that shows all findings, if there are any: for tests. */
export function assertNoFindings(findings: readonly Finding[]): void {
  if (findings.length === 0) return;
  const shown = findings.slice(0, 10).map(showFinding).join('\n');
  throw new Error(`${findings.length} finding(s)\n${shown}${findings.length > 10 ? '\n...' : ''}`);
}
