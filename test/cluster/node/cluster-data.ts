import { type Api, isStatus } from '../api.ts';
import { NotStartable, type Pod } from './manifest.ts';

/** The decoded data of a Secret or ConfigMap; null where there is none. */
export async function readData(api: Api, path: string): Promise<Record<string, Buffer> | null> {
  try {
    const object = (await api.get(path)) as {
      kind: string;
      data?: Record<string, string>;
      binaryData?: Record<string, string>;
    };
    const decode = (data: Record<string, string> = {}, encoding: BufferEncoding) =>
      Object.entries(data).map(([key, value]) => [key, Buffer.from(value, encoding)] as const);
    const text = decode(object.data, object.kind === 'Secret' ? 'base64' : 'utf8');
    return Object.fromEntries([...text, ...decode(object.binaryData, 'base64')]);
  } catch (error) {
    if (isStatus(error, 404)) return null;
    throw error;
  }
}

/** A token of the pod's own ServiceAccount, good for as long as the pod is there. */
export async function requestToken(
  api: Api,
  { metadata: { namespace, name, uid }, spec }: Pod,
  { audience, seconds }: { audience: string | undefined; seconds: number },
): Promise<string> {
  const account = spec.serviceAccountName ?? 'default';
  const reply = await api.call('POST', `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`, {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: {
      audiences: audience === undefined ? [] : [audience],
      expirationSeconds: seconds,
      boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
    },
  });
  return (reply as { status: { token: string } }).status.token;
}

/** The folder of this machine behind a claim. */
export async function claimPath(api: Api, namespace: string, claim: string): Promise<string> {
  const bound = (await api.get(`/api/v1/namespaces/${namespace}/persistentvolumeclaims/${claim}`)) as {
    spec: { volumeName?: string };
  };
  const name = bound.spec.volumeName;
  if (!name) throw new NotStartable('ContainerCreating', `claim "${claim}" is not bound`);
  const volume = (await api.get(`/api/v1/persistentvolumes/${name}`)) as {
    spec: { hostPath?: { path: string } };
  };
  const folder = volume.spec.hostPath?.path;
  if (folder === undefined) throw new NotStartable('ContainerCreating', `volume ${name} has no hostPath`);
  return folder;
}
