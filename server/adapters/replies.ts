import type { StageReport as EngineReport } from '../../native/types.ts';
import type { StageReply } from '../contract/adapter-api.ts';
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
  { digest, body, bound }: Held,
  { revision, report, existed }: { revision: Revision; report: EngineReport; existed: boolean },
): StageReply {
  const warnings = report.zeroEffect ? [...bound.warnings, 'every lora_B is zero'] : bound.warnings;
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
      pages: report.pages,
      warnings,
      timings: { receiveMs: 0, checkMs: 0, packMs: report.packMs },
    },
  };
}

export function hasNoEffect(report: EngineReport, { bound }: Held): boolean {
  return report.zeroEffect || bound.modules.every(({ scale }) => scale === 0);
}
