import { shortDigest } from '../../api/lora-adapter.ts';
import { isApiError } from '../../kube/rest.ts';
import { msText, podsText } from '../../pods/words.ts';
import {
  ALL_NAMESPACES,
  type Command,
  ENDPOINT_FLAGS,
  type Invocation,
  KUBE_FLAGS,
  OUTPUT,
} from '../command.ts';
import { Endpoint } from '../endpoint.ts';
import { CommandFailure, Misuse } from '../failure.ts';
import { HeldRevisions, type HeldRow, heldRows } from '../held.ts';
import { getAdapter, listAdapters, listPools, poolOf } from '../objects.ts';
import { print } from '../output.ts';
import { oneNamespace, type Session, withCluster } from '../session.ts';
import { facts, table } from '../table.ts';
import { type AdapterView, adapterView, type PoolView, poolView, revisionText } from '../view.ts';
import { accountText, ageText, numberText, sizeText } from '../words.ts';

const HELD_MS = 15_000;

export const status: Command = {
  name: 'status',
  args: '[NAME]',
  arity: [0, 1],
  about: 'Shows which revision the pods serve, and how far apart they changed to it.',
  detail: `
Without a name: every adapter, and every pool. With one: its revisions pod by pod, who pushed it, and what is wrong.
SKEW is the time between the first and the last pod of the last swap. TIER is where a pod has the revision: in a
slot of the engine, or in host memory. What pods hold is asked of the operator, which needs "get" on
loraadapters/tensors; without that the rest is shown all the same.

Examples:
  kubectl lora status -A
  kubectl lora status sql -n models
  kubectl lora status sql -o json | jq -r .current.digest`,
  flags: { ...ALL_NAMESPACES, ...OUTPUT, ...KUBE_FLAGS, ...ENDPOINT_FLAGS },
  run: async (invocation) => {
    const [name] = invocation.args;
    if (name !== undefined && invocation.flags.isOn('all-namespaces')) {
      throw new Misuse('a name and --all-namespaces do not go together', 'Name the namespace with -n.');
    }
    await withCluster(invocation, (session) =>
      name === undefined ? showAll(session, invocation) : showOne(session, invocation, name),
    );
  },
};

async function showAll(session: Session, invocation: Invocation): Promise<void> {
  const [adapters, pools] = await Promise.all([
    listAdapters(session),
    listPools(session).catch((error: unknown) => {
      if (isApiError(error, 403)) return [];
      throw error;
    }),
  ]);
  const found = { adapters: adapters.map(adapterView), pools: pools.map(poolView) };
  if (found.adapters.length + found.pools.length === 0) {
    const where = session.namespace === null ? 'any namespace' : `namespace ${session.namespace}`;
    invocation.io.err(`No adapters and no pools in ${where}.\n`);
  }
  const shape = { isEverywhere: session.namespace === null, now: invocation.io.now() };
  print(invocation, found, (isWide) => {
    const parts = [
      found.adapters.length > 0 ? adaptersTable(found.adapters, { ...shape, isWide }) : '',
      found.pools.length > 0 ? poolsTable(found.pools, { ...shape, isWide }) : '',
    ];
    return parts.filter((part) => part !== '').join('\n');
  });
}

interface Shape {
  isEverywhere: boolean;
  isWide: boolean;
  now: Date;
}

export function adaptersTable(adapters: AdapterView[], { isEverywhere, isWide, now }: Shape): string {
  const headers = [
    ...(isEverywhere ? ['NAMESPACE'] : []),
    ...['NAME', 'POOL', 'READY', 'PODS', 'REVISION', 'STEP', 'SKEW', 'FROM', 'SINCE'],
    ...(isWide ? ['SERVED', 'RANK', 'SIZE', 'REASON'] : []),
  ];
  const rows = adapters.map((adapter) => {
    const { current, desired, pods, lastSwap } = adapter;
    const shown = desired ?? current;
    return [
      ...(isEverywhere ? [adapter.namespace] : []),
      ...[adapter.name, adapter.pool, adapter.ready, `${pods.ready}/${pods.desired}`, revisionText(adapter)],
      numberText(shown?.step),
      lastSwap === null || lastSwap.pods < 2 ? '-' : msText(lastSwap.skewMs),
      accountText(adapter.from),
      ageText(shown?.at, now),
      ...(isWide
        ? [adapter.servedName, numberText(shown?.rank), sizeText(shown?.bytes), adapter.reason]
        : []),
    ];
  });
  return table(headers, rows);
}

export function poolsTable(
  pools: PoolView[],
  { isEverywhere }: Pick<Shape, 'isEverywhere'> & Partial<Shape>,
): string {
  const headers = [
    ...(isEverywhere ? ['NAMESPACE'] : []),
    ...['POOL', 'BASE', 'READY', 'PODS', 'ADAPTERS', 'SLOTS', 'HOST MEMORY', 'TROUBLE'],
  ];
  const rows = pools.map((pool) => [
    ...(isEverywhere ? [pool.namespace] : []),
    ...[pool.name, pool.base, pool.ready, `${pool.pods.ready}/${pool.pods.total}`, String(pool.adapters)],
    pool.slots === null ? '-' : `${pool.slots.used}/${pool.slots.total}`,
    pool.hostBytes === null ? '-' : `${sizeText(pool.hostBytes.used)} of ${sizeText(pool.hostBytes.total)}`,
    pool.trouble ?? 'none',
  ]);
  return table(headers, rows);
}

async function showOne(session: Session, invocation: Invocation, name: string): Promise<void> {
  const adapter = await getAdapter(session, oneNamespace(session), name);
  const view = adapterView(adapter);
  const pool = await poolOf(session, adapter);
  const asked = Endpoint.open(session, adapter, invocation.flags).then((endpoint) =>
    endpoint.call({ method: 'GET', path: '/revisions', timeoutMs: HELD_MS, reply: HeldRevisions }),
  );
  const held = await asked.catch((error: unknown) => {
    if (error instanceof CommandFailure) return error;
    if (isApiError(error, 403)) return new CommandFailure(error.message);
    throw error;
  });
  const rows = held instanceof CommandFailure ? null : heldRows(held.body);
  const value = { ...view, poolStatus: pool === null ? null : poolView(pool), revisions: rows };
  print(invocation, value, (isWide) =>
    oneText(value, { isWide, isEverywhere: false, now: invocation.io.now() }),
  );
  if (held instanceof CommandFailure) {
    invocation.io.err(
      `\nWhat pods hold is not shown: ${held.message}.\n${held.todo === null ? '' : `${held.todo}\n`}`,
    );
  }
}

interface Detail extends AdapterView {
  poolStatus: PoolView | null;
  revisions: HeldRow[] | null;
}

export function oneText(view: Detail, shape: Shape): string {
  const parts = [summary(view, shape), trouble(view), podErrors(view, shape), held(view, shape)];
  return parts.filter((part) => part !== '').join('\n');
}

function summary(view: Detail, { now }: Shape): string {
  const { desired, current, lastSwap, poolStatus, pods } = view;
  const shown = desired ?? current;
  const slots = poolStatus?.slots ?? null;
  const isPushed = shown?.pushedBy !== undefined;
  return facts([
    ['Name', `${view.namespace}/${view.name}`],
    ['Served as', view.servedName],
    [
      'Pool',
      poolStatus === null
        ? view.pool
        : `${view.pool}, ${poolStatus.pods.ready} of ${podsText(poolStatus.pods.total)} ready${slots === null ? '' : `, ${slots.used} of ${slots.total} slots taken`}`,
    ],
    ['Source', view.source],
    [
      'Ready',
      `${view.ready}, ${pods.ready} of ${podsText(pods.desired)}${view.suspended ? ', suspended' : ''}`,
    ],
    ['Revision', shown === null ? 'none yet' : revisionLine(view)],
    ['From', isPushed ? `${accountText(shown?.pushedBy)}, ${ageText(shown?.at, now)} ago` : null],
    ['Since', isPushed || shown === null ? null : `${ageText(shown.at, now)} ago`],
    ['Rolled back', shown?.rollback === undefined ? null : rollbackText(shown.rollback)],
    [
      'Last swap',
      lastSwap === null
        ? null
        : `${msText(lastSwap.durationMs)} over ${podsText(lastSwap.pods)}${lastSwap.pods < 2 ? '' : `, skew ${msText(lastSwap.skewMs)}`}`,
    ],
  ]);
}

function revisionLine(view: Detail): string {
  const shown = view.desired ?? view.current;
  const step = shown?.step === null || shown?.step === undefined ? '' : `, step ${shown.step}`;
  const modules = (shown?.targetModules ?? []).join(' ');
  return `${revisionText(view)}${step}, rank ${shown?.rank} on ${modules}, ${sizeText(shown?.bytes)}`;
}

function rollbackText({ from, by }: { from: string; by?: string | undefined }): string {
  return `from ${shortDigest(from)}${by === undefined ? '' : ` by ${accountText(by)}`}`;
}

/** Conditions that do not hold, but those that only wait for them. */
function trouble({ conditions }: Detail): string {
  const broken = conditions.filter(({ status, reason }) => status !== 'True' && reason !== 'Pending');
  // Ready says what the first of the others says.
  const failing = broken.length > 1 ? broken.filter(({ type }) => type !== 'Ready') : broken;
  if (failing.length === 0) return '';
  return table(
    ['CONDITION', 'STATUS', 'REASON', 'MESSAGE'],
    failing.map(({ type, status, reason, message }) => [type, status, reason, message]),
  );
}

function podErrors({ podErrors }: Detail, { now }: Shape): string {
  if (podErrors.length === 0) return '';
  return table(
    ['FAILING POD', 'REASON', 'TRIED AGAIN', 'MESSAGE'],
    podErrors.map(({ name, reason, message, retryAt }) => [
      name,
      reason,
      retryAt === undefined ? 'no' : inText(retryAt, now),
      message,
    ]),
  );
}

function inText(at: string, now: Date): string {
  const seconds = Math.round((Date.parse(at) - now.getTime()) / 1000);
  return seconds <= 0 ? 'now' : `in ${seconds}s`;
}

function held({ revisions }: Detail, { isWide }: Shape): string {
  if (revisions === null || revisions.length === 0) return '';
  const rows = revisions.map(({ pod, revision, step, state, tier, desired }) => {
    return [
      pod,
      isWide ? revision : shortDigest(revision),
      numberText(step),
      state,
      tier,
      desired ? 'yes' : 'no',
    ];
  });
  return table(['POD', 'REVISION', 'STEP', 'STATE', 'TIER', 'DESIRED'], rows);
}
