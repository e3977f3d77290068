import { readFile } from 'node:fs/promises';
import { type KubeObject, pathOf, type Resource } from '../kube/resource.ts';
import { isApiError } from '../kube/rest.ts';
import type { FlagValues } from './command.ts';
import { CommandFailure } from './failure.ts';
import { listAll } from './objects.ts';
import type { Session } from './session.ts';

interface RoleBinding extends KubeObject {
  roleRef: { kind: string; name: string };
  subjects?: { kind: string; name: string; namespace?: string }[];
}

const ROLE_BINDINGS: Resource = {
  group: 'rbac.authorization.k8s.io',
  version: 'v1',
  plural: 'rolebindings',
  kind: 'RoleBinding',
  namespaced: true,
};
const SERVICE_ACCOUNTS: Resource = {
  group: '',
  version: 'v1',
  plural: 'serviceaccounts',
  kind: 'ServiceAccount',
  namespaced: true,
};
/** As the operator's chart names the ClusterRole of trainers. */
const PUSHER = /(^|-)pusher$/;
/** The least that an API server gives. */
const TOKEN_SECONDS = 600;

/**
 * What the push endpoint is shown: never the user's own credentials, which would let the operator act as the user, but a
 * token that is good for its audience only.
 */
export async function tokenFor(
  session: Session,
  namespace: string,
  flags: FlagValues,
): Promise<{ token: string; account: string | null }> {
  const tokenFile = flags.optional('token-file');
  if (tokenFile !== null) return { token: (await readFile(tokenFile, 'utf8')).trim(), account: null };
  const asked = flags.optional('account');
  const account = asked === null ? await accountOf(session, namespace) : parseAccount(asked, namespace);
  return { token: await requestToken(session, account, flags.text('audience')), account: told(account) };
}

interface Account {
  namespace: string;
  name: string;
}

function told({ namespace, name }: Account): string {
  return `${namespace}/${name}`;
}

export function parseAccount(text: string, namespace: string): Account {
  const [first = '', second] = text.split('/');
  return second === undefined ? { namespace, name: first } : { namespace: first, name: second };
}

/** The one account that a RoleBinding of the namespace makes a pusher. */
async function accountOf(session: Session, namespace: string): Promise<Account> {
  const bindings = await listAll<RoleBinding>(session, ROLE_BINDINGS, { namespace }).catch(
    (error: unknown) => {
      if (isApiError(error, 403)) return [];
      throw error;
    },
  );
  const accounts = pushersOf(bindings);
  const [account, other] = accounts;
  if (account !== undefined && other === undefined) return account;
  const todo =
    account === undefined
      ? [
          'Name one with --account NAME (or LORIKEET_ACCOUNT), or make one and let it:',
          `  kubectl create serviceaccount trainer -n ${namespace}`,
          `  kubectl create rolebinding trainer-pushes -n ${namespace} --clusterrole=lorikeet-pusher --serviceaccount=${namespace}:trainer`,
        ].join('\n')
      : `Name one with --account: ${accounts.slice(0, 10).map(told).join(', ')}.`;
  const which = account === undefined ? 'no ServiceAccount is known that may' : 'several ServiceAccounts may';
  throw new CommandFailure(`${which} call the operator for adapters of namespace ${namespace}`, { todo });
}

export function pushersOf(bindings: readonly RoleBinding[]): Account[] {
  const subjects = bindings
    .filter(({ roleRef }) => PUSHER.test(roleRef.name))
    .flatMap(({ subjects = [], metadata }) =>
      subjects
        .filter(({ kind }) => kind === 'ServiceAccount')
        .map(({ name, namespace = metadata.namespace ?? '' }) => ({ namespace, name })),
    );
  return [...new Map(subjects.map((account) => [told(account), account])).values()];
}

async function requestToken({ rest }: Session, account: Account, audience: string): Promise<string> {
  const path = pathOf(SERVICE_ACCOUNTS, { ...account, subresource: 'token' });
  const spec = { audiences: [audience], expirationSeconds: TOKEN_SECONDS };
  const body = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
  try {
    const reply = await rest.request<{ status: { token: string } }>({ method: 'POST', path, body });
    return reply.status.token;
  } catch (error) {
    if (isApiError(error, 404)) {
      throw new CommandFailure(`there is no ServiceAccount ${told(account)}`, {
        todo: `kubectl create serviceaccount ${account.name} -n ${account.namespace}`,
        cause: error,
      });
    }
    if (!isApiError(error, 403)) throw error;
    throw new CommandFailure(`you may not make a token of the ServiceAccount ${told(account)}`, {
      todo: `Ask for the right to create serviceaccounts/token of it, or show a token with --token-file FILE.`,
      cause: error,
    });
  }
}
