import type { Distances, Step } from './grpo.ts';
import type { Recording } from './recorder.ts';

const WINDOW_STEPS = 20;
const STANDARD_ERRORS_MIN = 2;
const RATIO_DISTANCE_MAX = 1e-3;

export interface Check {
  what: string;
  found: string;
  /** Null: said, not judged. */
  isGood: boolean | null;
}

/** The last steps above the first ones. Too few to compare are not judged. */
export function checkReward(rewards: number[]): Check {
  const window = Math.min(WINDOW_STEPS, rewards.length >> 1);
  const first = rewards.slice(0, window);
  const last = rewards.slice(-window);
  const rise = mean(last) - mean(first);
  const error = Math.sqrt(squaredError(first) + squaredError(last));
  return {
    what: `reward of the last ${window} steps above the first ${window} by at least ${STANDARD_ERRORS_MIN} standard errors`,
    found: `${mean(first).toFixed(4)} to ${mean(last).toFixed(4)}, ${(rise / error).toFixed(1)} standard errors`,
    isGood: window < WINDOW_STEPS ? null : rise >= STANDARD_ERRORS_MIN * error,
  };
}

export function checkRevisions(recording: Recording, steps: number): Check[] {
  const { ofVersions, ofBase, versions, wrong, refused, faults } = recording;
  const refusals = [...refused].map(([status, times]) => `${times} × ${status}`);
  return [
    {
      what: 'each answer is of the revision that the trainer named, the base of none',
      found: `${ofVersions} requests of ${versions} versions, ${ofBase} of the base, ${wrong} wrong${faults.map((fault) => `\n  ${fault}`).join('')}`,
      isGood: wrong === 0 && ofVersions > 0 && ofBase > 0 && versions >= steps,
    },
    {
      what: 'no load and no request refused',
      found: refusals.length === 0 ? 'none' : refusals.join(', '),
      isGood: refusals.length === 0,
    },
  ];
}

export function checkRatios({ processed, raw }: Distances): Check[] {
  const told = ({ tokens, largest, mean }: Distances['raw']) =>
    `at most ${largest.toExponential(1)}, ${mean.toExponential(1)} on average, ${tokens} tokens`;
  return [
    {
      what: `importance ratios of fresh samples within ${RATIO_DISTANCE_MAX} of 1, as the trainer gets them`,
      found: told(processed),
      isGood: processed.largest <= RATIO_DISTANCE_MAX,
    },
    {
      what: 'and not so with raw log-probabilities of the same samples',
      found: told(raw),
      isGood: raw.largest > RATIO_DISTANCE_MAX,
    },
  ];
}

export function syncTimes(steps: Step[], { loadMs, readMs }: Recording): Check[] {
  const seconds = (key: 'weight_sync_s' | 'weight_sync_pause_s' | 'weight_sync_transfer_s') =>
    steps.map((step) => 1000 * step[`perf/${key}`]);
  const row = (what: string, ms: number[]): Check => ({
    what,
    found: `median ${quantile(ms, 0.5).toFixed(1)} ms, p90 ${quantile(ms, 0.9).toFixed(1)} ms`,
    isGood: null,
  });
  return [
    row('weight_sync_s of a step, as the trainer says', seconds('weight_sync_s')),
    row('  of it: pause', seconds('weight_sync_pause_s')),
    row('  of it: the trainer writes its files', seconds('weight_sync_transfer_s')),
    row('  of it: POST /v1/load_lora_adapter', loadMs),
    row('the same files, read and nothing else', readMs),
  ];
}

export function quantile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(at)] ?? Number.NaN, sorted[Math.ceil(at)] ?? Number.NaN];
  return below + (at - Math.floor(at)) * (above - below);
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Of the mean: the variance of the values by their number. */
function squaredError(values: number[]): number {
  const middle = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  return squares / (values.length - 1) / values.length;
}
