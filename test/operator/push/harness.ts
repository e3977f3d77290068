import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { systemClock } from '../../../operator/kube/clock.ts';
import { TokenAuth } from '../../../operator/push/auth.ts';
import { Running } from '../../../operator/push/running.ts';
import { buildPushApp, type PushAppOptions, type PushLimits } from '../../../operator/push/server.ts';
import { Spool } from '../../../operator/spool/spool.ts';
import { eventually } from '../../support/eventually.ts';
import { configHeader } from './adapters.ts';
import { FakePublisher } from './fake-publisher.ts';
import { FakeReviews, TOKENS } from './fake-reviews.ts';
import { PATH, type RawReply } from './raw-client.ts';

export interface Rig {
  app: FastifyInstance;
  port: number;
  publisher: FakePublisher;
  reviews: FakeReviews;
  spool: Spool;
  leader: { leading: { term: number } | null; holder: PushAppOptions['leader']['holder'] };
  logs: { level: string; fields: object; message: string }[];
  counted: string[];
  inFlight: [number, number];
  running: Running;
  stopping: AbortController;
  close(): Promise<void>;
}

/** Short, but longer than a busy machine keeps a healthy pod of this same process from its turn. */
export const FAST: Partial<PushLimits> = {
  body: { windowMs: 1_000, windowBytesMin: 1_024, waitMs: 1_500, bytesPerMsMin: 1024 },
  branch: { windowBytes: 128 * 1024, stallMs: 800, startMs: 1_200 },
  forward: { aliveMs: 100, silenceMs: 800 },
};

export async function startRig(
  limits: Partial<PushLimits> = {},
  more: Pick<PushAppOptions, 'relayFrom' | 'tls' | 'ca'> = {},
): Promise<Rig> {
  const dir = mkdtempSync(join(tmpdir(), 'lorikeet-push-'));
  const logs: Rig['logs'] = [];
  const log = Object.fromEntries(
    ['debug', 'info', 'warn', 'error'].map((level) => [
      level,
      (fields: object, message: string) => logs.push({ level, fields, message }),
    ]),
  ) as unknown as PushAppOptions['log'];
  const reviews = new FakeReviews();
  const rig: Omit<Rig, 'app' | 'port' | 'close'> = {
    publisher: new FakePublisher(),
    reviews,
    spool: new Spool({ dir, maxBytes: 64 * 2 ** 20 }),
    leader: { leading: { term: 1 }, holder: () => null },
    logs,
    counted: [],
    inFlight: [0, 0],
    running: new Running(),
    stopping: new AbortController(),
  };
  const app = buildPushApp({
    publisher: rig.publisher,
    auth: new TokenAuth({ rest: reviews, audience: 'lorikeet-push', log }),
    spool: rig.spool,
    leader: rig.leader,
    clock: systemClock,
    log,
    metrics: {
      pushed: (code) => rig.counted.push(code),
      inFlight: (pushes, bytes) => {
        rig.inFlight = [pushes, bytes];
      },
    },
    running: rig.running,
    stopping: rig.stopping.signal,
    limits: { ...FAST, ...limits },
    ...more,
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  const close = async () => {
    app.server.closeAllConnections();
    await app.close();
    rmSync(dir, { recursive: true, force: true });
  };
  return Object.assign(rig, { app, port, close });
}

/** A whole push with fetch. */
export async function put(
  rig: Pick<Rig, 'port'>,
  files: { tensors: Buffer; config: Buffer },
  { headers = {}, query = '' }: { headers?: Record<string, string>; query?: string } = {},
): Promise<RawReply> {
  const response = await fetch(`http://127.0.0.1:${rig.port}${PATH}${query}`, {
    method: 'PUT',
    headers: {
      authorization: `Bearer ${TOKENS.trainer}`,
      'x-lora-config': configHeader(files.config),
      ...headers,
    },
    body: new Uint8Array(files.tensors),
  });
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body: JSON.parse(await response.text()),
  };
}

export function until(condition: () => boolean): Promise<true> {
  const patience = { timeoutMs: 5_000, everyMs: 5 };
  return eventually(String(condition), patience, () => condition() || undefined);
}
