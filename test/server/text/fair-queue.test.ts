import { describe, expect, it } from 'vitest';
import { FairQueue } from '../../../server/text/fair-queue.ts';

/** A queue that holds so many, of items whose first letter is their client. */
function queue(itemsMax: number, items: string[] = []) {
  const fair = new FairQueue<string>(itemsMax);
  const push = (item: string) => fair.push(item.charAt(0), item);
  const refused = items.map(push);
  const drain = () => {
    const drained: string[] = [];
    while (!fair.isEmpty) drained.push(fair.shift() as string);
    return drained;
  };
  return { fair, push, refused, drain };
}

describe('a fair queue', () => {
  it('gives clients turns, and each its items in order', () => {
    const { drain } = queue(8, ['a1', 'a2', 'a3', 'b1', 'b2', 'c1']);
    expect(drain()).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3']);
  });

  it('gives who has just had a turn the last one', () => {
    const { fair, push, drain } = queue(8, ['a1', 'b1', 'a2']);
    expect(fair.shift()).toBe('a1');
    push('c1');
    expect(drain()).toEqual(['b1', 'a2', 'c1']);
  });

  it('forgets what has left', () => {
    const { fair, drain } = queue(8, ['a1', 'a2', 'b1']);
    fair.remove('b', 'b1');
    fair.remove('a', 'a1');
    fair.remove('a', 'never there');
    fair.remove('d', 'd1');
    expect(drain()).toEqual(['a2']);
    expect(fair.shift()).toBeUndefined();
  });

  it('hands all out at once', () => {
    const { fair } = queue(8, ['a1', 'b1', 'a2']);
    expect(fair.clear()).toEqual(['a1', 'a2', 'b1']);
    expect(fair.isEmpty).toBe(true);
  });

  it.each([
    ['the newcomer of who has the most', 3, ['a1', 'a2', 'a3', 'a4'], 'a4', ['a1', 'a2', 'a3']],
    ['the last of who has the most', 3, ['a1', 'a2', 'a3', 'b1'], 'a3', ['a1', 'b1', 'a2']],
    ['the newcomer where all have one', 2, ['a1', 'b1', 'c1'], 'c1', ['a1', 'b1']],
    ['the newcomer of who would have the most', 3, ['a1', 'a2', 'b1', 'b2'], 'b2', ['a1', 'b1', 'a2']],
  ])('refuses %s', (_, itemsMax, items, dropped, kept) => {
    const { refused, drain } = queue(itemsMax, items);
    expect(refused).toEqual([...Array(items.length - 1).fill(undefined), dropped]);
    expect(drain()).toEqual(kept);
  });

  it('takes as many again as have gone', () => {
    const { fair, push, drain } = queue(2, ['a1', 'a2']);
    fair.shift();
    expect([push('a3'), push('a4')]).toEqual([undefined, 'a4']);
    fair.remove('a', 'a2');
    expect([push('a5'), push('b1')]).toEqual([undefined, 'a5']);
    expect(drain()).toEqual(['a3', 'b1']);
  });
});
