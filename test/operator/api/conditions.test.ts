import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AdapterConditionType,
  type Condition,
  type ConditionUpdate,
  findCondition,
  MESSAGE_LENGTH_MAX,
  REASONS,
  setCondition,
  truncateMessage,
} from '../../../operator/api/conditions.ts';

const EARLY = new Date('2026-06-01T10:00:00.123Z');
const LATE = new Date('2026-06-01T11:00:00.456Z');

function update(
  overrides: Partial<ConditionUpdate<AdapterConditionType>> = {},
): ConditionUpdate<AdapterConditionType> {
  return {
    type: 'Ready',
    status: 'False',
    reason: 'NotLoaded',
    observedGeneration: 1,
    now: EARLY,
    ...overrides,
  };
}

describe('setCondition', () => {
  const before: Condition<AdapterConditionType>[] = setCondition<AdapterConditionType>([], update());

  it('adds a condition with the sentence of its reason', () => {
    expect(before).toEqual([
      {
        type: 'Ready',
        status: 'False',
        reason: 'NotLoaded',
        message: REASONS.NotLoaded,
        lastTransitionTime: '2026-06-01T10:00:00Z',
        observedGeneration: 1,
      },
    ]);
  });

  it('keeps the time of transition while the status stays, whatever else changes', () => {
    const after = setCondition(
      before,
      update({ now: LATE, reason: 'Pending', message: 'x', observedGeneration: 2 }),
    );
    expect(after).toMatchObject([
      { reason: 'Pending', message: 'x', observedGeneration: 2, lastTransitionTime: '2026-06-01T10:00:00Z' },
    ]);
  });

  it('moves the time of transition when the status changes', () => {
    const after = setCondition(before, update({ now: LATE, status: 'True', reason: 'Ready' }));
    expect(after).toMatchObject([{ status: 'True', lastTransitionTime: '2026-06-01T11:00:00Z' }]);
  });

  it('leaves the others and their order alone, and the list that it was given', () => {
    const both = setCondition(before, update({ type: 'Placed', status: 'True', reason: 'Placed' }));
    const after = setCondition(both, update({ now: LATE, status: 'True', reason: 'Ready' }));
    expect(after.map(({ type }) => type)).toEqual(['Ready', 'Placed']);
    expect(findCondition(after, 'Placed')).toBe(both[1]);
    expect(before).toHaveLength(1);
  });
});

describe('truncateMessage', () => {
  it('never makes a message that the schema refuses, nor half a character', () => {
    const texts = fc.string({ unit: 'grapheme', minLength: 120, maxLength: 600 });
    const faces = fc.nat(600).map((length) => `${'a'.repeat(length % 2)}${'😀'.repeat(length)}`);
    fc.assert(
      fc.property(fc.oneof(texts, faces), (message) => {
        const cut = truncateMessage(message);
        expect(cut.length).toBeLessThanOrEqual(MESSAGE_LENGTH_MAX);
        expect(cut.isWellFormed()).toBe(true);
        if (message.length <= MESSAGE_LENGTH_MAX) expect(cut).toBe(message);
      }),
    );
  });
});

describe('REASONS', () => {
  it('are words with a sentence that fits into a message', () => {
    for (const [reason, sentence] of Object.entries(REASONS)) {
      expect(reason).toMatch(/^[A-Z][A-Za-z]{1,63}$/);
      expect(sentence).toMatch(/^[A-Z].*\.$/);
      expect(sentence.length).toBeLessThanOrEqual(MESSAGE_LENGTH_MAX);
    }
  });
});
