import { timestamp } from './manifest.ts';

const LEASE_SECONDS = 40;

export interface NodeShape {
  name: string;
  address: string;
  kubeletPort: number;
  labels: Record<string, string>;
  capacity: Record<string, string>;
}

/** Large enough that the scheduler never refuses a test's pod for want of room: nothing is measured here. */
const CAPACITY = { cpu: '64', memory: '256Gi', pods: '250', 'ephemeral-storage': '1Ti' };

export function nodeObject({ name, address, kubeletPort, labels, capacity }: NodeShape) {
  const resources = { ...CAPACITY, ...capacity };
  const condition = (type: string, status: string, reason: string) => {
    const now = timestamp();
    return { type, status, reason, message: reason, lastHeartbeatTime: now, lastTransitionTime: now };
  };
  const standard = {
    'kubernetes.io/hostname': name,
    'kubernetes.io/os': 'linux',
    'kubernetes.io/arch': archOf(),
  };
  return {
    metadata: { name, labels: { ...standard, ...labels } },
    status: {
      capacity: resources,
      allocatable: resources,
      conditions: [
        condition('Ready', 'True', 'KubeletReady'),
        condition('MemoryPressure', 'False', 'KubeletHasSufficientMemory'),
        condition('DiskPressure', 'False', 'KubeletHasNoDiskPressure'),
        condition('PIDPressure', 'False', 'KubeletHasSufficientPID'),
      ],
      addresses: [
        { type: 'InternalIP', address },
        { type: 'Hostname', address: name },
      ],
      daemonEndpoints: { kubeletEndpoint: { Port: kubeletPort } },
    },
  };
}

function archOf(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

/** The node controller takes a node whose lease is not renewed for dead. */
export function leaseOf(name: string) {
  return {
    metadata: { name, namespace: 'kube-node-lease' },
    spec: {
      holderIdentity: name,
      leaseDurationSeconds: LEASE_SECONDS,
      renewTime: new Date().toISOString().replace(/Z$/, '000Z'),
    },
  };
}
