import type { StageReceipt, StageReply } from '../contract/adapter-api.ts';
import type { BoundAdapter } from '../contract/format/bind.ts';
import type { StageReport } from '../engine/port.ts';
import type { Revision } from './adapters.ts';
import type { Held } from './host-tier.ts';

export function newRevision({ digest, body, bound }: Held, step: number | null): Revision {
  return {
    digest,
    step,
    retired: false,
    bytes: body.length,
    rank: bound.rank,
    modules: bound.targetModules,
    createdAt: Math.floor(Date.now() / 1000),
    activation: null,
  };
}

export function stageReply(
  name: string,
  held: Held,
  { revision, existed, timings }: { revision: Revision; existed: boolean; timings: StageReceipt['timings'] },
): StageReply {
  const { digest, body, bound, pages, rounded, zeroEffect } = held;
  return {
    name,
    revision: digest,
    step: revision.step,
    bytes: body.length,
    existed,
    report: {
      modules: bound.modules.length,
      targetModules: bound.targetModules,
      layers: bound.layers,
      rank: bound.rank,
      ranks: bound.ranks,
      dtypes: bound.dtypes,
      pages,
      rounded,
      warnings: zeroEffect ? [...bound.warnings, 'the adapter changes nothing'] : bound.warnings,
      timings: {
        receiveMs: tenths(timings.receiveMs),
        checkMs: tenths(timings.checkMs),
        packMs: tenths(timings.packMs),
      },
    },
  };
}

/** What follows is noise. */
function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}

export function hasNoEffect(report: StageReport, { modules }: BoundAdapter): boolean {
  return report.zeroEffect || modules.every(({ scale }) => scale === 0);
}
