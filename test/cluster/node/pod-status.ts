import type { Container } from './container.ts';
import { type Condition, type Pod, timestamp } from './manifest.ts';

export interface Observed {
  pod: Pod;
  podIP: string;
  hostIP: string;
  startTime: string;
  initContainers: Container[];
  containers: Container[];
  initialized: boolean;
  terminating: boolean;
  /** Why nothing could be started so far. */
  setup: string | null;
}

/** What the kubelet would report of a pod in this state. */
export function podStatus(observed: Observed): Record<string, unknown> {
  const { pod, podIP, hostIP, startTime } = observed;
  return {
    observedGeneration: pod.metadata.generation,
    phase: phaseOf(observed),
    conditions: conditionsOf(observed),
    hostIP,
    hostIPs: [{ ip: hostIP }],
    podIP,
    podIPs: [{ ip: podIP }],
    startTime,
    initContainerStatuses: observed.initContainers.map((container) => containerStatus(container, pod)),
    containerStatuses: observed.containers.map((container) => containerStatus(container, pod)),
  };
}

function containerStatus(container: Container, pod: Pod): Record<string, unknown> {
  const all = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
  const image = all.find(({ name }) => name === container.name)?.image;
  return {
    name: container.name,
    image,
    imageID: image,
    containerID: container.containerID,
    ready: container.ready,
    started: container.started,
    restartCount: container.restartCount,
    state: container.state,
    lastState: container.lastState,
  };
}

function phaseOf({ pod, initContainers, containers, initialized }: Observed): string {
  const policy = pod.spec.restartPolicy ?? 'Always';
  const codes = containers.map(exitCodeOf);
  if (!initialized) {
    const failed = initContainers.some((container) => (exitCodeOf(container) ?? 0) !== 0);
    return failed && policy === 'Never' ? 'Failed' : 'Pending';
  }
  if (containers.every((container) => neverRan(container))) return 'Pending';
  const isOver =
    codes.every((code) => code !== null) &&
    (policy !== 'Always' || pod.metadata.deletionTimestamp !== undefined);
  if (!isOver) return 'Running';
  if (codes.every((code) => code === 0)) return 'Succeeded';
  return policy === 'OnFailure' && pod.metadata.deletionTimestamp === undefined ? 'Running' : 'Failed';
}

function exitCodeOf({ state }: Container): number | null {
  return 'terminated' in state ? state.terminated.exitCode : null;
}

function neverRan({ state, lastState }: Container): boolean {
  return 'waiting' in state && lastState.terminated === undefined;
}

function conditionsOf(observed: Observed): Condition[] {
  const { pod, containers, initialized, terminating, setup } = observed;
  const held = new Map((pod.status?.conditions ?? []).map((condition) => [condition.type, condition]));
  const unready = containers.filter(({ ready }) => !ready).map(({ name }) => name);
  const containersReady = initialized && unready.length === 0;
  const gates = pod.spec.readinessGates ?? [];
  const gatesOpen = gates.every(({ conditionType }) => held.get(conditionType)?.status === 'True');
  const unreadyReason = {
    reason: 'ContainersNotReady',
    message: `containers with unready status: [${unready.join(' ')}]`,
  };
  const set = (type: string, value: boolean, why: Partial<Condition> = {}) => {
    const status = value ? 'True' : 'False';
    const before = held.get(type);
    const lastTransitionTime = before?.status === status ? before.lastTransitionTime : undefined;
    held.set(type, {
      type,
      status,
      lastTransitionTime: lastTransitionTime ?? timestamp(),
      ...(value ? {} : why),
    });
  };
  set('PodReadyToStartContainers', setup === null, setup === null ? {} : { reason: 'Setup', message: setup });
  set('Initialized', initialized);
  set('ContainersReady', containersReady, unreadyReason);
  set(
    'Ready',
    containersReady && gatesOpen && !terminating,
    containersReady ? { reason: 'ReadinessGatesNotReady' } : unreadyReason,
  );
  return [...held.values()];
}
