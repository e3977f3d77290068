import { type Check, must } from '../check.ts';
import { requireFields, requireRefusal, requireSame, requireThat } from '../expectations.ts';

export const PUT: Check[] = [
  must('put', 'PUT of an adapter stages and activates in one call.', async (bench) => {
    const [name, upload] = [bench.name(), bench.adapters.make()];
    const reply = await bench.put(name, upload, { 'x-lora-step': '4' });
    requireFields('the reply', reply, {
      name,
      revision: upload.digest,
      step: 4,
      existed: false,
      previous: null,
    });
    requireSame('current', (await bench.stateOfHeld(name)).current, upload.digest);
    const next = await bench.put(name, bench.adapters.make());
    requireSame('previous', next.previous, upload.digest);
    requireThat(next.epoch > reply.epoch, `an epoch above ${reply.epoch}`, next.epoch);
  }),

  must('put-again', 'The same PUT again is a success: its reply may have been lost.', async (bench) => {
    const [name, upload] = [bench.name(), bench.adapters.make()];
    const first = await bench.put(name, upload, { 'x-lora-step': '4' });
    const again = await bench.put(name, upload, { 'x-lora-step': '4' });
    requireFields('the reply', again, { revision: upload.digest, existed: true, epoch: first.epoch });
  }),

  must('put-step', 'A step of another content must be above that of the current one.', async (bench) => {
    const name = bench.name();
    const first = await bench.putNew(name, { 'x-lora-step': '4' });
    for (const step of ['4', '3']) {
      const answer = await bench.putOf(name, bench.adapters.make(), { 'x-lora-step': step });
      requireRefusal(answer, 'step_not_newer');
    }
    requireSame('current', (await bench.stateOfHeld(name)).current, first);
    await bench.putNew(name, { 'x-lora-step': '5' });
  }),

  must('put-if-match', 'If-Match asks for the current revision, or with * for any.', async (bench) => {
    const [name, unknown] = [bench.name(), bench.name()];
    const first = await bench.putNew(name);
    const upload = bench.adapters.make();
    await bench.put(name, upload, { 'if-match': `"${first}"` });
    // The retry of a call whose reply was lost.
    await bench.put(name, upload, { 'if-match': `"${first}"` });
    const late = await bench.putOf(name, bench.adapters.make(), { 'if-match': `"${first}"` });
    requireRefusal(late, 'precondition_failed');
    await bench.putNew(name, { 'if-match': '*' });
    const none = await bench.putOf(unknown, bench.adapters.make(), { 'if-match': '*' });
    requireRefusal(none, 'precondition_failed');
  }),

  must(
    'put-refused',
    'A PUT that is refused changes nothing: not what is current, not the epoch.',
    async (bench) => {
      const name = bench.name();
      const current = await bench.putNew(name);
      const { epoch } = await bench.state();
      const torn = bench.adapters.make({ file: (file) => file.subarray(0, -8) });
      requireRefusal(await bench.putOf(name, torn), 'malformed_safetensors');
      requireSame('current', (await bench.stateOfHeld(name)).current, current);
      requireSame('epoch', (await bench.state()).epoch, epoch);
    },
  ),

  must('headers-malformed', 'A header that cannot be read is refused, not passed over.', async (bench) => {
    const headers = [
      { 'x-lora-step': '-1' },
      { 'x-lora-step': '1.5' },
      { 'x-lora-step': '9'.repeat(16) },
      { 'x-lora-fence': '7' },
      { 'x-lora-allow': 'everything' },
      { 'x-lora-in-flight': 'Wait' },
      { 'if-match': UNQUOTED },
    ];
    for (const header of headers) {
      const answer = await bench.putOf(bench.name(), bench.adapters.make(), header);
      requireRefusal(answer, 'malformed_request');
    }
  }),
];

const UNQUOTED = `sha256:${'a'.repeat(64)}`;
