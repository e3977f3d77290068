import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Rest } from '../../../operator/kube/rest.ts';
import { SecretForbidden, secretsOf } from '../../../operator/kube/secrets.ts';
import { ScriptedServer } from './scripted-server.ts';

const signal = new AbortController().signal;
let server: ScriptedServer;
let rest: Rest;

beforeEach(async () => {
  server = await ScriptedServer.start();
  rest = new Rest({ credentials: server.credentials });
});
afterEach(async () => {
  await rest.close();
  await server.stop();
});

/** As an API server says it. */
const forbidden = (message: string) => ({
  status: 403,
  body: { kind: 'Status', status: 'Failure', reason: 'Forbidden', code: 403, message },
});
const read = () => secretsOf(rest)('team-a', 'nope', signal);

describe('a Secret', () => {
  it('is given decoded', async () => {
    server.script = () => ({ status: 200, body: { data: { token: 'aHVudGVyMg==' } } });
    expect(await read()).toEqual({ token: 'hunter2' });
    expect(server.requests.map(({ path }) => path)).toEqual(['/api/v1/namespaces/team-a/secrets/nope']);
  });

  it('that is not there is null', async () => {
    expect(await read()).toBeNull();
  });

  it('that no Role lets us read is told apart: which verb on what is missing, and for whom', async () => {
    const user = 'system:serviceaccount:lorikeet-system:lorikeet';
    server.script = () =>
      forbidden(
        `secrets "nope" is forbidden: User "${user}" cannot get resource "secrets" in API group "" in the namespace "team-a"`,
      );
    const error = await read().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(SecretForbidden);
    expect((error as Error).message).toBe(`No Role lets ${user} get secrets/nope in namespace team-a`);
  });

  it('is told apart too where the refusal does not say whom it is about', async () => {
    server.script = () => forbidden('no');
    await expect(read()).rejects.toThrow('No Role lets the operator get secrets/nope in namespace team-a');
  });

  it('that cannot be had just now fails as the call did', async () => {
    server.script = () => ({ status: 500 });
    await expect(read()).rejects.toMatchObject({ name: 'ApiError', status: 500 });
  });
});
