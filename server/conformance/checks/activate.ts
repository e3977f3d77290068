import { RemoveReply } from '../../contract/adapter-api.ts';
import { path } from '../bench.ts';
import { type Check, must } from '../check.ts';
import { requireAnswer, requireFields, requireRefusal, requireSame, requireThat } from '../expectations.ts';

const UNKNOWN = `sha256:${'0'.repeat(64)}`;

export const ACTIVATE: Check[] = [
  must(
    'activate',
    'An activation makes a staged revision current, and says what was before.',
    async (bench) => {
      const name = bench.name();
      const [first, second] = [await bench.stageNew(name), await bench.stageNew(name)];
      requireFields('the reply', await bench.activate(name, { revision: first }), {
        name,
        revision: first,
        previous: null,
      });
      requireFields('the reply', await bench.activate(name, { revision: second }), {
        revision: second,
        previous: first,
      });
      const state = await bench.stateOfHeld(name);
      requireSame('current', state.current, second);
      const stateOf = (digest: string) =>
        state.revisions.find((revision) => revision.digest === digest)?.state;
      requireSame('states of the two', [stateOf(first), stateOf(second)], ['staged', 'current']);
    },
  ),

  must(
    'activate-again',
    'An activation of what is current succeeds whatever it expected, and changes nothing.',
    async (bench) => {
      const name = bench.name();
      const first = await bench.putNew(name);
      const second = await bench.putNew(name);
      const { epoch } = await bench.state();
      const again = await bench.activate(name, { revision: second, expectCurrent: first });
      requireFields('the reply', again, { revision: second, previous: second });
      requireSame('epoch', (await bench.state()).epoch, epoch);
    },
  ),

  must('expect-current', 'An activation that expects another current revision is refused.', async (bench) => {
    const name = bench.name();
    const first = await bench.putNew(name);
    const second = await bench.stageNew(name);
    for (const expectCurrent of [null, second]) {
      const answer = await bench.activateOf(name, { revision: second, expectCurrent });
      requireFields('the refusal', requireRefusal(answer, 'precondition_failed'), {
        expected: expectCurrent,
        actual: first,
      });
    }
    requireSame('current', (await bench.stateOfHeld(name)).current, first);
    requireSame(
      'revision',
      (await bench.activate(name, { revision: second, expectCurrent: first })).revision,
      second,
    );
  }),

  must('expect-none', 'expectCurrent null is met where nothing is current yet.', async (bench) => {
    const name = bench.name();
    const revision = await bench.stageNew(name);
    requireSame(
      'revision',
      (await bench.activate(name, { revision, expectCurrent: null })).revision,
      revision,
    );
  }),

  must('activate-unknown', 'An activation of a revision that the name has not is 404.', async (bench) => {
    const [name, other] = [bench.name(), bench.name()];
    await bench.stageNew(name);
    const elsewhere = await bench.stageNew(other);
    for (const revision of [UNKNOWN, elsewhere]) {
      requireRefusal(await bench.activateOf(name, { revision }), 'revision_not_found');
    }
  }),

  must(
    'activate-malformed',
    'An activation that is no strict JSON as the contract has it is refused.',
    async (bench) => {
      const name = bench.name();
      const revision = await bench.stageNew(name);
      const bodies = [
        '{',
        '[]',
        '{}',
        '{"revision": "sha256:00"}',
        JSON.stringify({ revision, inFlight: 'Wait' }),
        JSON.stringify({ revision, keep: -1 }),
        `{"revision": "${revision}", "revision": "${revision}"}`,
      ];
      for (const body of bodies) {
        const sent = { headers: { 'content-type': 'application/json' }, body };
        requireRefusal(await bench.admin.call('POST', path.activate(name), sent), 'malformed_request');
      }
      requireSame('current', (await bench.stateOfHeld(name)).current, null);
    },
  ),

  must(
    'keep',
    'An activation lets go of earlier current revisions beyond `keep`, the oldest first.',
    async (bench) => {
      const name = bench.name();
      const digests: string[] = [];
      for (let i = 0; i < 3; i++) {
        const revision = await bench.stageNew(name);
        await bench.activate(name, { revision, keep: 3 });
        digests.push(revision);
      }
      const last = await bench.stageNew(name);
      await bench.activate(name, { revision: last, keep: 1 });
      const kept = [digests[2], last].sort();
      await bench.eventually(`revisions ${kept.join(', ')} alone`, async () => {
        return (await bench.heldDigests(name)).sort().join() === kept.join();
      });
    },
  ),

  must('keep-two', 'Without `keep` two earlier revisions are kept.', async (bench) => {
    const name = bench.name();
    const digests: string[] = [];
    for (let i = 0; i < 4; i++) digests.push(await bench.putNew(name));
    const kept = digests.slice(1).sort();
    await bench.eventually(`revisions ${kept.join(', ')} alone`, async () => {
      return (await bench.heldDigests(name)).sort().join() === kept.join();
    });
  }),

  must('keep-staged', 'What was staged and never current is not let go by `keep`.', async (bench) => {
    const name = bench.name();
    const staged = await bench.stageNew(name);
    const revision = await bench.stageNew(name);
    await bench.activate(name, { revision, keep: 0 });
    requireSame('revisions', (await bench.heldDigests(name)).sort(), [staged, revision].sort());
  }),

  must(
    'rollback',
    'A rollback makes the revision before current again; asked again, that stays.',
    async (bench) => {
      const name = bench.name();
      const [first, second] = [await bench.putNew(name), await bench.putNew(name)];
      requireFields('the reply', await bench.rollback(name), { revision: first, previous: second });
      requireFields('the second reply', await bench.rollback(name), { revision: first, previous: first });
      const state = await bench.stateOfHeld(name);
      requireSame('current', state.current, first);
      requireSame('revisions', state.revisions.map(({ digest }) => digest).sort(), [first, second].sort());
    },
  ),

  must('rollback-to', 'A rollback goes to the digest or the step that it names.', async (bench) => {
    const name = bench.name();
    const digests: string[] = [];
    for (const step of ['1', '2', '3']) digests.push(await bench.putNew(name, { 'x-lora-step': step }));
    const [first, second] = digests as [string, string, string];
    requireSame('revision', (await bench.rollback(name, { to: 1 })).revision, first);
    requireSame('revision', (await bench.rollback(name, { to: second })).revision, second);
  }),

  must(
    'rollback-then-step',
    'After a rollback the step that was taken back may come again.',
    async (bench) => {
      const name = bench.name();
      await bench.putNew(name, { 'x-lora-step': '1' });
      await bench.putNew(name, { 'x-lora-step': '2' });
      await bench.rollback(name);
      await bench.putNew(name, { 'x-lora-step': '2' });
    },
  ),

  must(
    'rollback-nowhere',
    'A rollback to what was never current, or of an unknown name, is 404.',
    async (bench) => {
      const [name, unknown] = [bench.name(), bench.name()];
      await bench.putNew(name);
      const staged = await bench.stageNew(name);
      for (const body of [{}, { to: staged }, { to: 9 }, { to: UNKNOWN }]) {
        requireRefusal(await bench.rollbackOf(name, body), 'revision_not_found');
      }
      requireRefusal(await bench.rollbackOf(unknown), 'adapter_not_found');
    },
  ),

  must(
    'rollback-expect-current',
    'A rollback of another revision than is current is refused.',
    async (bench) => {
      const name = bench.name();
      const [first, second] = [await bench.putNew(name), await bench.putNew(name)];
      requireRefusal(await bench.rollbackOf(name, { expectCurrent: first }), 'precondition_failed');
      requireSame('current', (await bench.stateOfHeld(name)).current, second);
    },
  ),

  must('remove', 'DELETE of a revision takes that one, and says so.', async (bench) => {
    const name = bench.name();
    const [first, second] = [await bench.putNew(name), await bench.putNew(name)];
    const answer = await bench.admin.call('DELETE', path.revision(name, first));
    requireSame('the reply', requireAnswer(answer, RemoveReply), { name, removed: [first], leases: 0 });
    requireSame('revisions', await bench.heldDigests(name), [second]);
    requireRefusal(await bench.admin.call('GET', path.revision(name, first)), 'revision_not_found');
  }),

  must(
    'remove-current',
    'DELETE of the current revision leaves none current, and the others.',
    async (bench) => {
      const name = bench.name();
      const [first, second] = [await bench.putNew(name), await bench.putNew(name)];
      await bench.admin.call('DELETE', path.revision(name, second));
      const { current, revisions } = await bench.stateOfHeld(name);
      requireSame('current', current, null);
      requireSame(
        'revisions',
        revisions.map(({ digest }) => digest),
        [first],
      );
    },
  ),

  must('remove-all', 'DELETE of an adapter takes all of it.', async (bench) => {
    const name = bench.name();
    const digests = [await bench.putNew(name), await bench.stageNew(name)].sort();
    const answer = await bench.admin.call('DELETE', path.adapter(name));
    const { removed, leases } = requireAnswer(answer, RemoveReply);
    requireSame('removed', removed.toSorted(), digests);
    requireSame('leases', leases, 0);
    requireThat((await bench.stateOf(name)) === undefined, `no ${name} in the state`, 'still there');
  }),

  must('remove-absent', 'DELETE of what is not there is 200, with nothing removed.', async (bench) => {
    const name = bench.name();
    for (const absent of [path.adapter(name), path.revision(name, UNKNOWN)]) {
      const answer = await bench.admin.call('DELETE', absent);
      requireSame('the reply', requireAnswer(answer, RemoveReply), { name, removed: [], leases: 0 });
    }
  }),
];
