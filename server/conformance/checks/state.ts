import { PodState } from '../../contract/adapter-api.ts';
import { path } from '../bench.ts';
import { type Check, must, should } from '../check.ts';
import { requireAnswer, requireFields, requireSame, requireThat } from '../expectations.ts';

export const STATE: Check[] = [
  must('state', 'GET /lora/v1/state is answered with 200 and a PodState as JSON.', async ({ admin }) => {
    const answer = await admin.call('GET', path.state);
    requireAnswer(answer, PodState);
    const type = answer.headers['content-type'] ?? 'none';
    requireThat(type.startsWith('application/json'), 'application/json as content-type of the state', type);
  }),

  must('state-boot-id', 'bootId is not empty, and the same as long as the process runs.', async (bench) => {
    const { bootId } = await bench.state();
    requireThat(bootId !== '', 'a bootId', bootId);
    requireSame('bootId as before', bootId, bench.before.bootId);
  }),

  must('state-limits', 'What is used is within the limits that the pod tells.', async (bench) => {
    const { used, limits } = await bench.state();
    for (const kind of ['slots', 'pages', 'hostBytes'] as const) {
      requireThat(
        used[kind] >= 0 && used[kind] <= limits[kind],
        `used.${kind} from 0 to ${limits[kind]}`,
        used[kind],
      );
    }
  }),

  must('state-modules', 'Modules that adapters may adapt are modules of the geometry.', async (bench) => {
    const { limits, baseModel } = await bench.state();
    const strange = limits.modules.filter((module) => !Object.hasOwn(baseModel.geometry.modules, module));
    requireSame('modules that the geometry lacks', strange, []);
  }),

  must(
    'state-revision',
    'A revision that was staged is listed with its digest, step, bytes, rank and modules, as staged.',
    async (bench) => {
      const name = bench.name();
      const upload = bench.adapters.make();
      await bench.stage(name, upload, { 'x-lora-step': '7' });
      const { current, revisions } = await bench.stateOfHeld(name);
      requireSame('current', current, null);
      requireSame(
        'digests of revisions',
        revisions.map(({ digest }) => digest),
        [upload.digest],
      );
      const [{ modules = [], ...revision } = {}] = revisions;
      requireFields('the revision', revision, {
        step: 7,
        state: 'staged',
        leases: 0,
        bytes: upload.body.length,
        rank: bench.adapters.rank,
      });
      const wanted = bench.adapters.modules.map(({ name: module }) => module).sort();
      requireSame('modules of the revision', modules.toSorted(), wanted);
    },
  ),

  must(
    'state-epoch',
    'epoch grows with each activation and with the removal of an adapter.',
    async (bench) => {
      const name = bench.name();
      const { epoch: before } = await bench.state();
      await bench.putNew(name);
      const { epoch: active } = await bench.state();
      requireThat(active > before, `an epoch above ${before} after an activation`, active);
      await bench.admin.call('DELETE', path.adapter(name));
      const { epoch: removed } = await bench.state();
      requireThat(removed > active, `an epoch above ${active} after a removal`, removed);
    },
  ),

  should(
    'state-not-cached',
    'The state is fresh: two changes one after the other are both in it.',
    async (bench) => {
      const name = bench.name();
      const first = await bench.putNew(name);
      requireSame('current', (await bench.stateOfHeld(name)).current, first);
      const second = await bench.putNew(name);
      requireSame('current', (await bench.stateOfHeld(name)).current, second);
    },
  ),
];
