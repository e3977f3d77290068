import type { AdapterEngine } from '../engine/port.ts';
import { Traffic } from './traffic.ts';

/** What is told of KV blocks moves by such a part of all at least. */
const KV_STEPS = 8;
/** Ticks that their use is taken over: one busy moment is none of these. */
const KV_TICKS = 6;

/** What the pod tells of the work that it does: as of the last tick, and roughly. */
export class Load {
  readonly traffic = new Traffic();
  readonly engine: Pick<AdapterEngine, 'info' | 'snapshot'>;
  #kvBlocksUsed = 0;
  #recent: number[] = [];

  constructor(engine: Pick<AdapterEngine, 'info' | 'snapshot'>) {
    this.engine = engine;
  }

  /** That running sequences hold; what is only remembered for later ones is free. */
  get kvBlocksUsed(): number {
    return this.#kvBlocksUsed;
  }

  /** Ends a tick. Whether what is told has moved, and of which adapters. */
  tick(): { moved: boolean; names: string[] } {
    const { info } = this.engine;
    this.#recent = [...this.#recent, this.engine.snapshot().kvBlocksUsed].slice(-KV_TICKS);
    const used = Math.round(this.#recent.reduce((sum, each) => sum + each, 0) / this.#recent.length);
    const hasKvMoved = Math.abs(used - this.#kvBlocksUsed) > info.kvBlocks / KV_STEPS;
    if (hasKvMoved) this.#kvBlocksUsed = used;
    const names = this.traffic.tick();
    return { moved: hasKvMoved || names.length > 0, names };
  }
}
