import type { KubeConfig } from '@kubernetes/client-node';
import { systemClock } from '../kube/clock.ts';
import { credentialsOf, loadKubeconfig } from '../kube/credentials.ts';
import { silentLog } from '../kube/log.ts';
import { Rest } from '../kube/rest.ts';
import type { Invocation } from './command.ts';

/** The cluster of one command, as its user. */
export interface Session {
  kubeconfig: KubeConfig;
  rest: Rest;
  /** Null: all of them. */
  namespace: string | null;
}

/** Runs with the cluster that the flags name, and lets go of it after. */
export async function withCluster<T>(
  { flags }: Pick<Invocation, 'flags'>,
  run: (session: Session) => Promise<T>,
): Promise<T> {
  const path = flags.optional('kubeconfig') ?? undefined;
  const kubeconfig = loadKubeconfig(path, flags.optional('context') ?? undefined);
  const credentials = credentialsOf(kubeconfig, path, { clock: systemClock, log: silentLog });
  const rest = new Rest({ credentials, userAgent: 'kubectl-lora' });
  try {
    const namespace = flags.isOn('all-namespaces')
      ? null
      : namespaceOf(kubeconfig, flags.optional('namespace'));
    return await run({ kubeconfig, rest, namespace });
  } finally {
    await rest.close();
  }
}

export function namespaceOf(kubeconfig: KubeConfig, asked: string | null): string {
  const context = kubeconfig.getContextObject(kubeconfig.getCurrentContext());
  return asked ?? context?.namespace ?? 'default';
}

/** Of a command that is about one adapter, which takes no --all-namespaces. */
export function oneNamespace({ namespace }: Session): string {
  if (namespace === null) throw new Error('a command about one adapter was run in all namespaces');
  return namespace;
}
