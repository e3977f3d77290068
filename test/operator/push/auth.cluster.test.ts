import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../../operator/kube/log.ts';
import { Rest } from '../../../operator/kube/rest.ts';
import { TokenAuth } from '../../../operator/push/auth.ts';
import { type ControlPlane, startControlPlane } from '../../cluster/control-plane.ts';
import { eventually } from '../../support/eventually.ts';

let plane: ControlPlane;
let rest: Rest;
let auth: TokenAuth;

const OBJECTS = `
apiVersion: v1
kind: Namespace
metadata: {name: team-a}
---
apiVersion: v1
kind: Namespace
metadata: {name: team-b}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: trainer, namespace: team-a}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: team-a}
---
apiVersion: v1
kind: Secret
metadata: {name: binding, namespace: team-a}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pusher, namespace: team-a}
rules:
- apiGroups: [lorikeet.dev]
  resources: [loraadapters/tensors]
  resourceNames: [sql]
  verbs: [update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: pusher, namespace: team-a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pusher}
subjects: [{kind: ServiceAccount, name: trainer, namespace: team-a}]
`;

beforeAll(async () => {
  plane = await startControlPlane();
  await plane.kubectl(['apply', '-f', '-'], OBJECTS);
  rest = Rest.fromKubeconfig({ kubeconfig: plane.kubeconfig });
});
afterAll(async () => {
  await rest?.close();
  await plane?.stop();
});

const sql = { namespace: 'team-a', name: 'sql', verb: 'update' } as const;

async function token(account: string, ...args: string[]): Promise<string> {
  const minted = await plane.kubectl(['create', 'token', account, '-n', 'team-a', ...args]);
  return minted.trim();
}

async function verdict(bearer: string, target: Parameters<TokenAuth['allow']>[1] = sql): Promise<string> {
  auth = new TokenAuth({ rest, audience: 'lorikeet-push', log: silentLog });
  return await auth.allow(bearer, target).then(
    ({ username }) => username,
    (error) => error.code,
  );
}

describe('a real API server', () => {
  it('lets in a token for our audience whose account may push to this adapter, and no other', async () => {
    const ours = await token('trainer', '--audience', 'lorikeet-push');
    expect(await verdict(ours)).toBe('system:serviceaccount:team-a:trainer');
    expect(await verdict(ours, { ...sql, name: 'pirate' })).toBe('forbidden');
    expect(await verdict(ours, { ...sql, namespace: 'team-b' })).toBe('forbidden');
    expect(await verdict(ours, { ...sql, verb: 'get' })).toBe('forbidden');
    expect(await verdict(await token('stranger', '--audience', 'lorikeet-push'))).toBe('forbidden');
  });

  it('keeps out tokens for the API server itself, spoilt ones, and ones of an administrator', async () => {
    const ours = await token('trainer', '--audience', 'lorikeet-push');
    expect(await verdict(await token('trainer'))).toBe('unauthenticated');
    expect(await verdict(await token('trainer', '--audience', 'other'))).toBe('unauthenticated');
    expect(await verdict(`${ours.slice(0, -4)}AAAA`)).toBe('unauthenticated');
    expect(await verdict(plane.adminToken)).toBe('unauthenticated');
  });

  it('keeps out a token whose object is gone', async () => {
    const binding = ['--bound-object-kind', 'Secret', '--bound-object-name', 'binding'];
    const bound = await token('trainer', '--audience', 'lorikeet-push', ...binding);
    expect(await verdict(bound)).toBe('system:serviceaccount:team-a:trainer');
    await plane.kubectl(['delete', 'secret', 'binding', '-n', 'team-a']);
    // The API server itself remembers a good token for ten seconds.
    await eventually('the token is refused', { timeoutMs: 20_000, everyMs: 500 }, async () => {
      return (await verdict(bound)) === 'unauthenticated' || undefined;
    });
  });
});
