import { readFile } from 'node:fs/promises';
import type { ZodType } from 'zod';
import { ErrorReply } from '../../server/contract/adapter-api.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import { PODS, pathOf } from '../kube/resource.ts';
import { isApiError } from '../kube/rest.ts';
import { tokenFor } from './account.ts';
import type { FlagValues } from './command.ts';
import { CommandFailure } from './failure.ts';
import { exchange, type HttpCall, readReply, type Target, urlTarget } from './http.ts';
import { isReady, listAll, type PodObject, portOf, SERVICES, type ServiceObject } from './objects.ts';
import { OperatorRefusal } from './refusal.ts';
import { selectorText } from './selector.ts';
import type { Session } from './session.ts';
import { openTunnel } from './tunnel.ts';

const REPLY_BYTES_MAX = 64 << 20;
const PUSH_PORT = 8080;
const OPERATOR = 'app.kubernetes.io/name=lorikeet';
const OPERATOR_NAMESPACE = 'lorikeet-system';
/** `http://lorikeet.lorikeet-system.svc:8080/…`, which only pods can resolve. */
const SERVICE_HOST = /^([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\.[a-z0-9.-]+)?$/;

export type EndpointCall<T> = Omit<HttpCall, 'path'> & {
  /** After the path of the adapter: `/why`. */
  path: string;
  reply: ZodType<T>;
};

/** The operator's push endpoint, for one adapter. */
export class Endpoint {
  readonly #target: Target;
  readonly #token: string;
  /** `namespace/name` of the ServiceAccount that calls; null: whose token was given. */
  readonly account: string | null;
  readonly #adapter: LoraAdapter;

  private constructor(
    target: Target,
    caller: { token: string; account: string | null },
    adapter: LoraAdapter,
  ) {
    this.#target = target;
    this.#token = caller.token;
    this.account = caller.account;
    this.#adapter = adapter;
  }

  static async open(session: Session, adapter: LoraAdapter, flags: FlagValues): Promise<Endpoint> {
    const caller = await tokenFor(session, adapter.metadata.namespace ?? '', flags);
    return new Endpoint(await targetFor(session, adapter, flags), caller, adapter);
  }

  async call<T>({ reply: schema, path, ...call }: EndpointCall<T>): Promise<{ status: number; body: T }> {
    const { namespace = '', name } = this.#adapter.metadata;
    const { reply, done } = await exchange(this.#target, {
      ...call,
      path: `/v1/namespaces/${encodeURIComponent(namespace)}/adapters/${encodeURIComponent(name)}${path}`,
      headers: { authorization: `Bearer ${this.#token}`, ...call.headers },
    });
    try {
      const status = reply.statusCode ?? 0;
      const text = (await readReply(reply, REPLY_BYTES_MAX)).toString('utf8');
      if (status >= 400) throw this.#refusal(status, text);
      return { status, body: schema.parse(JSON.parse(text)) };
    } finally {
      done();
    }
  }

  #refusal(status: number, text: string): CommandFailure {
    const told = ErrorReply.safeParse(parsed(text));
    if (!told.success) {
      return new CommandFailure(`${this.#target.told} answers ${status}, and not as an operator would`, {
        todo: 'Look whether --push-url, or the Service, is that of the operator.',
      });
    }
    return new OperatorRefusal(told.data.error, { adapter: this.#adapter, account: this.account });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function targetFor(session: Session, adapter: LoraAdapter, flags: FlagValues): Promise<Target> {
  const caFile = flags.optional('push-ca-file');
  const ca = caFile === null ? undefined : await readFile(caFile, 'utf8');
  const given = flags.optional('push-url');
  const advertised = adapter.status?.pushURL;
  if (given !== null) return urlTarget(baseOf(given, '--push-url'), ca);
  const asked = flags.optional('operator-namespace');
  if (advertised !== undefined && asked === null) {
    const url = baseOf(advertised.replace(/\/v1\/namespaces\/.*$/, ''), 'status.pushURL');
    const [, name, namespace] = SERVICE_HOST.exec(url.hostname) ?? [];
    if (name === undefined || namespace === undefined) return urlTarget(url, ca);
    return throughService(session, await getService(session, { name, namespace }), ca);
  }
  return throughService(session, await findService(session, asked), ca);
}

function baseOf(text: string, what: string): URL {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/.test(url.protocol)) return url;
  throw new CommandFailure(`${what} is no http or https URL: ${text}`);
}

async function getService(
  { rest }: Session,
  { name, namespace }: { name: string; namespace: string },
): Promise<ServiceObject> {
  try {
    return await rest.request<ServiceObject>({ method: 'GET', path: pathOf(SERVICES, { namespace, name }) });
  } catch (error) {
    if (isApiError(error, 403)) throw notAllowed(namespace, error);
    throw error;
  }
}

/** The Service of the operator, wherever one is that the user may see. */
async function findService(session: Session, asked: string | null): Promise<ServiceObject> {
  const look = (namespace: string | undefined) =>
    listAll<ServiceObject>(session, SERVICES, { namespace, labelSelector: OPERATOR });
  const found = await (asked === null ? look(undefined).catch(elsewhere) : look(asked)).catch(
    (error: unknown) => {
      throw isApiError(error, 403) ? notAllowed(asked ?? OPERATOR_NAMESPACE, error) : error;
    },
  );
  const [service, other] = found;
  if (service !== undefined && other === undefined) return service;
  const names = found.map(({ metadata }) => metadata.namespace).join(', ');
  throw new CommandFailure(
    service === undefined
      ? `there is no Service of an operator (${OPERATOR}) in ${asked ?? 'any namespace'}`
      : `there are several operators, in ${names}`,
    { todo: 'Say where it is: --operator-namespace NAME, or --push-url URL.' },
  );

  function elsewhere(error: unknown) {
    if (isApiError(error, 403)) return look(OPERATOR_NAMESPACE);
    throw error;
  }
}

function notAllowed(namespace: string, cause: unknown): CommandFailure {
  return new CommandFailure(`you may not look for the operator in namespace ${namespace}`, {
    todo: `Name its endpoint with --push-url URL, or ask for the rights to get services, list pods and create pods/portforward in ${namespace}.`,
    cause,
  });
}

async function throughService(
  session: Session,
  service: ServiceObject,
  ca: string | undefined,
): Promise<Target> {
  const { name, namespace = '' } = service.metadata;
  const labelSelector = selectorText({ matchLabels: service.spec.selector ?? {} });
  const pods = await listAll<PodObject>(session, PODS, { namespace, labelSelector }).catch(
    (error: unknown) => {
      throw isApiError(error, 403) ? notAllowed(namespace, error) : error;
    },
  );
  const pod = pods.find(isReady);
  if (pod === undefined) {
    throw new CommandFailure(`no pod of the operator is ready (Service ${namespace}/${name})`, {
      todo: `kubectl get pods -n ${namespace} -l ${labelSelector}`,
    });
  }
  const args = pod.spec.containers.flatMap(({ args = [] }) => args);
  const isTls = args.some((arg) => arg.startsWith('--push-tls-cert-file'));
  const servername = `${name}.${namespace}.svc`;
  const port = portOf(pod, 'push', PUSH_PORT);
  return {
    told: `the operator (pod ${namespace}/${pod.metadata.name})`,
    host: `${servername}:${port}`,
    basePath: '',
    tls: isTls ? { servername, ca } : null,
    connect: () => openTunnel(session.kubeconfig, { namespace, pod: pod.metadata.name, port }),
  };
}
