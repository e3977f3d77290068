import { findCondition, type Reason } from '../api/conditions.ts';
import { type LoraAdapter, shortDigest } from '../api/lora-adapter.ts';
import { podsText } from '../pods/words.ts';

export type RolloutState =
  | { state: 'done' | 'going'; message: string }
  /** Nothing but somebody's change helps. */
  | { state: 'failed'; message: string; todo: string };

/** Reasons of Ready that stay until somebody changes something. */
const FINAL: readonly Reason[] = [
  'Suspended',
  'WaitingForPush',
  'RevisionNotKept',
  'RevisionLost',
  'SourceInvalid',
  'AdapterMalformed',
  'AdapterUnsupported',
  'AdapterIncompatible',
  'AdapterTooLarge',
  'RankTooLarge',
  'DigestMismatch',
  'RankMismatch',
  'TargetModulesMismatch',
  'NotPermitted',
  'PoolNotFound',
  'QuotaExceeded',
  'ServedNameTaken',
  'ServedNameInvalid',
  'NoReplicas',
];

/** How far the pods are with what the object asks for. Pure. */
export function rolloutState({ metadata, spec, status = {} }: LoraAdapter): RolloutState {
  const { name, namespace = '', generation = 0 } = metadata;
  if (metadata.deletionTimestamp !== undefined) {
    const todo = `kubectl get lora ${name} -n ${namespace} -o yaml shows what holds it.`;
    return { state: 'failed', message: `loraadapter "${name}" is being deleted`, todo };
  }
  const ready = findCondition(status.conditions, 'Ready');
  const { desiredRevision, pods = { desired: 0, ready: 0 } } = status;
  const isSeen = (ready?.observedGeneration ?? -1) >= generation;
  if (ready === undefined || !isSeen)
    return { state: 'going', message: 'the operator has not looked at it yet' };
  if (FINAL.includes(ready.reason as Reason)) {
    return {
      state: 'failed',
      message: `loraadapter "${name}" cannot roll out: ${ready.reason}: ${ready.message}`,
      todo: todoOf(ready.reason as Reason, name, namespace),
    };
  }
  const revision = desiredRevision === undefined ? 'a revision' : desiredRevision.short;
  const count = `${pods.ready} of ${podsText(pods.desired)} serve ${revision}`;
  const isPinned = spec.update?.revision ?? desiredRevision?.digest;
  if (isPinned !== undefined && isPinned !== desiredRevision?.digest) {
    return { state: 'going', message: `${count}; ${shortDigest(isPinned)} is asked for` };
  }
  if (ready.status === 'True') return { state: 'done', message: count };
  return { state: 'going', message: `${count} (${ready.reason}: ${ready.message})` };
}

function todoOf(reason: Reason, name: string, namespace: string): string {
  switch (reason) {
    case 'Suspended':
      return `kubectl patch lora ${name} -n ${namespace} --type=merge -p '{"spec":{"suspend":false}}'`;
    case 'WaitingForPush':
    case 'RevisionLost':
      return `kubectl lora push ${name} DIR -n ${namespace}`;
    case 'RevisionNotKept':
      return `kubectl lora rollout history ${name} -n ${namespace} lists what is kept.`;
    default:
      return `kubectl lora status ${name} -n ${namespace}`;
  }
}
