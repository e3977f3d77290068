import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Held } from '../adapters/host-tier.ts';
import { type ReceivedAdapter, Receiver } from '../adapters/receive.ts';
import type { Registry } from '../adapters/registry.ts';
import {
  ActivateRequest,
  HEADER,
  MEDIA_TYPE,
  type PutAdapterReply,
  type RemoveReply,
  RollbackRequest,
  type StageReply,
} from '../contract/adapter-api.ts';
import { expected, LorikeetError } from '../contract/errors.ts';
import {
  readAllow,
  readConfig,
  readContentDigest,
  readContentLength,
  readFence,
  readIfMatch,
  readInFlight,
  readRelay,
  readStep,
  readWatch,
  requireContentDigest,
  requireContentType,
  writeContent,
  writeStep,
} from '../contract/headers.ts';
import { bodyDeadlineMs, requireBodySize } from '../transfer/limits.ts';
import { Relay } from '../transfer/relay.ts';
import { type IncomingBody, pump, readJsonAs } from '../transfer/request-body.ts';
import type { Onward } from './onward.ts';
import { readDigest, readName } from './path.ts';
import { OpenWatches } from './watch.ts';

/** Clients commonly take 16 KiB of reply headers; a longer config that the body carries too is left to the body. */
const CONFIG_HEADER_CHARACTERS_MAX = 12 << 10;

type Params = { name: string; digest: string };
type Call = FastifyRequest<{ Params: Params }>;
type Handler = (call: Call, reply: FastifyReply) => Promise<unknown>;
type Method = 'GET' | 'PUT' | 'POST' | 'DELETE';

export interface AdminRoutes {
  registry: Registry;
  onward: Onward;
}

/** The admin API as server/contract/adapter-api.ts defines it. A usual method that a path lacks is answered 405. */
export function registerAdminRoutes(app: FastifyInstance, { registry, onward }: AdminRoutes): void {
  const relays = () => onward.isHopeful();
  const state = () => ({ ...registry.state(), relays: relays() });
  const watches = new OpenWatches(registry, relays);
  app.addHook('preClose', async () => watches.endAll());
  app.addHook('onClose', () => onward.dispatcher.destroy());
  const routes: Record<string, Partial<Record<Method, Handler>>> = {
    '/lora/v1/state': { GET: async () => state() },
    '/lora/v1/watch': { GET: (call, reply) => watch(watches, call, reply) },
    '/lora/v1/seeded': { POST: (call, reply) => seeded(registry, call, reply) },
    '/lora/v1/adapters/:name': { DELETE: (call, reply) => remove(registry, call, reply) },
    '/lora/v1/adapters/:name/activate': { POST: (call, reply) => activate(registry, call, reply) },
    '/lora/v1/adapters/:name/rollback': { POST: (call, reply) => rollback(registry, call, reply) },
    '/lora/v1/adapters/:name/revisions': { POST: (call, reply) => upload(registry, call, { reply, onward }) },
    '/lora/v1/adapters/:name/revisions/:digest': {
      GET: (call, reply) => fetchRevision(registry, call, reply),
      PUT: (call, reply) => stage(registry, call, reply),
      DELETE: (call, reply) => remove(registry, call, reply),
    },
    '/v1/adapters/:name': { PUT: (call, reply) => put(registry, call, reply) },
  };
  for (const [url, handlers] of Object.entries(routes)) {
    for (const method of ['GET', 'PUT', 'POST', 'DELETE', 'PATCH', 'OPTIONS'] as const) {
      const handler =
        (handlers as Partial<Record<string, Handler>>)[method] ?? notAllowed(Object.keys(handlers));
      app.route<{ Params: Params }>({ method, url, exposeHeadRoute: false, handler });
    }
  }
}

/** The digest is not known before the last byte; other pods may get the body from this one. */
async function upload(
  registry: Registry,
  call: Call,
  { reply, onward }: { reply: FastifyReply; onward: Onward },
): Promise<StageReply> {
  const { raw, headers } = call;
  const urls = readRelay(headers, { scheme: onward.scheme, port: raw.socket.localPort ?? 0 });
  if (urls.length === 0) return await stage(registry, call, reply);
  const bytes = readContentLength(headers);
  if (bytes === null) throw expected('length_required', 'content-length', 'a body of announced length', null);
  const path = raw.url ?? '';
  const relay = new Relay({ ...onward, urls, path, headers, bytes });
  try {
    const staged = await stage(registry, call, reply, relay);
    return { ...staged, relayed: await relay.outcome() };
  } catch (error) {
    relay.abort();
    throw error;
  }
}

/** The digest is in the path, or not known before the last byte. */
async function stage(
  registry: Registry,
  call: Call,
  reply: FastifyReply,
  relay?: Relay,
): Promise<StageReply> {
  const name = readName(call.params.name);
  const digest = call.params.digest === undefined ? null : readDigest(call.params.digest);
  const step = readStep(call.headers);
  const allowZeroEffect = readAllow(call.headers).includes('zero_effect');
  registry.requireFence(readFence(call.headers));
  const known = digest === null ? null : await registry.restage(name, digest, { step, allowZeroEffect });
  if (known !== null) return known;
  registry.requireName(name);
  const received = await receive(registry, call, reply, relay);
  if (digest !== null && received.incoming.digest !== digest) {
    received.reservation.release();
    throw expected('digest_mismatch', 'digest', digest, received.incoming.digest);
  }
  return registry.stage({ name, received, step, allowZeroEffect });
}

async function put(registry: Registry, call: Call, reply: FastifyReply): Promise<PutAdapterReply> {
  const name = readName(call.params.name);
  const step = readStep(call.headers);
  const allowZeroEffect = readAllow(call.headers).includes('zero_effect');
  const expectCurrent = readIfMatch(call.headers) ?? undefined;
  const inFlight = readInFlight(call.headers);
  registry.requireFence(readFence(call.headers));
  registry.requireName(name);
  const received = await receive(registry, call, reply);
  return registry.put({ name, received, step, allowZeroEffect }, { expectCurrent, inFlight });
}

async function receive(
  registry: Registry,
  { raw, headers }: Call,
  reply: FastifyReply,
  relay?: Relay,
): Promise<ReceivedAdapter> {
  requireContentType(raw.headersDistinct, [MEDIA_TYPE]);
  const announced = readContentDigest(headers);
  const { maxAdapterBytes, maxRank } = registry.limits;
  const contentLength = readContentLength(headers);
  requireBodySize(contentLength ?? 0, maxAdapterBytes);
  const receiver = new Receiver({
    tier: registry.tier,
    allocate: registry.allocate,
    hash: registry.hashing.begin(contentLength),
    limits: { geometry: registry.baseModel.geometry, maxRank, maxAdapterBytes },
    configHeader: readConfig(headers),
    contentLength,
  });
  try {
    const exchange = { request: raw, response: reply.raw };
    const take = (chunk: Buffer) => {
      receiver.push(chunk);
      if (receiver.body !== null) relay?.advance(receiver.body);
    };
    await pump(exchange, take, bodyDeadlineMs(contentLength ?? maxAdapterBytes));
    const received = await receiver.finish();
    // Another operator may have come while the bytes did.
    registry.requireFence(readFence(headers));
    requireContentDigest(announced, received.tensorsSha256);
    return received;
  } catch (error) {
    receiver.abort();
    throw error;
  }
}

async function activate(registry: Registry, call: Call, reply: FastifyReply): Promise<unknown> {
  const name = readName(call.params.name);
  const fence = readFence(call.headers);
  const { revision, expectCurrent, keep, inFlight, accepted } = await readJsonAs(
    ActivateRequest,
    bodyOf(call, reply),
  );
  return registry.activate({ name, digest: revision, expectCurrent, keep, fence, inFlight, accepted });
}

async function rollback(registry: Registry, call: Call, reply: FastifyReply): Promise<unknown> {
  const name = readName(call.params.name);
  const fence = readFence(call.headers);
  const { to, expectCurrent, inFlight } = await readJsonAs(RollbackRequest, bodyOf(call, reply));
  return registry.rollback({ name, to, expectCurrent, fence, inFlight });
}

function bodyOf({ raw }: Call, reply: FastifyReply): IncomingBody {
  return { request: raw, response: reply.raw };
}

async function remove(registry: Registry, call: Call, reply: FastifyReply): Promise<RemoveReply> {
  const name = readName(call.params.name);
  const digest = call.params.digest === undefined ? null : readDigest(call.params.digest);
  const removed = await registry.remove(name, digest, readFence(call.headers));
  reply.code(removed.leases > 0 ? 202 : 200);
  return removed;
}

async function fetchRevision(registry: Registry, call: Call, reply: FastifyReply): Promise<FastifyReply> {
  const name = readName(call.params.name);
  const digest = readDigest(call.params.digest);
  const held = registry.fetch(name, digest);
  const { step } = registry.lookup.describe(name, digest);
  const content = writeContent(MEDIA_TYPE, held.body.length);
  return reply.headers({ ...content, ...configHeader(held), ...writeStep(step) }).send(held.body);
}

function configHeader({ config, configInBody }: Held): Record<string, string> {
  const header = config.toString('base64url');
  return configInBody && header.length > CONFIG_HEADER_CHARACTERS_MAX ? {} : { [HEADER.config]: header };
}

async function watch(watches: OpenWatches, { headers }: Call, reply: FastifyReply): Promise<void> {
  watches.requireRoom();
  reply.hijack();
  watches.open(reply.raw, readWatch(headers));
}

async function seeded(registry: Registry, call: Call, reply: FastifyReply): Promise<FastifyReply> {
  registry.markSeeded(readFence(call.headers));
  return reply.code(204).send();
}

function notAllowed(methods: string[]): Handler {
  return async (call, reply) => {
    reply.header('allow', methods.join(', '));
    const message = `Expected ${methods.join(' or ')} but received ${call.method}`;
    const detail = { field: 'method', expected: methods, actual: call.method };
    throw new LorikeetError('method_not_allowed', message, detail);
  };
}
