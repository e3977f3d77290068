/** What a request asks of the revision that answers it: a digest that begins so, or a step at least so new. */
export type Expectation = { kind: 'revision'; prefix: string } | { kind: 'min_step'; step: number };

/** As the header says it. */
const TEXT = /^(?:revision=(?:sha256:)?([0-9a-f]{6,64})|min_step=(\d{1,15}))$/;

/** Null where the text says none. */
export function parseExpectation(text: string): Expectation | null {
  const [, prefix, step] = TEXT.exec(text) ?? [];
  if (prefix !== undefined) return { kind: 'revision', prefix };
  return step === undefined ? null : { kind: 'min_step', step: Number(step) };
}

export function expectationText(expectation: Expectation): string {
  return expectation.kind === 'revision' ? `revision=${expectation.prefix}` : `min_step=${expectation.step}`;
}

/** A revision whose step nobody said is older than any. */
export function meetsExpectation(
  { digest, step }: { digest: string; step: number | null },
  expectation: Expectation,
): boolean {
  return expectation.kind === 'revision'
    ? digest.startsWith(`sha256:${expectation.prefix}`)
    : step !== null && step >= expectation.step;
}
