import { eventually as repeat } from '../../support/eventually.ts';

/** Waits, in real time, for what crosses a real socket. */
export function eventually(expectation: () => void): Promise<true> {
  return repeat('what a test expects', { timeoutMs: 3_000, everyMs: 2 }, () => {
    expectation();
    return true;
  });
}
