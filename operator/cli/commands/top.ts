import { setTimeout as sleep } from 'node:timers/promises';
import { PodState } from '../../../server/contract/adapter-api.ts';
import type { ServerPool } from '../../api/server-pool.ts';
import { isApiError } from '../../kube/rest.ts';
import { ALL_NAMESPACES, type Command, type Invocation, KUBE_FLAGS, OUTPUT } from '../command.ts';
import { CommandFailure, Misuse } from '../failure.ts';
import { type AdapterLoad, adapterLoads, type PodLoad, type PodScrapes, podLoad } from '../load.ts';
import { parseMetrics } from '../metrics-text.ts';
import { listPools, type PodObject, podsOf } from '../objects.ts';
import { print } from '../output.ts';
import { type AdminAccess, adminAccess, adminTarget, eachOf, getFrom, servingTarget } from '../pods.ts';
import { type Session, withCluster } from '../session.ts';
import { table } from '../table.ts';
import { numberText, roughly, sizeText } from '../words.ts';

const PODS_AT_ONCE = 8;
const SCRAPE_BYTES_MAX = 32 << 20;
const STATE_BYTES_MAX = 64 << 20;
const INTERVAL_MS_MAX = 300_000;

export const top: Command = {
  name: 'top',
  args: '[POOL]',
  arity: [0, 1],
  about: 'Shows the traffic, tokens per second, slots and memory of pods and adapters.',
  detail: `
The metrics of each pod are read twice, through a port-forward: you need the right to create pods/portforward.
PROMPT/S and TOKENS/S are prompt tokens, those from the prefix cache included, and generated tokens per second in
between; pods count the latter for all adapters together. REQ/MIN is what pods counted in the last minute; it is in
their admin API, and is shown where you may read the pool's Secret.

Examples:
  kubectl lora top -n models
  kubectl lora top llama-8b --interval 10s -o json`,
  flags: {
    interval: { value: 'TIME', default: '2s', help: 'between the two readings' },
    ...ALL_NAMESPACES,
    ...OUTPUT,
    ...KUBE_FLAGS,
  },
  run: async (invocation) => {
    const intervalMs = invocation.flags.durationMs('interval');
    if (intervalMs < 100 || intervalMs > INTERVAL_MS_MAX) throw new Misuse('--interval is 100ms to 5m');
    await withCluster(invocation, (session) => show(session, invocation, intervalMs));
  },
};

async function show(session: Session, invocation: Invocation, intervalMs: number): Promise<void> {
  const pools = await poolsAsked(session, invocation.args[0]);
  const notes = new Set<string>();
  const found = await Promise.all(pools.map((pool) => readPool(session, pool, { intervalMs, notes })));
  const scrapes = found.flat();
  const value = { pods: scrapes.map(podLoad), adapters: adapterLoads(scrapes) };
  print(invocation, value, (isWide) => {
    const parts = [
      value.pods.length === 0 ? '' : podsTable(value.pods, { isWide, isMany: pools.length > 1 }),
      value.adapters.length === 0 ? '' : loadsTable(value.adapters, { isMany: pools.length > 1 }),
    ];
    return parts.filter((part) => part !== '').join('\n');
  });
  if (notes.size > 0) invocation.io.err(`\n${[...notes].join('\n')}\n`);
  if (scrapes.length === 0) throw new CommandFailure('no pod of a pool could be read');
}

async function poolsAsked(session: Session, name: string | undefined): Promise<ServerPool[]> {
  const pools = await listPools(session);
  const asked = name === undefined ? pools : pools.filter(({ metadata }) => metadata.name === name);
  if (asked.length > 0) return asked;
  const where = session.namespace === null ? 'any namespace' : `namespace ${session.namespace}`;
  throw new CommandFailure(`there is no ServerPool ${name === undefined ? '' : `"${name}" `}in ${where}`, {
    todo: 'kubectl get lorapools --all-namespaces lists those that there are.',
  });
}

interface Reading {
  intervalMs: number;
  /** What people are told of what is missing. */
  notes: Set<string>;
}

async function readPool(session: Session, pool: ServerPool, reading: Reading): Promise<PodScrapes[]> {
  const [pods, access] = await Promise.all([podsOf(session, pool), accessOrNote(session, pool, reading)]);
  const firsts = await eachOf(pods, PODS_AT_ONCE, (pod) => scrape(session, pod, reading));
  await sleep(reading.intervalMs);
  const read = await eachOf([...pods.entries()], PODS_AT_ONCE, async ([at, pod]) => {
    const first = firsts[at];
    const second = first === null ? null : await scrape(session, pod, reading);
    if (first === null || first === undefined || second === null) return null;
    const state = access === null ? null : await stateOf(session, pod, { access, reading });
    return {
      pod: pod.metadata.name,
      pool: `${pool.metadata.namespace}/${pool.metadata.name}`,
      seconds: (second.atMs - first.atMs) / 1000,
      first: first.samples,
      second: second.samples,
      state,
    };
  });
  return read.filter((item) => item !== null);
}

async function accessOrNote(
  session: Session,
  pool: ServerPool,
  { notes }: Reading,
): Promise<AdminAccess | null> {
  try {
    return await adminAccess(session, pool);
  } catch (error) {
    if (!(isApiError(error, 403) || isApiError(error, 404) || error instanceof CommandFailure)) throw error;
    const name = pool.spec.admin.auth.tokenSecretRef.name;
    notes.add(`REQ/MIN is not known: you may not read the Secret ${pool.metadata.namespace}/${name}.`);
    return null;
  }
}

async function scrape(session: Session, pod: PodObject, { notes }: Reading) {
  try {
    const text = await getFrom(servingTarget(session, pod), '/metrics', { bytesMax: SCRAPE_BYTES_MAX });
    return { atMs: performance.now(), samples: parseMetrics(text) };
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    notes.add([error.message, error.todo].filter((part) => part !== null).join('\n'));
    return null;
  }
}

async function stateOf(
  session: Session,
  pod: PodObject,
  { access, reading }: { access: AdminAccess; reading: Reading },
): Promise<PodState | null> {
  try {
    const headers = { authorization: `Bearer ${access.token}` };
    const target = adminTarget(session, pod, access);
    return PodState.parse(
      JSON.parse(await getFrom(target, '/lora/v1/state', { bytesMax: STATE_BYTES_MAX, headers })),
    );
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    reading.notes.add(`REQ/MIN lacks ${pod.metadata.name}: ${error.message}`);
    return null;
  }
}

export function podsTable(pods: PodLoad[], { isWide, isMany }: { isWide: boolean; isMany: boolean }): string {
  const headers = [
    ...(isMany ? ['POOL'] : []),
    ...['POD', 'RUNNING', 'WAITING', 'PROMPT/S', 'TOKENS/S', 'SLOTS', 'KV', 'HOST MEMORY'],
    ...(isWide && !isMany ? ['POOL'] : []),
  ];
  const rows = pods.map((pod) => [
    ...(isMany ? [pod.pool] : []),
    ...[pod.pod, numberText(pod.running), numberText(pod.waiting)],
    ...[roughly(pod.promptTokensPerSecond), roughly(pod.tokensPerSecond)],
    pod.slots.used === null ? '-' : `${pod.slots.used}/${pod.slots.total}`,
    percent(pod.kvUsed),
    pod.hostBytes.used === null ? '-' : `${sizeText(pod.hostBytes.used)} of ${sizeText(pod.hostBytes.total)}`,
    ...(isWide && !isMany ? [pod.pool] : []),
  ]);
  return table(headers, rows);
}

export function loadsTable(adapters: AdapterLoad[], { isMany }: { isMany: boolean }): string {
  const headers = [
    ...(isMany ? ['POOL'] : []),
    ...['SERVED NAME', 'REQ/MIN', 'PROMPT/S', 'PREFIX HITS', 'PODS', 'IN SLOTS'],
  ];
  const rows = adapters.map((adapter) => [
    ...(isMany ? [adapter.pool] : []),
    adapter.servedName === '' ? '(base)' : adapter.servedName,
    adapter.servedName === '' ? '-' : numberText(adapter.requestsPerMinute),
    roughly(adapter.promptTokensPerSecond),
    percent(adapter.prefixHits),
    ...(adapter.servedName === '' ? ['-', '-'] : [String(adapter.pods), String(adapter.inSlots)]),
  ]);
  return table(headers, rows);
}

function percent(share: number | null): string {
  return share === null ? '-' : `${Math.round(share * 100)}%`;
}
