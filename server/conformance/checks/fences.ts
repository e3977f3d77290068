import { RemoveReply } from '../../contract/adapter-api.ts';
import { fenceText } from '../../contract/fence.ts';
import { headersOf } from '../adapters.ts';
import { type Bench, path } from '../bench.ts';
import { type Check, must, should } from '../check.ts';
import {
  requireAnswer,
  requireRefusal,
  requireSame,
  requireStatus,
  requireThat,
  Skipped,
} from '../expectations.ts';

export const FENCES: Check[] = [
  must('fence-older-term', 'Any call of a lower term than the pod has seen is refused.', async (bench) => {
    const term = await reachTerm(bench);
    const name = bench.name();
    const revision = await bench.putNew(name);
    const headers = fence(term - 1, 999);
    const upload = bench.adapters.make();
    const sent = { headers: { ...headersOf(upload), ...headers }, body: upload.body };
    const calls = {
      stage: () => bench.admin.call('POST', path.revisions(name), sent),
      'stage by digest': () => bench.admin.call('PUT', path.revision(name, upload.digest), sent),
      put: () => bench.admin.call('PUT', path.put(name), sent),
      activate: () => bench.activateOf(name, { revision }, headers),
      rollback: () => bench.rollbackOf(name, {}, headers),
      remove: () => bench.admin.call('DELETE', path.adapter(name), { headers }),
      seeded: () => bench.admin.call('POST', path.seeded, { headers }),
    };
    for (const call of Object.values(calls)) requireRefusal(await call(), 'stale_fence');
    requireSame('revisions', await bench.heldDigests(name), [revision]);
  }),

  must(
    'fence-sequence',
    'Within an adapter no call of a lower sequence than its activations had is taken.',
    async (bench) => {
      const term = await reachTerm(bench);
      const name = bench.name();
      const [first, second] = [await bench.stageNew(name), await bench.stageNew(name)];
      await bench.activate(name, { revision: first }, fence(term, 5));
      requireRefusal(await bench.activateOf(name, { revision: second }, fence(term, 4)), 'stale_fence');
      const removal = await bench.admin.call('DELETE', path.adapter(name), { headers: fence(term, 4) });
      requireRefusal(removal, 'stale_fence');
      requireSame('current', (await bench.stateOfHeld(name)).current, first);
      await bench.activate(name, { revision: second }, fence(term, 6));
    },
  ),

  must(
    'fence-equal',
    'An equal fence activates the same revision again, and no other one.',
    async (bench) => {
      const term = await reachTerm(bench);
      const name = bench.name();
      const [first, second] = [await bench.stageNew(name), await bench.stageNew(name)];
      await bench.activate(name, { revision: first }, fence(term, 5));
      await bench.activate(name, { revision: first }, fence(term, 5));
      requireRefusal(await bench.activateOf(name, { revision: second }, fence(term, 5)), 'stale_fence');
      requireSame('current', (await bench.stateOfHeld(name)).current, first);
    },
  ),

  must(
    'fence-per-adapter',
    'Sequences are those of an adapter: another one may be at a lower one.',
    async (bench) => {
      const term = await reachTerm(bench);
      const [one, two] = [bench.name(), bench.name()];
      await bench.activate(one, { revision: await bench.stageNew(one) }, fence(term, 9));
      await bench.activate(two, { revision: await bench.stageNew(two) }, fence(term, 1));
    },
  ),

  must(
    'fence-reported',
    'The state tells the fence of the current revision, and what was said of its acceptance.',
    async (bench) => {
      const term = await reachTerm(bench);
      const name = bench.name();
      const revision = await bench.stageNew(name);
      const accepted = { term, sequence: 2, object: 'an-object' };
      await bench.activate(name, { revision, accepted }, fence(term, 3));
      const state = await bench.stateOfHeld(name);
      requireSame('fence', state.fence, { term, sequence: 3 });
      requireSame('accepted', state.accepted, accepted);
    },
  ),

  must('fence-none', 'Where no operator activated, fence is null.', async (bench) => {
    const name = bench.name();
    await bench.putNew(name);
    requireSame('fence', (await bench.stateOfHeld(name)).fence, null);
  }),

  should(
    'fence-by-hand',
    'A change by hand clears the shown fence, so that the operator may activate its revision again.',
    async (bench) => {
      const term = await reachTerm(bench);
      const name = bench.name();
      const [first, second] = [await bench.stageNew(name), await bench.stageNew(name)];
      await bench.activate(name, { revision: first }, fence(term, 5));
      await bench.activate(name, { revision: second });
      requireSame('fence', (await bench.stateOfHeld(name)).fence, null);
      await bench.activate(name, { revision: first }, fence(term, 5));
    },
  ),

  must(
    'seeded',
    'POST of seeded is answered with 204, and the state says so from then on.',
    async (bench) => {
      for (let i = 0; i < 2; i++) requireStatus(await bench.admin.call('POST', path.seeded), 204);
      requireSame('seeded', (await bench.state()).seeded, true);
    },
  ),
];

function fence(term: number, sequence: number): Record<string, string> {
  return { 'x-lora-fence': fenceText({ term, sequence }) };
}

/**
 * The pod's term, and at least 1. A pod that had a higher one would refuse its operator for ever, so that it is asked
 * for with the lowest fence that there is; an operator's first term is 1.
 */
async function reachTerm(bench: Bench): Promise<number> {
  const name = bench.name();
  const remove = (headers: Record<string, string>) =>
    bench.admin.call('DELETE', path.adapter(name), { headers });
  const probe = await remove(fence(0, 0));
  if (probe.status === 409) {
    const { expected } = requireRefusal(probe, 'stale_fence');
    const term = Number(/^(\d{1,15})\.\d+$/.exec(String(expected))?.[1]);
    if (term >= 1) return term;
    throw new Skipped('the pod has a term, and its refusals do not say which');
  }
  requireAnswer(probe, RemoveReply);
  const raised = await remove(fence(1, 0));
  requireThat(raised.status === 200, '200 to the first call of term 1', raised.text);
  return 1;
}
