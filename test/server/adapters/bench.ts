import pino from 'pino';
import { type ReceivedAdapter, Receiver } from '../../../server/adapters/receive.ts';
import type { RegistryOptions } from '../../../server/adapters/registry.ts';
import { Registry } from '../../../server/adapters/registry.ts';
import { NativeEngine } from '../../../server/engine/native.ts';
import { hashHere } from '../../../server/transfer/hash-thread.ts';
import { type AdapterFiles, goodAdapter } from '../../support/adapter-files.ts';
import { FakeEngine } from '../../support/fake-engine.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';

export const MAX_ADAPTER_BYTES = 1 << 21;
/** Every `goodAdapter` has this size. */
export const ADAPTER_BYTES = goodAdapter().tensors.length;
/** What each takes of the host tier. */
export const HELD_BYTES = (await received(bench({ hostBytes: 1 << 30 }).registry, goodAdapter())).incoming
  .hostBytes;

export interface Bench {
  engine: FakeEngine;
  /** The server's way to it. */
  native: NativeEngine;
  registry: Registry;
}

export interface Room {
  slots: number;
  /** In adapters. */
  room: number;
  hostBytes: number;
}

/** A registry over a fake engine, with room for so many adapters. */
export function bench({ slots = 8, room = 16, hostBytes = room * HELD_BYTES }: Partial<Room> = {}): Bench {
  const engine = new FakeEngine(slots);
  const native = new NativeEngine(engine.start);
  const options: RegistryOptions = {
    engine: native,
    baseModel: { name: 'parrot', digest: `sha256:${'0'.repeat(64)}`, geometry: PARROT_GEOMETRY },
    limits: { hostBytes, maxRank: 64, maxAdapterBytes: MAX_ADAPTER_BYTES },
    waiting: { max: 8, turnMax: 2 },
    log: pino({ level: 'silent' }),
  };
  return { engine, native, registry: new Registry(options) };
}

export async function received(registry: Registry, files: AdapterFiles): Promise<ReceivedAdapter> {
  const receiver = new Receiver({
    tier: registry.tier,
    allocate: registry.allocate,
    hash: hashHere(),
    limits: { ...registry.limits, geometry: PARROT_GEOMETRY },
    configHeader: files.config.toString('base64url'),
    contentLength: files.tensors.length,
  });
  try {
    receiver.push(files.tensors);
    return await receiver.finish();
  } catch (error) {
    receiver.abort();
    throw error;
  }
}

/** Stages the adapter of this seed; returns its digest. */
export async function stage(
  registry: Registry,
  name: string,
  seed: number,
  step: number | null = null,
): Promise<string> {
  const request = {
    name,
    received: await received(registry, goodAdapter(seed)),
    step,
    allowZeroEffect: false,
  };
  return (await registry.stage(request)).revision;
}

export async function put(
  registry: Registry,
  name: string,
  seed: number,
  step: number | null = null,
): Promise<string> {
  const request = {
    name,
    received: await received(registry, goodAdapter(seed)),
    step,
    allowZeroEffect: false,
  };
  return (await registry.put(request, {})).revision;
}

/** `digest → state/tier` of one name, as the pod reports it. */
export function revisionsOf(registry: Registry, name: string): Record<string, string> {
  const adapter = registry.state().adapters.find((item) => item.name === name);
  return Object.fromEntries(
    (adapter?.revisions ?? []).map(({ digest, state, tier }) => [digest, `${state}/${tier}`]),
  );
}
