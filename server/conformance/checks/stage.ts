import { StageReply } from '../../contract/adapter-api.ts';
import { headersOf, sha256, type Upload, uploadOf } from '../adapters.ts';
import { type Bench, path } from '../bench.ts';
import { type Check, must } from '../check.ts';
import { requireAnswer, requireFields, requireRefusal, requireSame, requireThat } from '../expectations.ts';

export const STAGE: Check[] = [
  must(
    'stage-post',
    'POST of revisions takes a body whose digest nobody said, and answers with its digest and a report.',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make()];
      const reply = await bench.stage(name, upload, { 'x-lora-step': '3' });
      requireFields('the reply', reply, {
        name,
        revision: upload.digest,
        step: 3,
        bytes: upload.body.length,
        existed: false,
      });
      const { modules } = bench.adapters;
      requireFields('the report', reply.report, {
        modules: modules.length,
        layers: [0],
        rank: bench.adapters.rank,
      });
      const targets = reply.report.targetModules.toSorted();
      requireSame('targetModules of the report', targets, modules.map((module) => module.name).sort());
    },
  ),

  must('stage-put', 'PUT of a revision takes the body that has this digest.', async (bench) => {
    const [name, upload] = [bench.name(), bench.adapters.make()];
    const reply = requireAnswer(await putRevision(bench, name, { ...upload }), StageReply);
    requireFields('the reply', reply, { name, revision: upload.digest, step: null, existed: false });
  }),

  must(
    'stage-not-current',
    'Staging makes nothing current, also where another revision is.',
    async (bench) => {
      const name = bench.name();
      const current = await bench.putNew(name);
      const staged = await bench.stageNew(name);
      const state = await bench.stateOfHeld(name);
      requireSame('current', state.current, current);
      requireSame('revisions', state.revisions.map(({ digest }) => digest).sort(), [current, staged].sort());
    },
  ),

  must(
    'stage-again',
    'PUT of a revision that the pod holds needs no body, and says that it existed.',
    async (bench) => {
      const name = bench.name();
      const digest = await bench.stageNew(name);
      const again = await bench.admin.call('PUT', path.revision(name, digest));
      requireFields('the reply', requireAnswer(again, StageReply), { revision: digest, existed: true });
      requireSame('revisions', await bench.heldDigests(name), [digest]);
    },
  ),

  must('stage-again-post', 'The same content again is the same revision, once.', async (bench) => {
    const [name, upload] = [bench.name(), bench.adapters.make()];
    await bench.stage(name, upload);
    const again = await bench.stage(name, upload);
    requireFields('the reply', again, { revision: upload.digest, existed: true });
    requireSame('revisions', await bench.heldDigests(name), [upload.digest]);
  }),

  must(
    'stage-other-name',
    'A content that one name has can be staged under another without its bytes.',
    async (bench) => {
      const [one, two] = [bench.name(), bench.name()];
      const digest = await bench.stageNew(one);
      const answer = await bench.admin.call('PUT', path.revision(two, digest));
      requireFields('the reply', requireAnswer(answer, StageReply), {
        name: two,
        revision: digest,
        existed: true,
      });
      await bench.admin.call('DELETE', path.adapter(one));
      requireSame('revisions of the other name', await bench.heldDigests(two), [digest]);
    },
  ),

  must(
    'stage-step',
    'The same revision again with a later step takes that step, with an earlier one keeps it.',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make()];
      await bench.stage(name, upload, { 'x-lora-step': '5' });
      requireSame('step', (await bench.stage(name, upload, { 'x-lora-step': '8' })).step, 8);
      requireSame('step', (await bench.stage(name, upload, { 'x-lora-step': '2' })).step, 8);
    },
  ),

  must(
    'name-characters',
    'Names are what clients write models as, percent-encoded: org/a-1.0:b@5.',
    async (bench) => {
      const name = bench.name('/a-1.0:b@5');
      const upload = bench.adapters.make();
      requireSame('name', (await bench.stage(name, upload)).name, name);
      requireSame('revisions', await bench.heldDigests(name), [upload.digest]);
    },
  ),

  must(
    'digest',
    'A revision\'s digest is the SHA-256 of "lora-v1\\n", those of canonical config and of the body in hex, each with "\\n".',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make()];
      requireSame('revision', (await bench.stage(name, upload)).revision, upload.digest);
    },
  ),

  must(
    'digest-canonical',
    'Order of keys and white space of the config do not change the digest.',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make()];
      await bench.stage(name, upload);
      const keys = Object.entries(JSON.parse(upload.config.toString())).reverse();
      const config = Buffer.from(JSON.stringify(Object.fromEntries(keys), null, 2));
      const again = await bench.stage(name, { ...upload, config });
      requireFields('the reply', again, { revision: upload.digest, existed: true });
    },
  ),

  must('digest-of-config', 'The same tensors with another config are another revision.', async (bench) => {
    const [name, upload] = [bench.name(), bench.adapters.make()];
    await bench.stage(name, upload);
    const config = JSON.stringify(bench.adapters.config({ lora_alpha: 3 }));
    const other = uploadOf(upload.body, config);
    const reply = await bench.stage(name, other);
    requireFields('the reply', reply, { revision: other.digest, existed: false });
  }),

  must(
    'digest-of-path',
    'A body of another digest than the path says is refused, and not kept.',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make()];
      const digest = `sha256:${'a'.repeat(64)}`;
      const error = requireRefusal(await putRevision(bench, name, { ...upload, digest }), 'digest_mismatch');
      requireFields('the refusal', error, { expected: digest, actual: upload.digest });
      requireSame('revisions', await bench.heldDigests(name), []);
    },
  ),

  must(
    'content-digest',
    'Content-Digest is verified: a body of another SHA-256 is refused, and not kept.',
    async (bench) => {
      const [name, upload, other] = [bench.name(), bench.adapters.make(), bench.adapters.make()];
      const headers = { 'content-digest': `sha-256=:${sha256(upload.body).toString('base64')}:` };
      requireRefusal(await bench.upload(name, other, headers), 'digest_mismatch');
      requireSame('revisions', await bench.heldDigests(name), []);
      await bench.stage(name, upload, headers);
    },
  ),

  must('content-digest-form', 'A Content-Digest without a SHA-256 is refused.', async (bench) => {
    const answer = await bench.upload(bench.name(), bench.adapters.make(), {
      'content-digest': 'md5=:AAAA:',
    });
    requireRefusal(answer, 'malformed_request');
  }),

  must(
    'config-in-metadata',
    'Without a config header, adapter_config of __metadata__ is the config.',
    async (bench) => {
      const name = bench.name();
      const { config, body } = inMetadata(bench);
      const { digest } = uploadOf(body, config);
      const answer = await bench.admin.call('POST', path.revisions(name), { body });
      requireSame('revision', requireAnswer(answer, StageReply).revision, digest);
    },
  ),

  must('config-header-wins', 'A config header wins over the config of __metadata__.', async (bench) => {
    const name = bench.name();
    const { body } = inMetadata(bench);
    const upload = uploadOf(body, JSON.stringify(bench.adapters.config({ lora_alpha: 5 })));
    requireSame('revision', (await bench.stage(name, upload)).revision, upload.digest);
  }),

  must('body-in-chunks', 'A body may come in chunks, without an announced length.', async (bench) => {
    const [name, upload] = [bench.name(), bench.adapters.make()];
    const body = (async function* () {
      for (let at = 0; at < upload.body.length; at += 1000) yield upload.body.subarray(at, at + 1000);
    })();
    const answer = await bench.admin.call('POST', path.revisions(name), { headers: headersOf(upload), body });
    requireSame('revision', requireAnswer(answer, StageReply).revision, upload.digest);
  }),

  must(
    'bytes-back',
    'GET of a revision gives the bytes that were staged, with config and step.',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make()];
      await bench.stage(name, upload, { 'x-lora-step': '6' });
      const { status, bytes, headers, call } = await bench.admin.call(
        'GET',
        path.revision(name, upload.digest),
      );
      requireThat(status === 200, `200 to ${call}`, status);
      const isSame = bytes.equals(upload.body);
      requireThat(isSame, `the ${upload.body.length} bytes that were staged`, `${bytes.length} others`);
      const config = Buffer.from(headers['x-lora-config'] ?? '', 'base64url').toString();
      requireSame('digest of bytes and config', uploadOf(bytes, config).digest, upload.digest);
      requireFields('headers', headers, { 'content-type': 'application/octet-stream', 'x-lora-step': '6' });
    },
  ),

  must('bytes-absent', 'GET of a revision that is not there is 404.', async (bench) => {
    const name = bench.name();
    await bench.stageNew(name);
    const other = bench.adapters.make().digest;
    const answer = await bench.admin.call('GET', path.revision(name, other));
    requireRefusal(answer, 'revision_not_found');
  }),
];

function putRevision(bench: Bench, name: string, upload: Upload) {
  const sent = { headers: headersOf(upload), body: upload.body };
  return bench.admin.call('PUT', path.revision(name, upload.digest), sent);
}

function inMetadata(bench: Bench): { config: string; body: Buffer } {
  const config = JSON.stringify(bench.adapters.config());
  const header = (entries: object) =>
    JSON.stringify({ __metadata__: { adapter_config: config }, ...entries });
  return { config, body: bench.adapters.make({ header }).body };
}
