import { Writable } from 'node:stream';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { configHeader } from './adapters.ts';
import { TOKENS } from './fake-reviews.ts';
import { put, type Rig, startRig } from './harness.ts';
import { PATH, RawClient } from './raw-client.ts';

const files = goodAdapter();
const CANARY = /canary-token|canary-query|Bearer c/;

/** Every way a push can end, with a real token in each request. */
const ENDINGS: [string, (rig: Rig) => Promise<unknown>][] = [
  ['well', (rig) => put(rig, files)],
  ['expired', (rig) => put(rig, files, { headers: { authorization: `Bearer ${TOKENS.expired}` } })],
  ['forbidden', (rig) => put(rig, files, { headers: { authorization: `Bearer ${TOKENS.otherNamespace}` } })],
  [
    'no API server',
    (rig) => {
      rig.reviews.down = true;
      return put(rig, files);
    },
  ],
  [
    'pods that fail with what they were sent',
    (rig) => {
      const error = new Error('socket hang up', {
        cause: new Error(`authorization: Bearer ${TOKENS.trainer}`),
      });
      rig.publisher.pods = [new FakePod({ name: 'pod-a', fault: { kind: 'refuse', error } })];
      return put(rig, files);
    },
  ],
  [
    'a bug in the publisher',
    (rig) => {
      rig.publisher.publish = () => Promise.reject(new TypeError('undefined is not a function'));
      return put(rig, files);
    },
  ],
  [
    'a refusal by the publisher',
    (rig) => {
      rig.publisher.error = new LorikeetError('no_pods', 'no pods');
      return put(rig, files);
    },
  ],
  ['a token in the query', (rig) => put(rig, files, { query: '?wait=canary-query-1' }).then(withoutQuoted)],
  [
    'a body that is cut',
    async (rig) => {
      const client = new RawClient(rig.port);
      client.head({ 'content-length': files.tensors.length, 'x-lora-config': configHeader(files.config) });
      await new Promise((flushed) => client.socket.write(files.tensors.subarray(0, 100_000), flushed));
      client.close();
      while (rig.counted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    },
  ],
  [
    'an unreadable request',
    async (rig) => {
      const client = new RawClient(rig.port);
      client.send(`PUT ${PATH} HTTP/1.1\r\nauthorization: Bearer ${TOKENS.trainer}\r\nno header\r\n\r\n`);
      return await client.reply();
    },
  ],
  [
    'a bad path',
    async (rig) => {
      const client = new RawClient(rig.port);
      client.head({ 'content-length': 1 }, { path: '/v1/%zz/canary-query-2' });
      return await client.reply();
    },
  ],
  [
    'a lost leader',
    (rig) => {
      rig.leader.leading = null;
      rig.leader.holder = () => ({
        identity: 'x',
        annotations: { 'lorikeet.dev/push-address': 'http://127.0.0.1:1' },
      });
      return put(rig, files);
    },
  ],
];

/** A caller may be shown its own mistake; the log is not to repeat a query. */
function withoutQuoted(reply: { body: { error: { message: string; actual?: unknown } } }): unknown {
  return { ...reply, body: { error: { ...reply.body.error, message: '', actual: undefined } } };
}

it.each(ENDINGS)('no token shows in logs, replies or errors when a push ends: %s', async (_, end) => {
  const rig = await startRig();
  try {
    const reply = await end(rig);
    expect(rig.counted.length + (reply === undefined ? 0 : 1)).toBeGreaterThan(0);
    expect(JSON.stringify(reply) ?? '').not.toMatch(CANARY);
    expect(asLogged(rig.logs)).not.toMatch(CANARY);
  } finally {
    await rig.close();
  }
});

it('a bug is logged with its stack and told without it', async () => {
  const rig = await startRig();
  rig.publisher.publish = () => Promise.reject(new TypeError('undefined is not a function'));
  const { status, body } = await put(rig, files);
  expect([status, body]).toEqual([
    500,
    { error: { code: 'internal', message: 'The operator failed; its log says how' } },
  ]);
  expect(asLogged(rig.logs)).toMatch(/TypeError.*publish/s);
  await rig.close();
});

/** What pino would write. */
function asLogged(logs: Rig['logs']): string {
  const lines: string[] = [];
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  });
  const log = pino({ level: 'debug' }, sink);
  for (const { level, fields, message } of logs) log[level as 'info'](fields, message);
  return lines.join('');
}
