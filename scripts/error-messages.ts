import { stripVTControlCharacters } from 'node:util';

/** Begins one. */
const header =
  /^\s*(?:outside of any test: |\[cause\]: |Uncaught )*(?:[\w.]*(?:Error|Loss)\b[^:]*: |FATAL ERROR: |(?:FAILED|failed|MISSED|BROKEN) +)\S/;
/** Ends a message. */
const notOfIt = /^\s+at |^\s*(?:passed|found|skipped) |^\s*[{}]?\s*$|^\s*[\u276f\u2713\u00d7]|^\s*\d*\s*\||^\s*\d+: 0x|^\S+\.ts: /;
const linesMax = 3;
/** So that one that shows all it compared leaves room for others. */
const lineMax = 200;

/**
 * What went wrong, of all that a failed program said: the messages of its errors, each once, with the name of the test that stands before it, and without
 * what lies on the stack. The first ones, at most `charactersMax` of them; with none, the last that was said.
 */
export function errorMessages(output: string, charactersMax: number): string {
  const plain = stripVTControlCharacters(output).trimEnd();
  // The summary of the tests says again, in short, what came before.
  const summary = plain.lastIndexOf('\nFailed:\n');
  const lines = (summary === -1 ? plain : plain.slice(summary)).split('\n');
  const messages = new Set<string>();
  lines.forEach((line, at) => {
    if (!header.test(line)) return;
    const end = lines.findIndex((next, index) => index > at && (notOfIt.test(next) || header.test(next)));
    const said = lines.slice(at, Math.min(end === -1 ? lines.length : end, at + linesMax));
    const before = lines[at - 1] ?? '';
    messages.add([...(/\.ts: /.test(before) ? [before] : []), ...said].map((one) => one.trim().slice(0, lineMax)).join('\n'));
  });
  if (messages.size === 0) return plain.slice(-charactersMax);
  return [...messages].join('\n').slice(0, charactersMax);
}
