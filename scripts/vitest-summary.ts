import type { SerializedError } from 'vitest';
import type { Reporter, TestModule } from 'vitest/node';

/** Says at the end which tests were not run, by name: the name holds the reason. Then what failed, and the counts, on a line of their own. */
export default class Summary implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0 };
    const skipped: string[] = [];
    const failed: string[] = [];
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const { state, errors = [] } = test.result();
        if (state === 'pending') continue;
        counts[state] += 1;
        const name = `${module.relativeModuleId}: ${test.fullName}`;
        if (state === 'skipped') skipped.push(name);
        if (state === 'failed') failed.push([name, ...errors.flatMap(said)].join('\n'));
      }
    }
    if (skipped.length > 0) console.log(`\nNot run:\n${skipped.map((name) => `  ${name}`).join('\n')}`);
    for (const error of unhandled) failed.push(`outside of any test: ${said(error).join('\n')}`);
    if (failed.length > 0) console.log(`\nFailed:\n${failed.join('\n')}`);
    console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  }
}

/** An error and its causes. The stack of a test that took too long is that of its definition, and says nothing of the error. */
export function said({ message, stack, cause }: Pick<SerializedError, 'message' | 'stack' | 'cause'>): readonly string[] {
  const self = stack?.includes(message) === true ? stack : [`Error: ${message}`, ...(stack?.split('\n').filter(isFrame) ?? [])].join('\n');
  return [self, ...(isError(cause) ? said(cause).map((one) => `[cause]: ${one}`) : [])];
}

function isFrame(line: string): boolean {
  return /^\s+at /.test(line);
}

function isError(cause: unknown): cause is SerializedError {
  return typeof cause === 'object' && cause !== null && 'message' in cause && typeof cause.message === 'string';
}
