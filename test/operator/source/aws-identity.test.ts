import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { failureOf } from '../../../operator/adapter/failures.ts';
import { ambientIdentity } from '../../../operator/source/aws-identity.ts';
import { WebServer } from './web-server.ts';

const KEYS = { accessKeyId: 'ASIAEXAMPLE', secretAccessKey: 'secret', sessionToken: 'session' };
const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString();

let server: WebServer;
let dir: string;

beforeEach(async () => {
  server = await WebServer.start();
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-aws-'));
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) vi.stubEnv(name, undefined);
  vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', join(dir, 'none'));
  vi.stubEnv('AWS_CONFIG_FILE', join(dir, 'none'));
  vi.stubEnv('AWS_EC2_METADATA_SERVICE_ENDPOINT', server.url);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await Promise.all([server.stop(), rm(dir, { recursive: true })]);
});

async function useWebIdentity(): Promise<void> {
  await writeFile(join(dir, 'token'), 'token-of-the-service-account');
  vi.stubEnv('AWS_ROLE_ARN', 'arn:aws:iam::123456789012:role/lorikeet');
  vi.stubEnv('AWS_WEB_IDENTITY_TOKEN_FILE', join(dir, 'token'));
  vi.stubEnv('AWS_ENDPOINT_URL_STS', server.url);
}

describe('the identity of the operator at AWS', () => {
  it('is what STS gives for the token of its service account, asked once for many reads', async () => {
    await useWebIdentity();
    const asked: URLSearchParams[] = [];
    server.answer = async (request, response) => {
      const parts = await (request as AsyncIterable<Buffer> & typeof request).toArray();
      asked.push(new URLSearchParams(Buffer.concat(parts).toString()));
      const { accessKeyId, secretAccessKey, sessionToken } = KEYS;
      response
        .writeHead(200, { 'content-type': 'text/xml' })
        .end(
          `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>${accessKeyId}</AccessKeyId><SecretAccessKey>${secretAccessKey}</SecretAccessKey><SessionToken>${sessionToken}</SessionToken><Expiration>${inAnHour()}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
        );
    };
    const identity = ambientIdentity();
    expect(await identity()).toMatchObject(KEYS);
    expect(await identity()).toMatchObject(KEYS);
    expect(
      asked.map((form) => [form.get('Action'), form.get('RoleArn'), form.get('WebIdentityToken')]),
    ).toEqual([
      [
        'AssumeRoleWithWebIdentity',
        'arn:aws:iam::123456789012:role/lorikeet',
        'token-of-the-service-account',
      ],
    ]);
  });

  it('is that of the instance, by the metadata that wants a token', async () => {
    server.answer = (request, response) => {
      if (request.method === 'PUT' && request.url === '/latest/api/token')
        return void response.end('imds-token');
      if (request.headers['x-aws-ec2-metadata-token'] !== 'imds-token')
        return void response.writeHead(401).end();
      if (request.url?.endsWith('/security-credentials/')) return void response.end('node-role');
      if (!request.url?.endsWith('/security-credentials/node-role'))
        return void response.writeHead(404).end();
      response.end(
        JSON.stringify({
          Code: 'Success',
          AccessKeyId: KEYS.accessKeyId,
          SecretAccessKey: KEYS.secretAccessKey,
          Token: KEYS.sessionToken,
          Expiration: inAnHour(),
        }),
      );
    };
    expect(await ambientIdentity()()).toMatchObject(KEYS);
  });

  it('that STS refuses is told of in words of our own', async () => {
    await useWebIdentity();
    server.answer = (_request, response) =>
      void response
        .writeHead(403, { 'content-type': 'text/xml' })
        .end(
          '<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>canary</Message></Error></ErrorResponse>',
        );
    const failure = failureOf(
      await ambientIdentity()().then(
        () => null,
        (error: unknown) => error,
      ),
    );
    expect(failure).toMatchObject({ reason: 'CredentialsNotFound', terminal: false });
    expect(failure.message).toMatch(
      /^The operator gets no AWS identity of its own \(--aws-identity ambient\): /,
    );
  });
});
