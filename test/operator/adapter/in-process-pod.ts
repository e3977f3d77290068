import { pino } from 'pino';
import type { Breaker } from '../../../operator/pods/breaker.ts';
import type { PodClient } from '../../../operator/pods/client.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import { Receiver } from '../../../server/adapters/receive.ts';
import { Registry } from '../../../server/adapters/registry.ts';
import { HEADER, type PodState } from '../../../server/contract/adapter-api.ts';
import { writeConfig } from '../../../server/contract/headers.ts';
import { NativeEngine } from '../../../server/engine/native.ts';
import { hashHere } from '../../../server/transfer/hash-thread.ts';
import { PodUnreachable } from '../../../server/transfer/unreachable.ts';
import { FakeEngine } from '../../support/fake-engine.ts';
import { BASE_MODEL } from '../../support/pod/state.ts';
import { POOL_KEY } from './objects.ts';

const LIMITS = { hostBytes: 64 << 20, maxRank: 64, maxAdapterBytes: 16 << 20 };

/** The real registry over a fake engine, without HTTP and without time of its own. */
export class InProcessPod {
  readonly name: string;
  readonly registry: Registry;
  /** Answers nobody, and what it holds stays as it is. */
  silent = false;

  constructor(name: string) {
    this.name = name;
    this.registry = new Registry({
      engine: new NativeEngine(new FakeEngine().start),
      baseModel: BASE_MODEL,
      limits: LIMITS,
      waiting: { max: 8, turnMax: 2 },
      log: pino({ level: 'silent' }),
    });
  }

  currentOf(name: string): string | null {
    return this.registry.state().adapters.find((adapter) => adapter.name === name)?.current ?? null;
  }
}

/** Lets each effect of an operator happen, or ends the operator before it or before its answer. */
export type Effects = <T>(act: () => Promise<T>) => Promise<T>;

/** One operator's view of a pod. */
export function linkTo(server: InProcessPod, effects: Effects): Pod {
  const { registry, name } = server;
  let heard: PodState | null = null;
  const call = <T>(act: () => Promise<T>) =>
    effects(async () => {
      if (server.silent) throw new PodUnreachable('silent', null);
      return await act();
    });
  const take = async (adapter: string, body: AsyncIterable<Uint8Array> | Buffer, options: Options) => {
    const { config, step, size } = options;
    const configHeader = writeConfig(config)[HEADER.config];
    const limits = { geometry: BASE_MODEL.geometry, ...LIMITS };
    const receiver = new Receiver({
      tier: registry.tier,
      allocate: registry.allocate,
      hash: hashHere(),
      limits,
      configHeader,
      contentLength: size,
    });
    for await (const chunk of Buffer.isBuffer(body) ? [body] : body) receiver.push(chunk);
    registry.requireFence(options.fence);
    return await registry.stage({
      name: adapter,
      received: await receiver.finish(),
      step,
      allowZeroEffect: true,
    });
  };
  const client: Partial<PodClient> = {
    responsive: true,
    breaker: { suspect() {} } as unknown as Breaker,
    state: () => call(async () => registry.state()),
    upload: (adapter, body, options) => call(() => take(adapter, body, options)),
    stage: (adapter, _digest, body, options) => call(() => take(adapter, body, options)),
    activate: (adapter, { revision: digest, ...request }, fence) =>
      call(() => registry.activate({ name: adapter, digest, ...request, fence })),
    remove: (adapter, digest, fence) => call(() => registry.remove(adapter, digest, fence)),
    fetch: (adapter, digest) =>
      call(async () => {
        const { body, config } = registry.fetch(adapter, digest);
        return { config: JSON.parse(config.toString()), body: [body] } as never;
      }),
  };
  return {
    key: `lora/${name}`,
    name,
    namespace: 'lora',
    uid: `uid-${name}`,
    ip: '127.0.1.1',
    poolKey: POOL_KEY,
    adminUrl: 'http://127.0.1.1:1',
    client: client as PodClient,
    get state() {
      if (!server.silent) heard = registry.state();
      return heard;
    },
    get reachable() {
      return !server.silent;
    },
    get error() {
      return server.silent ? 'silent' : null;
    },
  };
}

type Options = Parameters<PodClient['upload']>[2];
