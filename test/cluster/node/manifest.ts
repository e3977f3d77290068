import type { V1PodSpec } from '@kubernetes/client-node';

/** The parts of a pod that the node reads; times are strings, as they come over the wire. */
export interface Pod {
  metadata: {
    name: string;
    namespace: string;
    uid: string;
    generation?: number;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    deletionTimestamp?: string;
    deletionGracePeriodSeconds?: number;
  };
  spec: V1PodSpec;
  status?: { phase?: string; conditions?: Condition[] };
}

export interface Condition {
  type: string;
  status: 'True' | 'False' | 'Unknown';
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
}

/** What an image is here: a command of this machine. */
export interface Image {
  /** The image's ENTRYPOINT; a container's `command` replaces it. */
  entrypoint: string[];
  /** The image's CMD; a container's `args` replace it. */
  cmd?: string[];
  /** The image's WORKDIR, and what a pod sees that mounts the image as a volume. */
  cwd: string;
  /** The image's ENV. */
  env?: Record<string, string>;
}

/** A thing that the manifest names and the cluster does not have (yet): the kubelet waits for it, so do we. */
export class NotStartable extends Error {
  readonly reason: 'CreateContainerConfigError' | 'ContainerCreating' | 'ErrImagePull';

  constructor(reason: NotStartable['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

export function folderOf(image: Image | undefined, reference: string): string {
  if (image === undefined) throw new NotStartable('ErrImagePull', `no image "${reference}"`);
  return image.cwd;
}

export function timestamp(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, 'Z');
}
