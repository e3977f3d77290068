/** A process with the push endpoint alone, before the pods at the given addresses; says on request what it cost. */
import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { FLAGS } from '../../../operator/config.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { PodClient } from '../../../operator/pods/client.ts';
import { openDispatcher } from '../../../operator/pods/dispatcher.ts';
import { TokenSource } from '../../../operator/pods/token.ts';
import { BODY_PACE } from '../../../server/transfer/limits.ts';
import { startRig } from '../../operator/push/harness.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { POD_TOKEN } from '../../support/pod/scripted-pod.ts';
import { BYTES_MAX, geometry } from './subject.ts';

export interface Cost {
  outBytes: number;
  cpuMs: number;
  rssBytes: number;
}

const urls = process.argv.slice(2);
const rig = await startRig(
  {
    body: { windowMs: 10_000, windowBytesMin: 64 << 10, ...BODY_PACE },
    // Pods that share two processors with all others are silent for seconds.
    branch: { windowBytes: 4 << 20, stallMs: 30_000, startMs: 30_000 },
  },
  { relayFrom: Number(FLAGS['relay-from'].default) },
);
const token = new TokenSource(async () => ({ token: POD_TOKEN, previous: null }), systemClock);
const dispatcher = openDispatcher();
const life = new AbortController().signal;
rig.publisher.geometry = geometry();
rig.publisher.maxBytes = BYTES_MAX;
rig.publisher.pods = urls.map((adminUrl, index) => {
  return new FakePod({ name: `pod-${index}`, client: new PodClient({ adminUrl, dispatcher, token, life }) });
});

const sockets: Socket[] = [];
subscribe('undici:client:connected', (message) => {
  sockets.push((message as { socket: Socket }).socket);
});
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  const outBytes = sockets.reduce((sum, { bytesWritten }) => sum + bytesWritten, 0);
  const cost: Cost = { outBytes, cpuMs: (user + system) / 1000, rssBytes: process.memoryUsage.rss() };
  process.send?.(cost);
});
process.on('disconnect', () => process.exit(0));
process.send?.({ port: rig.port });
