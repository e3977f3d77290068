import { beforeEach, describe, expect, it } from 'vitest';
import type { Clock } from '../../../operator/kube/clock.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { bearerOf, TokenAuth } from '../../../operator/push/auth.ts';
import { VerdictCache } from '../../../operator/push/verdict-cache.ts';
import { FakeReviews, TOKENS } from './fake-reviews.ts';

let nowMs: number;
let reviews: FakeReviews;
let auth: TokenAuth;
const clock: Clock = { monotonicMs: () => nowMs, date: () => new Date(), after: () => () => undefined };
const sql = { namespace: 'team-a', name: 'sql', verb: 'update' } as const;
const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'ok',
    (error) => error.code,
  );

beforeEach(() => {
  nowMs = 0;
  reviews = new FakeReviews();
  auth = new TokenAuth({ rest: reviews, audience: 'lorikeet-push', log: silentLog, clock });
});

describe('the verdict on a caller', () => {
  it('is remembered for a minute when it is good', async () => {
    await auth.allow(TOKENS.trainer, sql);
    nowMs = 59_999;
    await auth.allow(TOKENS.trainer, sql);
    expect(reviews.asked).toHaveLength(2);
    nowMs = 60_000;
    await auth.allow(TOKENS.trainer, sql);
    expect(reviews.asked).toHaveLength(4);
  });

  it('is remembered for five seconds when it is bad', async () => {
    for (const at of [0, 4_999]) {
      nowMs = at;
      expect(await code(auth.allow(TOKENS.expired, sql))).toBe('unauthenticated');
      expect(await code(auth.allow(TOKENS.otherNamespace, sql))).toBe('forbidden');
    }
    expect(reviews.asked).toHaveLength(3);
    nowMs = 5_000;
    await code(auth.allow(TOKENS.expired, sql));
    await code(auth.allow(TOKENS.otherNamespace, sql));
    expect(reviews.asked).toHaveLength(5);
  });

  it('is about one adapter and one verb', async () => {
    await auth.allow(TOKENS.trainer, sql);
    await auth.allow(TOKENS.trainer, { ...sql, verb: 'get' });
    await auth.allow(TOKENS.trainer, { ...sql, name: 'other' });
    expect(await code(auth.allow(TOKENS.trainer, { ...sql, namespace: 'team-b' }))).toBe('forbidden');
    expect(reviews.asked.map(({ kind }) => kind)).toEqual([
      'TokenReview',
      ...Array(4).fill('SubjectAccessReview'),
    ]);
  });

  it('is asked for once by many at a time, and not remembered when nobody answered', async () => {
    reviews.down = true;
    expect(await code(auth.allow(TOKENS.trainer, sql))).toBe('timeout');
    reviews.down = false;
    reviews.holdMs = 10;
    await Promise.all(Array.from({ length: 20 }, () => auth.allow(TOKENS.trainer, sql)));
    expect(reviews.asked.map(({ kind }) => kind)).toEqual([
      'TokenReview',
      'TokenReview',
      'SubjectAccessReview',
    ]);
  });

  it('is not asked for without end', async () => {
    reviews.holdMs = 20;
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) => code(auth.allow(`wrong-${index}`, sql))),
    );
    expect(answers.filter((answer) => answer === 'too_many_requests')).toHaveLength(18);
    expect(reviews.asked).toHaveLength(32);
  });

  it('on a good token outlives a flood of bad ones', async () => {
    const cache = new VerdictCache<string>(
      { positiveMs: 100, negativeMs: 100, entriesMax: 10, pendingMax: 5 },
      clock,
    );
    await cache.get('good', async () => 'yes');
    for (let index = 0; index < 100; index += 1) await cache.get(`bad-${index}`, async () => null);
    expect(await cache.get('good', async () => null)).toBe('yes');
    for (let index = 0; index < 10; index += 1) await cache.get(`good-${index}`, async () => 'yes');
    expect(await cache.get('good', async () => null)).toBe(null);
  });
});

describe('the header', () => {
  it.each([
    ['Bearer abc.def-ghi_~+/==', 'abc.def-ghi_~+/=='],
    ['bearer abc', 'abc'],
    ['Bearer', null],
    ['Bearer ', null],
    ['Bearer a b', null],
    ['Bearer a\u00e9', null],
    ['Basic abc', null],
    [undefined, null],
  ])('%j holds the token %j', (header, token) => {
    expect(bearerOf(header)).toBe(token);
  });
});
