import { join } from 'node:path';

/** Of the suite's own network namespace: it meets nothing of the machine's. */
export const NETWORK = {
  bridge: 'lorikeet0',
  gateway: '10.88.0.1',
  prefix: 16,
  cidr: '10.88.0.0/16',
  /** As the API server of control-plane.ts gives them out. */
  services: '10.96.0.0/16',
};

/** Pods get addresses above those of the nodes; `addressesDir` is shared by all nodes, so that no two pods get the same. */
export function networkConfig(addressesDir: string): string {
  return JSON.stringify({
    cniVersion: '0.4.0',
    name: 'pods',
    plugins: [
      {
        type: 'bridge',
        bridge: NETWORK.bridge,
        isGateway: false,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          dataDir: addressesDir,
          ranges: [[{ subnet: NETWORK.cidr, rangeStart: '10.88.1.0', gateway: NETWORK.gateway }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  });
}

export function containerdConfig(dir: string): string {
  return `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/lorikeet-pause:dev"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${join(dir, 'network')}"
`;
}

export interface KubeletPlace {
  dir: string;
  address: string;
  cgroupRoot: string;
}

export function kubeletConfig({ dir, address, cgroupRoot }: KubeletPlace): string {
  return JSON.stringify({
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    address,
    healthzPort: 0,
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    cgroupDriver: 'cgroupfs',
    cgroupRoot,
    containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
    enforceNodeAllocatable: [],
    evictionHard: {},
    failCgroupV1: false,
    failSwapOn: false,
    // A full disk is the machine's own affair: no image is removed, no pod evicted for it.
    imageGCHighThresholdPercent: 100,
    resolvConf: join(dir, 'resolv.conf'),
  });
}
