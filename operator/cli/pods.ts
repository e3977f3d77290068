import type { ServerPool } from '../api/server-pool.ts';
import { CommandFailure } from './failure.ts';
import { exchange, type HttpCall, readReply, type Target, type TlsName } from './http.ts';
import { type PodObject, portOf, secretValue } from './objects.ts';
import type { Session } from './session.ts';
import { openTunnel } from './tunnel.ts';

const SERVING_PORT = 8000;
const CALL_MS = 15_000;

/** What it takes to call the admin API of a pool's pods: rights that the platform team has. */
export interface AdminAccess {
  token: string;
  port: number;
  tls: TlsName | null;
}

/** Reads the Secrets that the pool names; an ApiError 403 where the user may not. */
export async function adminAccess(session: Session, { spec, metadata }: ServerPool): Promise<AdminAccess> {
  const { auth, tls, port = 8001 } = spec.admin;
  const { name, key = 'token' } = auth.tokenSecretRef;
  const namespace = metadata.namespace ?? '';
  const token = (await secretValue(session, { namespace, name, key })).trim();
  if (tls === undefined) return { token, port, tls: null };
  const { name: caName, key: caKey = 'ca.crt' } = tls.caSecretRef;
  const ca = await secretValue(session, { namespace, name: caName, key: caKey });
  const client = tls.clientCertSecretRef;
  if (client === undefined) return { token, port, tls: { servername: tls.serverName, ca } };
  const part = (key: string) => secretValue(session, { namespace, name: client.name, key });
  const [cert, privateKey] = await Promise.all([part('tls.crt'), part('tls.key')]);
  return { token, port, tls: { servername: tls.serverName, ca, cert, key: privateKey } };
}

export function adminTarget(session: Session, pod: PodObject, { port, tls }: AdminAccess): Target {
  return podTarget(session, pod, { port, tls });
}

export function servingTarget(session: Session, pod: PodObject): Target {
  const port = portOf(pod, 'serving', SERVING_PORT);
  return podTarget(session, pod, { port, tls: null });
}

function podTarget(session: Session, pod: PodObject, at: { port: number; tls: TlsName | null }): Target {
  const { name, namespace = '' } = pod.metadata;
  return {
    told: `pod ${namespace}/${name}`,
    host: `${name}:${at.port}`,
    basePath: '',
    tls: at.tls,
    connect: () => openTunnel(session.kubeconfig, { namespace, pod: name, port: at.port }),
  };
}

/** The whole body of a reply that is 200. */
export async function getFrom(
  target: Target,
  path: string,
  { bytesMax, headers = {} }: { bytesMax: number; headers?: NonNullable<HttpCall['headers']> },
): Promise<string> {
  const { reply, done } = await exchange(target, { method: 'GET', path, headers, timeoutMs: CALL_MS });
  try {
    const text = (await readReply(reply, bytesMax)).toString('utf8');
    if (reply.statusCode === 200) return text;
    throw new CommandFailure(`${target.told} answers ${reply.statusCode}: ${text.slice(0, 200)}`);
  } finally {
    done();
  }
}

/** At most so many at a time, each answer in its place. */
export async function eachOf<T, R>(
  items: readonly T[],
  atOnce: number,
  run: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const queue = items.entries();
  const work = async () => {
    for (const [at, item] of queue) results[at] = await run(item);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, work));
  return results;
}
