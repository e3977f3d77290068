import { setTimeout as sleep } from 'node:timers/promises';
import { LORA_ADAPTERS, type LoraAdapter, type RevisionRecord, shortDigest } from '../../api/lora-adapter.ts';
import { pathOf } from '../../kube/resource.ts';
import { isApiError } from '../../kube/rest.ts';
import {
  type Command,
  ENDPOINT_FLAGS,
  type Invocation,
  KUBE_FLAGS,
  OUTPUT,
  PLAIN_OUTPUT,
  toggle,
} from '../command.ts';
import { Endpoint } from '../endpoint.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { getAdapter } from '../objects.ts';
import { print } from '../output.ts';
import { Pushed, pushedText } from '../pushed.ts';
import { findRevision, knownRevisions } from '../revision.ts';
import { rolloutState } from '../rollout-state.ts';
import { oneNamespace, type Session, withCluster } from '../session.ts';
import { table } from '../table.ts';
import { accountText, ageText, numberText, sizeText } from '../words.ts';

const EVERY_MS = 500;
const GRACE_MS = 15_000;

export const rolloutStatus: Command = {
  name: 'rollout status',
  args: 'NAME',
  arity: [1, 1],
  about: 'Waits until every pod that should serves the revision that it should.',
  detail: `
Ends with 0 when they do, with 1 where only a change by somebody helps (it says which), and with 3 when the time is up.

Examples:
  kubectl lora rollout status sql -n models --timeout 2m
  kubectl lora rollout status sql --timeout 0       looks once`,
  flags: {
    timeout: { value: 'TIME', default: '5m', help: 'how long it waits; 0 looks once' },
    ...KUBE_FLAGS,
  },
  run: async (invocation) => {
    await withCluster(invocation, (session) => waitFor(session, invocation));
  },
};

async function waitFor(session: Session, { io, flags, args: [name = ''] }: Invocation): Promise<void> {
  const deadlineMs = performance.now() + flags.durationMs('timeout');
  let last = '';
  for (;;) {
    const seen = rolloutState(await getAdapter(session, oneNamespace(session), name));
    if (seen.state === 'failed') throw new CommandFailure(seen.message, { todo: seen.todo });
    if (seen.state === 'done') {
      io.out(`loraadapter "${name}" successfully rolled out: ${seen.message}\n`);
      return;
    }
    if (seen.message !== last) io.out(`Waiting for loraadapter "${name}": ${seen.message}...\n`);
    last = seen.message;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) {
      throw new CommandFailure(`loraadapter "${name}" has not rolled out in time: ${seen.message}`, {
        exit: EXIT.timedOut,
        todo: `kubectl lora status ${name} -n ${session.namespace}`,
      });
    }
    await sleep(Math.min(EVERY_MS, leftMs));
  }
}

export const rolloutHistory: Command = {
  name: 'rollout history',
  args: 'NAME',
  arity: [1, 1],
  about: 'Lists the revisions that an adapter can go back to, the desired one first.',
  detail: `
How many are kept is spec.update.keepRevisions. STATE is desired, serving (what pods serve until the desired one has
come) or kept.

Examples:
  kubectl lora rollout history sql -n models
  kubectl lora rollout history sql -o json | jq -r '.[1].digest'`,
  flags: { ...OUTPUT, ...KUBE_FLAGS },
  run: async (invocation) => {
    await withCluster(invocation, async (session) => {
      const [name = ''] = invocation.args;
      const adapter = await getAdapter(session, oneNamespace(session), name);
      const known = knownRevisions(adapter).map((revision) => ({
        ...revision,
        state: stateOf(adapter, revision),
      }));
      if (known.length === 0) invocation.io.err(`LoraAdapter ${name} has no revision yet.\n`);
      print(invocation, known, (isWide) =>
        known.length === 0 ? '' : historyTable(known, { isWide, now: invocation.io.now() }),
      );
    });
  },
};

function stateOf({ status = {} }: LoraAdapter, { digest }: RevisionRecord): string {
  if (digest === status.desiredRevision?.digest) return 'desired';
  return digest === status.currentRevision?.digest ? 'serving' : 'kept';
}

export function historyTable(
  known: (RevisionRecord & { state: string })[],
  { isWide, now }: { isWide: boolean; now: Date },
): string {
  const headers = ['REVISION', 'STEP', 'STATE', 'RANK', 'SIZE', 'SINCE', 'BY', 'ROLLED BACK FROM'];
  const rows = known.map(({ digest, step, state, rank, bytes, at, pushedBy, rollback, targetModules }) => [
    isWide ? digest : shortDigest(digest),
    numberText(step),
    state,
    String(rank),
    sizeText(bytes),
    ageText(at, now),
    accountText(rollback?.by ?? pushedBy),
    rollback === undefined ? '-' : shortDigest(rollback.from),
    ...(isWide ? [targetModules.join(',')] : []),
  ]);
  return table(isWide ? [...headers, 'MODULES'] : headers, rows);
}

export const rolloutUndo: Command = {
  name: 'rollout undo',
  args: 'NAME',
  arity: [1, 1],
  about: 'Goes back to the revision before, or to one that --to names.',
  detail: `
A pushed adapter is rolled back through the operator, until the next push. Any other, and any with --pin, through its
spec (spec.update.revision), which holds until that field is removed: GitOps should know of it.
REV is the first digits of a digest, or step-N.

Examples:
  kubectl lora rollout undo sql -n models
  kubectl lora rollout undo sql --to step-400
  kubectl lora rollout undo sql --to 9e0ec293 --pin`,
  flags: {
    to: { value: 'REV', default: null, help: 'absent: the one before the desired one' },
    pin: toggle('through spec.update.revision, also where it is pushed'),
    timeout: { value: 'TIME', default: '30s', help: 'for the pods' },
    ...PLAIN_OUTPUT,
    ...KUBE_FLAGS,
    ...ENDPOINT_FLAGS,
  },
  run: async (invocation) => {
    await withCluster(invocation, async (session) => {
      const [name = ''] = invocation.args;
      const adapter = await getAdapter(session, oneNamespace(session), name);
      const asked = invocation.flags.optional('to');
      const to = asked === null ? null : findRevision(adapter, asked);
      const isPin = invocation.flags.isOn('pin') || adapter.spec.source.push === undefined;
      await (isPin ? pin(session, invocation, adapter, to) : rollBack(session, invocation, adapter, to));
    });
  },
};

const RolledBack = Pushed.extend({ previous: Pushed.shape.revision });

async function rollBack(
  session: Session,
  invocation: Invocation,
  adapter: LoraAdapter,
  to: RevisionRecord | null,
): Promise<void> {
  const { name } = adapter.metadata;
  const timeoutMs = invocation.flags.durationMs('timeout');
  const endpoint = await Endpoint.open(session, adapter, invocation.flags);
  const { status, body } = await endpoint.call({
    method: 'POST',
    path: `/rollback?timeout=${timeoutMs}ms`,
    headers: { 'content-type': 'application/json' },
    body: Buffer.from(JSON.stringify(to === null ? {} : { to: to.digest })),
    timeoutMs: timeoutMs + GRACE_MS,
    reply: RolledBack,
  });
  print(invocation, body, () => {
    const what = body.noop ? 'unchanged' : `rolled back from ${shortDigest(body.previous)}`;
    return `loraadapter.lorikeet.dev/${name} ${what}: ${body.revision}\n${pushedText(body, 'active')}`;
  });
  if (status === 202) {
    invocation.io.err(
      `It is accepted, and follows on the other pods: kubectl lora rollout status ${name} -n ${session.namespace}\n`,
    );
  }
}

async function pin(
  { rest }: Session,
  invocation: Invocation,
  adapter: LoraAdapter,
  to: RevisionRecord | null,
): Promise<void> {
  const { name, namespace = '' } = adapter.metadata;
  const revision = to ?? adapter.status?.previousRevisions?.[0];
  if (revision === undefined) {
    throw new CommandFailure(`LoraAdapter ${name} has no revision before this one`, {
      todo: `kubectl lora rollout history ${name} -n ${namespace}`,
    });
  }
  const path = pathOf(LORA_ADAPTERS, { namespace, name });
  const body = { spec: { update: { revision: revision.digest } } };
  try {
    await rest.request({ method: 'PATCH', path, body, query: { fieldManager: 'kubectl-lora' } });
  } catch (error) {
    if (!isApiError(error, 403)) throw error;
    throw new CommandFailure(`you may not change LoraAdapter ${name}`, {
      todo: `Ask for the right to patch loraadapters in namespace ${namespace} (the ClusterRole edit has it).`,
      cause: error,
    });
  }
  const value = { revision: revision.digest, step: revision.step, pinned: true };
  print(invocation, value, () => `loraadapter.lorikeet.dev/${name} pinned to ${revision.digest}\n`);
  const free = `kubectl patch lora ${name} -n ${namespace} --type=json -p '[{"op":"remove","path":"/spec/update/revision"}]'`;
  invocation.io.err(
    `It stays so until the spec says otherwise: ${free}\nkubectl lora rollout status ${name} -n ${namespace} waits for the pods.\n`,
  );
}
