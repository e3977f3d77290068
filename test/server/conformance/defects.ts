import type { Call, Defect, Said } from './double.ts';

export interface Planted {
  what: string;
  /** The check that must find it. */
  check: string;
  /** Anew for each server. */
  plant: () => Defect;
}

const without =
  (...names: string[]) =>
  (call: Call): Call => {
    for (const name of names) delete call.headers[name];
    return call;
  };

const adding =
  (headers: Record<string, string>, isOf: (call: Call) => boolean = () => true) =>
  (call: Call): Call =>
    isOf(call) ? { ...call, headers: { ...call.headers, ...headers } } : call;

/** Another JSON in answers of 200 to such calls. */
const saying =
  (isOf: RegExp, change: (body: Record<string, unknown>) => object) =>
  (said: Said, call: Call): Said => {
    if (said.status !== 200 || !isOf.test(`${call.method} ${call.url}`)) return said;
    return { ...said, body: Buffer.from(JSON.stringify(change(JSON.parse(said.body.toString())))) };
  };

const STAGING = /^(POST|PUT) \/lora\/v1\/adapters\/[^/]+\/revisions/;
const PUT = /^PUT \/v1\/adapters/;
const ACTIVATION = /\/activate$/;
const TOKEN = { authorization: 'Bearer a-token-for-tests-only' };

export const DEFECTS: Planted[] = [
  {
    what: 'says another digest',
    check: 'digest',
    plant: () => ({
      answer: saying(STAGING, (reply) => ({ ...reply, revision: `sha256:${'b'.repeat(64)}` })),
    }),
  },
  {
    what: 'never knows a revision again',
    check: 'stage-again',
    plant: () => ({ answer: saying(STAGING, (reply) => ({ ...reply, existed: false })) }),
  },
  {
    what: 'makes current what is staged',
    check: 'stage-not-current',
    plant: () => ({
      call: (call) => ({ ...call, ...(STAGING.test(`${call.method} ${call.url}`) && toPut(call)) }),
    }),
  },
  {
    what: 'loses every other change of a watch',
    check: 'watch-changes',
    plant: () => {
      let count = 0;
      return { event: (block) => (block.startsWith('event: changes') && ++count % 2 === 0 ? null : block) };
    },
  },
  {
    what: 'forgets removals in changes',
    check: 'watch-changes',
    plant: () => ({ event: (block) => block.replace(/"removed":\[[^\]]*\]/, '"removed":[]') }),
  },
  {
    what: 'goes on with a watch from now instead of from Last-Event-ID',
    check: 'watch-resume',
    plant: () => {
      const seen = new Set<Call>();
      const isFirst = (call: Call) => !seen.has(call) && seen.add(call) !== undefined;
      const resumes = ({ headers }: Call) => headers['last-event-id'] !== undefined;
      return { event: (block, call) => (resumes(call) && isFirst(call) ? null : block) };
    },
  },
  {
    what: 'gives events no id',
    check: 'watch-id',
    plant: () => ({ event: (block) => block.replace(/^id: .*\n/m, '') }),
  },
  {
    what: 'sends changes to who did not ask for them',
    check: 'watch-whole',
    plant: () => ({ call: adding({ 'x-lora-watch': 'changes' }) }),
  },
  { what: 'takes any fence', check: 'fence-older-term', plant: () => ({ call: without('x-lora-fence') }) },
  {
    what: 'takes an older sequence',
    check: 'fence-sequence',
    plant: () => {
      let sequence = 1000;
      return {
        call: (call) => {
          const [term] = String(call.headers['x-lora-fence'] ?? '').split('.');
          return term === '' ? call : adding({ 'x-lora-fence': `${term}.${sequence++}` })(call);
        },
      };
    },
  },
  {
    what: 'takes an equal fence for another revision',
    check: 'fence-equal',
    plant: () => ({ call: (call) => (ACTIVATION.test(call.url) ? without('x-lora-fence')(call) : call) }),
  },
  {
    what: 'answers 200 to a body that broke off',
    check: 'body-torn',
    plant: () => ({ torn: 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}' }),
  },
  {
    what: 'takes a file whose end is missing',
    check: 'refuses-file-short',
    plant: () => ({
      answer: (said) => (said.status === 400 ? { ...said, status: 200, body: Buffer.from('{}') } : said),
    }),
  },
  {
    what: 'does not look at Content-Digest',
    check: 'content-digest',
    plant: () => ({ call: without('content-digest') }),
  },
  { what: 'takes any content type', check: 'content-type', plant: () => ({ call: without('content-type') }) },
  { what: 'wants a length', check: 'body-in-chunks', plant: () => ({ answer: lengthRequired }) },
  {
    what: 'gives other bytes back',
    check: 'bytes-back',
    plant: () => ({
      answer: (said) => {
        if (said.headers['content-type'] === 'application/octet-stream')
          said.body.writeUInt8(7, said.body.length - 1);
        return said;
      },
    }),
  },
  {
    what: 'does not look at expectCurrent',
    check: 'expect-current',
    plant: () => ({ body: (_call, { expectCurrent: _, ...rest }) => rest }),
  },
  {
    what: 'keeps all revisions',
    check: 'keep',
    plant: () => ({ body: (call, body) => (ACTIVATION.test(call.url) ? { ...body, keep: 16 } : body) }),
  },
  {
    what: 'rolls back to the one before, whatever is asked for',
    check: 'rollback-to',
    plant: () => ({ body: (_call, { to: _, ...rest }) => rest }),
  },
  { what: 'does not look at If-Match', check: 'put-if-match', plant: () => ({ call: without('if-match') }) },
  { what: 'does not look at steps', check: 'put-step', plant: () => ({ call: without('x-lora-step') }) },
  {
    what: 'does not count activations',
    check: 'put',
    plant: () => ({ answer: saying(PUT, (reply) => ({ ...reply, epoch: 1 })) }),
  },
  {
    what: 'takes an adapter without effect',
    check: 'refuses-zero-effect',
    plant: () => ({ call: adding({ 'x-lora-allow': 'zero_effect' }) }),
  },
  {
    what: 'has one status for all refusals',
    check: 'refuses-shape',
    plant: () => ({ answer: (said) => (said.status > 400 ? { ...said, status: 400 } : said) }),
  },
  {
    what: 'refuses in plain text',
    check: 'route-unknown',
    plant: () => ({ answer: (said) => (said.status >= 400 ? { ...said, body: Buffer.from('No') } : said) }),
  },
  {
    what: 'does not find what is not there to be removed',
    check: 'remove-absent',
    plant: () => ({
      answer: (said, { method }) => (method === 'DELETE' ? { ...said, status: 404 } : said),
    }),
  },
  { what: 'asks for no token', check: 'auth-missing', plant: () => ({ call: adding(TOKEN) }) },
  { what: 'takes any token', check: 'auth-wrong', plant: () => ({ call: anyToken }) },
  { what: 'passes bodies on to anybody', check: 'relay', plant: () => ({ call: without('x-lora-relay') }) },
  {
    what: 'is another process at each call',
    check: 'state-boot-id',
    plant: () => {
      let count = 0;
      return { answer: saying(/\/state$/, (state) => ({ ...state, bootId: `boot-${count++}` })) };
    },
  },
  {
    what: 'answers with a state of before',
    check: 'state-not-cached',
    plant: () => {
      const states: object[] = [];
      const earlier = (state: object) => states[states.push(state) - 2] ?? state;
      return { answer: saying(/\/state$/, earlier) };
    },
  },
  {
    what: 'does not say in a header what an answer is of',
    check: 'serving-revision',
    plant: () => ({
      answer: ({ headers: { 'x-lora-revision': _, ...headers }, ...said }) => ({ ...said, headers }),
    }),
  },
  {
    what: 'answers with the base where it knows no such name',
    check: 'serving-unknown',
    plant: () => ({ answer: (said) => (said.status === 404 ? { ...said, status: 200 } : said) }),
  },
  {
    what: 'does not look at what a request expects',
    check: 'serving-expect',
    plant: () => ({ call: without('x-lora-expect') }),
  },
  {
    what: 'moves running requests to each new revision',
    check: 'serving-swap',
    plant: () => ({
      call: adding({ 'x-lora-in-flight': 'Migrate' }, ({ url }) => url.startsWith('/v1/adapters')),
    }),
  },
];

function toPut({ url }: Call): Pick<Call, 'method' | 'url'> {
  const name = /^\/lora\/v1\/adapters\/([^/]+)/.exec(url)?.[1];
  return { method: 'PUT', url: `/v1/adapters/${name}` };
}

function lengthRequired(said: Said, { headers }: Call): Said {
  return headers['transfer-encoding'] === undefined ? said : { ...said, status: 411 };
}

function anyToken(call: Call): Call {
  return call.headers.authorization === undefined ? call : adding(TOKEN)(call);
}
