import { describe, expect, it } from 'vitest';
import type { LoraAdapter } from '../../../operator/api/lora-adapter.ts';
import { pushersOf } from '../../../operator/cli/account.ts';
import { adapterLoads, podLoad } from '../../../operator/cli/load.ts';
import { parseMetrics } from '../../../operator/cli/metrics-text.ts';
import { Progress } from '../../../operator/cli/progress.ts';
import { findRevision } from '../../../operator/cli/revision.ts';
import { rolloutState } from '../../../operator/cli/rollout-state.ts';
import { selectorText } from '../../../operator/cli/selector.ts';
import { Terminal } from './terminal.ts';

const digest = (digit: string) => `sha256:${digit.repeat(64)}`;
const record = (digit: string, step: number | null = null) => ({
  digest: digest(digit),
  short: digit.repeat(12),
  step,
  bytes: 100,
  rank: 8,
  targetModules: ['q_proj'],
  at: '2026-06-10T11:00:00Z',
});

function adapter(
  ready: object | null,
  status: object = {},
  spec: object = {},
  metadata: object = {},
): LoraAdapter {
  const condition = {
    type: 'Ready',
    status: 'False',
    reason: 'NotLoaded',
    message: 'm',
    observedGeneration: 2,
    ...ready,
  };
  return {
    metadata: { name: 'sql', namespace: 'models', generation: 2, ...metadata },
    spec: { poolRef: { name: 'parrot' }, source: { push: {} }, update: {}, ...spec },
    status: { conditions: ready === null ? [] : [condition], ...status },
  } as unknown as LoraAdapter;
}

const served = { desiredRevision: record('a'), pods: { desired: 2, staged: 2, ready: 2, summary: '2/2' } };
const READY = { status: 'True', reason: 'Ready' };

describe('a rollout', () => {
  it.each([
    ['has not begun where the operator has seen nothing', adapter(null), 'going'],
    [
      'has not begun where the operator has seen an older spec',
      adapter({ ...READY, observedGeneration: 1 }, served),
      'going',
    ],
    ['is done where every pod serves what is desired', adapter(READY, served), 'done'],
    ['goes on while pods load', adapter({}, served), 'going'],
    [
      'goes on while the spec names another revision',
      adapter(READY, served, { update: { revision: digest('b') } }),
      'going',
    ],
    ['has failed where only somebody can help', adapter({ reason: 'AdapterIncompatible' }, served), 'failed'],
    ['has failed where it is suspended', adapter({ reason: 'Suspended' }, served), 'failed'],
    ['has failed where the adapter goes', adapter(READY, served, {}, { deletionTimestamp: 'x' }), 'failed'],
  ])('%s', (_name, object, state) => {
    expect(rolloutState(object).state).toBe(state);
  });
});

describe('a revision', () => {
  const object = adapter(READY, { desiredRevision: record('a', 12), previousRevisions: [record('b', 1234)] });

  it.each([
    ['aaaa', 'a'],
    [digest('a'), 'a'],
    ['BBBB', 'b'],
    ['step-12', 'a'],
    ['1234', 'b'],
  ])('%s is found', (text, digit) => {
    expect(findRevision(object, text).digest).toBe(digest(digit));
  });

  it.each(['cccc', 'step-9', 'aaa', 'zzzz', ''])(
    '"%s" is not, and those that there are are named',
    (text) => {
      expect(() => findRevision(object, text)).toThrow(
        expect.objectContaining({ exit: 1, todo: expect.stringContaining('bbbbbbbbbbbb (step 1234)') }),
      );
    },
  );

  it('of which several begin so is not guessed', () => {
    const [one, two] = [record('a'), { ...record('a'), digest: `sha256:${'a'.repeat(63)}b` }];
    const both = adapter(READY, { desiredRevision: one, previousRevisions: [two] });
    expect(() => findRevision(both, 'aaaa')).toThrow('several');
  });
});

describe('the load of pods', () => {
  const scrapeText = (tokens: number, sqlPrompt: number) => `
# HELP lorikeet_generated_tokens_total Tokens generated.
lorikeet_generated_tokens_total ${tokens}
vllm:num_requests_running{engine="0",model_name="parrot"} 3
vllm:prefix_cache_queries_total{engine="0",model_name="parrot"} ${sqlPrompt}
lorikeet_slots{engine="0",model_name="parrot"} 8
lorikeet_slots_used{engine="0",model_name="parrot"} 2
lorikeet_prefix_cache_queries_total{adapter="sql"} ${sqlPrompt}
lorikeet_prefix_cache_hits_total{adapter="sql"} 5
lorikeet_prefix_cache_queries_total{adapter=""} 7
vllm:lora_adapter_loaded{engine="0",adapter_name="sql",level="gpu"} 1
vllm:lora_adapter_loaded{engine="0",adapter_name="a \\"b\\"",level="cpu"} 1
`;
  const scrapes = (first: string, second: string) => ({
    ...{ pod: 'p', pool: 'models/parrot', seconds: 2, state: null },
    ...{ first: parseMetrics(first), second: parseMetrics(second) },
  });

  it('is what grew between two readings, by the second', () => {
    const load = podLoad(scrapes(scrapeText(100, 10), scrapeText(150, 20)));
    expect(load).toMatchObject({
      promptTokensPerSecond: 5,
      tokensPerSecond: 25,
      running: 3,
      waiting: null,
      slots: { used: 2, total: 8 },
    });
  });

  it('counts from zero where the process is another', () => {
    expect(podLoad(scrapes(scrapeText(100, 10), scrapeText(10, 20))).tokensPerSecond).toBe(5);
  });

  it('is told by adapter, over all pods, the busiest first', () => {
    const one = scrapes(scrapeText(0, 10), scrapeText(0, 20));
    const loads = adapterLoads([one, { ...one, pod: 'q' }]);
    expect(loads.map(({ servedName }) => servedName)).toEqual(['sql', '', 'a "b"']);
    expect(loads[0]).toMatchObject({
      promptTokensPerSecond: 10,
      pods: 2,
      inSlots: 2,
      prefixHits: 0.25,
      requestsPerMinute: null,
    });
  });
});

it('the accounts that may push are those of bindings to a pusher role', () => {
  const binding = (role: string, subjects: object[]) => ({
    ...{ apiVersion: 'v1', kind: 'RoleBinding', metadata: { name: 'x', namespace: 'models' } },
    ...{ roleRef: { kind: 'ClusterRole', name: role }, subjects: subjects as never },
  });
  const trainer = { kind: 'ServiceAccount', name: 'trainer' };
  const found = pushersOf([
    binding('lorikeet-pusher', [trainer, { kind: 'User', name: 'jane' }]),
    binding('my-lorikeet-pusher', [
      { ...trainer, namespace: 'models' },
      { ...trainer, namespace: 'other' },
    ]),
    binding('edit', [{ kind: 'ServiceAccount', name: 'deployer' }]),
  ]);
  expect(found).toEqual([
    { namespace: 'models', name: 'trainer' },
    { namespace: 'other', name: 'trainer' },
  ]);
});

it('a selector is written as the API server reads it', () => {
  const matchExpressions = [
    { key: 'a', operator: 'In' as const, values: ['1', '2'] },
    { key: 'b', operator: 'NotIn' as const, values: ['3'] },
    { key: 'c', operator: 'Exists' as const },
    { key: 'd', operator: 'DoesNotExist' as const },
  ];
  expect(selectorText({ matchLabels: { app: 'x' }, matchExpressions })).toBe(
    'app=x,a in (1,2),b notin (3),c,!d',
  );
});

describe('the progress of an upload', () => {
  const show = (isErrTty: boolean) => {
    const terminal = new Terminal();
    terminal.isErrTty = isErrTty;
    let ms = 0;
    const progress = new Progress(terminal, { what: 'pushing sql', total: 4 << 20, nowMs: () => ms });
    for (const [atMs, bytes] of [
      [500, 1 << 20],
      [550, 1 << 20],
      [1000, 1 << 20],
      [1010, 1 << 20],
    ] as const) {
      ms = atMs;
      progress.add(bytes);
    }
    progress.end();
    return terminal.stderr.split('\r\u001b[K');
  };

  it('is one line that is written over, now and then, and gone at the end', () => {
    expect(show(true)).toEqual([
      '',
      'pushing sql: 1.0 MiB of 4.0 MiB (25 %), 2.0 MiB/s, 2 s left',
      'pushing sql: 3.0 MiB of 4.0 MiB (75 %), 3.0 MiB/s, 1 s left',
      'pushing sql: 4.0 MiB sent, waiting for the pods',
      '',
    ]);
  });

  it('is not shown where nobody looks', () => {
    expect(show(false)).toEqual(['']);
  });
});
