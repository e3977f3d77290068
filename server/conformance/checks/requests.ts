import { headersOf } from '../adapters.ts';
import { type Bench, PREFIX, path } from '../bench.ts';
import { type Check, must, needing } from '../check.ts';
import {
  requireFields,
  requireRefusal,
  requireSame,
  requireStatus,
  requireThat,
  Skipped,
} from '../expectations.ts';

export const REQUESTS: Check[] = [
  must(
    'config-missing',
    'A body without a config, in a header or in its metadata, is refused.',
    async (bench) => {
      const [name, { body }] = [bench.name(), bench.adapters.make()];
      const answer = await bench.admin.call('POST', path.revisions(name), { body });
      requireRefusal(answer, 'missing_config');
    },
  ),

  must('config-header-malformed', 'A config header that is no base64url is refused.', async (bench) => {
    const answer = await bench.upload(bench.name(), bench.adapters.make(), { 'x-lora-config': '{"r": 8}' });
    requireRefusal(answer, 'malformed_config');
  }),

  must(
    'content-type',
    'A body is application/octet-stream, or of no type; others are refused.',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make()];
      for (const type of ['text/plain', 'application/json', 'multipart/form-data; boundary=x']) {
        requireRefusal(await bench.upload(name, upload, { 'content-type': type }), 'unsupported_media_type');
      }
      const { 'content-type': _, ...headers } = headersOf(upload);
      const { body } = upload;
      requireStatus(await bench.admin.call('POST', path.revisions(name), { headers, body }), 200);
    },
  ),

  must('content-encoding', 'A compressed body is refused.', async (bench) => {
    const answer = await bench.upload(bench.name(), bench.adapters.make(), { 'content-encoding': 'gzip' });
    requireRefusal(answer, 'unsupported_encoding');
  }),

  must(
    'body-torn',
    'A body that breaks off is not taken: no success is answered, and nothing is kept.',
    async (bench) => {
      for (const route of ['stage', 'put'] as const) {
        const [name, upload] = [bench.name(), bench.adapters.make()];
        const headers = { ...headersOf(upload), 'content-length': String(upload.body.length) };
        const part = upload.body.subarray(0, upload.body.length / 2);
        const call =
          route === 'put'
            ? { method: 'PUT', path: path.put(name) }
            : { method: 'POST', path: path.revisions(name) };
        const answer = await bench.inPart({ ...call, headers, part, isCut: true });
        const isRefused = answer === null || answer.status >= 400;
        requireThat(isRefused, `a refusal, or none, to half of ${call.method} ${call.path}`, answer?.text);
        requireSame('revisions', await bench.heldDigests(name), []);
      }
    },
  ),

  must(
    'body-limit',
    'A body above limits.maxAdapterBytes is refused by its announced length.',
    async (bench) => {
      const { maxAdapterBytes } = bench.before.limits;
      const headers = { ...headersOf(bench.adapters.make()), 'content-length': String(maxAdapterBytes + 1) };
      const call = { method: 'POST', path: path.revisions(bench.name()), headers };
      const answer = await bench.inPart({ ...call, part: Buffer.alloc(0), isCut: false });
      requireThat(answer !== null, '413 before the body', 'no answer');
      requireRefusal(answer, 'body_too_large');
    },
  ),

  must('json-limit', 'A JSON body of 100 kB is refused.', async (bench) => {
    const body = JSON.stringify({ revision: 'x'.repeat(100_000) });
    const sent = { headers: { 'content-type': 'application/json' }, body };
    const answer = await bench.admin.call('POST', path.activate(bench.name()), sent);
    requireRefusal(answer, 'body_too_large');
  }),

  must('name-invalid', 'Names that no model may have are refused.', async (bench) => {
    const upload = bench.adapters.make();
    const names = [
      `-${PREFIX}`,
      `${PREFIX}a b`,
      `${PREFIX}a//b`,
      `../${PREFIX}`,
      `${PREFIX}@123456`,
      `${PREFIX}é`,
    ];
    for (const name of [...names, PREFIX + 'a'.repeat(257)]) {
      requireRefusal(await bench.upload(bench.own(name), upload), 'invalid_name');
    }
  }),

  must(
    'name-of-base',
    "The base model's own name is refused where adapters may not shadow it.",
    async (bench) => {
      const { name } = bench.before.baseModel;
      const answer = await bench.upload(name, bench.adapters.make({ file: () => Buffer.alloc(0) }));
      const error = requireRefusal(answer, 'invalid_name', 'malformed_safetensors');
      if (error.code !== 'invalid_name') throw new Skipped('adapters may have the name of the base here');
    },
  ),

  must('digest-invalid', 'A digest that is none is refused.', async (bench) => {
    const name = bench.name();
    for (const digest of ['sha256:00', 'a'.repeat(64), `sha256:${'A'.repeat(64)}`]) {
      requireRefusal(await bench.admin.call('GET', path.revision(name, digest)), 'malformed_request');
    }
  }),

  must('relay', 'A body is passed on to addresses of pods alone: other URLs are refused.', async (bench) => {
    const [name, upload] = [bench.name(), bench.adapters.make()];
    const urls = [
      'http://example.com:8001',
      'http://169.254.169.254:80',
      'http://10.0.0.1:8001/path',
      'nonsense',
    ];
    for (const url of urls) {
      requireRefusal(await bench.upload(name, upload, { 'x-lora-relay': url }), 'malformed_request');
    }
    requireSame('revisions', await bench.heldDigests(name), []);
  }),

  must('route-unknown', 'A path that there is not is 404.', async ({ admin }) => {
    requireRefusal(await admin.call('GET', '/lora/v1/nothing'), 'route_not_found');
  }),

  must(
    'method-unknown',
    'A method that a path has not is 405, with those that it has in Allow.',
    async (bench) => {
      const name = bench.name();
      const wrong: [method: string, path: string, allowed: string][] = [
        ['POST', path.state, 'GET'],
        ['GET', path.activate(name), 'POST'],
        ['GET', path.put(name), 'PUT'],
        ['PUT', path.revisions(name), 'POST'],
      ];
      for (const [method, url, allowed] of wrong) {
        const answer = await bench.admin.call(method, url);
        requireRefusal(answer, 'method_not_allowed');
        const { allow = 'none' } = answer.headers;
        requireThat(allow.includes(allowed), `${allowed} in the header allow of ${answer.call}`, allow);
      }
    },
  ),

  ...needing('token', [
    must('auth-missing', 'No call is answered without the token.', async (bench) => {
      for (const answer of await everyCall(bench, (method, url) => bench.stranger.call(method, url))) {
        requireRefusal(answer, 'unauthenticated');
      }
    }),

    must('auth-wrong', 'No call is answered with another token, or with another scheme.', async (bench) => {
      const { authorization = '' } = bench.admin.authorization;
      const wrong = [
        'Bearer wrong',
        authorization.slice(0, -1),
        `${authorization}x`,
        `Basic ${authorization.slice(7)}`,
      ];
      for (const value of wrong) {
        const headers = { authorization: value };
        for (const answer of await everyCall(bench, (method, url) =>
          bench.admin.call(method, url, { headers }),
        )) {
          requireRefusal(answer, 'unauthenticated');
        }
      }
    }),

    must('auth-changes-nothing', 'A call without the token changes nothing.', async (bench) => {
      const name = bench.name();
      const digest = await bench.putNew(name);
      await bench.stranger.call('DELETE', path.adapter(name));
      requireFields('the adapter', await bench.stateOfHeld(name), { current: digest });
    }),

    must(
      'auth-before-body',
      'A call without the token is refused before any byte of its body is read.',
      async (bench) => {
        const upload = bench.adapters.make();
        const headers = { ...headersOf(upload), 'content-length': String(upload.body.length) };
        const call = { method: 'POST', path: path.revisions(bench.name()), headers };
        const answer = await bench.inPart({ ...call, part: Buffer.alloc(0), isCut: false }, bench.stranger);
        requireThat(answer !== null, '401 before the body', 'no answer');
        requireRefusal(answer, 'unauthenticated');
      },
    ),
  ]),
];

async function everyCall<T>(bench: Bench, call: (method: string, url: string) => Promise<T>): Promise<T[]> {
  const name = bench.name();
  const digest = bench.adapters.make().digest;
  const calls: [method: string, url: string][] = [
    ['GET', path.state],
    ['GET', path.watch],
    ['POST', path.seeded],
    ['POST', path.revisions(name)],
    ['PUT', path.revision(name, digest)],
    ['GET', path.revision(name, digest)],
    ['POST', path.activate(name)],
    ['POST', path.rollback(name)],
    ['DELETE', path.adapter(name)],
    ['PUT', path.put(name)],
  ];
  return Promise.all(calls.map(([method, url]) => call(method, url)));
}
