import { z } from 'zod';
import { jsonOrNull } from '../../server/transfer/call.ts';
import { noAnswerOf } from './no-answer.ts';
import { caOf, type Values } from './secret-access.ts';
import { Retryable, Terminal } from './types.ts';
import { failureOfStatus, type Web, type WebAnswer } from './web.ts';

/** What a Secret holds for one registry. */
export interface OciAccess {
  /** For the host of an image; null where the Secret has nothing for that one. */
  basicFor: (host: string) => string | null;
  ca: string | null;
}

interface Asked {
  /** Below the repository. */
  path: string;
  headers: Record<string, string>;
}

const TOKEN_BYTES_MAX = 256 << 10;
/** Where Docker Hub answers the protocol. */
const HUB_HOSTS = new Map([['docker.io', 'registry-1.docker.io']]);

const TokenReply = z.object({ token: z.string().optional(), access_token: z.string().optional() });
const DockerConfig = z.object({
  auths: z.record(
    z.string(),
    z.object({
      auth: z.string().optional(),
      username: z.string().optional(),
      password: z.string().optional(),
    }),
  ),
});

/** One repository of a registry, spoken to over TLS alone, for one resolve or one fetch. */
export class Registry {
  readonly #web: Web;
  readonly #base: URL;
  readonly #repository: string;
  readonly #basic: string | null;
  #authorization: string | null = null;

  constructor(
    web: Web,
    { host, repository }: { host: string; repository: string },
    access: OciAccess | null,
  ) {
    this.#web = web;
    this.#base = new URL(`https://${HUB_HOSTS.get(host) ?? host}/v2/${repository}/`);
    this.#repository = repository;
    this.#basic = access?.basicFor(host) ?? null;
  }

  /** Where access is denied, for people. */
  get way(): string {
    return this.#basic === null
      ? 'spec.source.oci names no credentialsSecretRef with a user of this registry.'
      : 'May the user of credentialsSecretRef pull it?';
  }

  /** Asks again, once, with what the registry asks for. A redirect to where the bytes lie goes without it. */
  async get(asked: Asked, signal: AbortSignal): Promise<WebAnswer> {
    const answer = await this.#send(asked, signal);
    const challenge = answer.headers['www-authenticate'];
    // Nobody but the registry itself may say whom to ask for a token, and so who is shown the password.
    if (answer.status !== 401 || challenge === undefined || answer.origin !== this.#base.origin)
      return answer;
    answer.body.destroy();
    const authorization = await this.#authorize(challenge, signal);
    if (authorization === null) throw failureOfStatus(401, this.#name, this.way);
    this.#authorization = authorization;
    return await this.#send(asked, signal);
  }

  /** All bytes of a short answer. */
  async take({ body }: WebAnswer, bytesMax: number, signal: AbortSignal): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > bytesMax)
          throw new Terminal('SourceInvalid', `${this.#name} answers with too many bytes.`);
        chunks.push(chunk);
      }
    } catch (error) {
      throw signal.aborted ? signal.reason : noAnswerOf(error, this.#name);
    }
    return Buffer.concat(chunks);
  }

  close(): void {
    this.#web.close();
  }

  get #name(): string {
    return `${this.#base.host}/${this.#repository}`;
  }

  #send({ path, headers }: Asked, signal: AbortSignal): Promise<WebAnswer> {
    const url = new URL(path, this.#base);
    const authorization = this.#authorization === null ? {} : { authorization: this.#authorization };
    const request = { method: 'GET', url, name: this.#name, follow: 'anywhere' } as const;
    return this.#web.send({ ...request, headers: { ...headers, ...authorization } }, signal);
  }

  /** Null: there is nothing to show. */
  async #authorize(challenge: string, signal: AbortSignal): Promise<string | null> {
    if (/^basic\b/i.test(challenge)) return this.#basic;
    const realm = /^bearer\b.*?\brealm="([^"]+)"/i.exec(challenge)?.[1] ?? '';
    const url = URL.canParse(realm) ? new URL(realm) : null;
    if (url?.protocol !== 'https:')
      throw new Terminal('SourceInvalid', `${this.#name} asks for a token of no https URL.`);
    const service = /\bservice="([^"]*)"/i.exec(challenge)?.[1];
    if (service !== undefined) url.searchParams.set('service', service);
    url.searchParams.set('scope', `repository:${this.#repository}:pull`);
    const headers = this.#basic === null ? {} : { authorization: this.#basic };
    const name = `the token server of ${this.#name}`;
    const answer = await this.#web.send({ method: 'GET', url, name, follow: 'nowhere', headers }, signal);
    if (answer.status !== 200) {
      answer.body.destroy();
      throw failureOfStatus(answer.status, name, this.way);
    }
    const text = (await this.take(answer, TOKEN_BYTES_MAX, signal)).toString();
    const reply = TokenReply.safeParse(jsonOrNull(text));
    const token = reply.success ? (reply.data.token ?? reply.data.access_token) : undefined;
    // It goes into a header.
    if (token !== undefined && /^[!-~]+$/.test(token)) return `Bearer ${token}`;
    throw new Terminal('SourceInvalid', `The answer of ${name} holds no token.`);
  }
}

export function ociAccessIn(secret: Values, name: string): OciAccess {
  const { username, password, '.dockerconfigjson': docker } = secret;
  const ca = caOf(secret, name);
  if (username && password) {
    const basic = basicOf(username.trim(), password.trim());
    return { basicFor: () => basic, ca };
  }
  const config = DockerConfig.safeParse(jsonOrNull(docker ?? ''));
  if (config.success) return { basicFor: (host) => basicIn(config.data, host), ca };
  if (ca !== null && docker === undefined) return { basicFor: () => null, ca };
  throw new Retryable(
    'CredentialsNotFound',
    `Expected .dockerconfigjson, or the keys username and password, or ca.crt, in Secret ${name}.`,
  );
}

/** By host, as `docker login` and kubectl write it: with a scheme and a path, or without. */
function basicIn({ auths }: z.infer<typeof DockerConfig>, host: string): string | null {
  const hostOf = (key: string) => key.replace(/^https?:\/\//, '').split('/', 1)[0];
  const hosts = host === 'docker.io' ? [host, 'index.docker.io'] : [host];
  const [, found] = Object.entries(auths).find(([key]) => hosts.includes(hostOf(key) ?? '')) ?? [];
  if (found?.username && found.password) return basicOf(found.username, found.password);
  return found?.auth && /^[A-Za-z0-9+/]+=*$/.test(found.auth) ? `Basic ${found.auth}` : null;
}

function basicOf(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
