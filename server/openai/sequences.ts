import type { FailureCode, Policy, RequestEvent, Target } from '../engine/port.ts';
import { OpenAiError } from './errors.ts';
import { type Asked, type LoraInfo, takeIn } from './lease.ts';
import type { Generation } from './plan.ts';
import type { Serving } from './serving.ts';

/** Of a response's choices. */
let lastGroup = 0;

/** What sequences stand on. */
export type Entrance = Pick<Serving, 'adapters' | 'engine'>;

/** What becomes of one choice. */
export type Sequence = AsyncGenerator<RequestEvent>;

/** Takes in all choices of a response, or none. Of each come the events after `accepted`. */
export async function takeInAll(
  serving: Entrance,
  { generations, ...asked }: Asked & { generations: Generation[] },
  signal: AbortSignal,
): Promise<{ lora: LoraInfo; sequences: Sequence[] }> {
  const { policy } = asked;
  const { lora, taken } = await takeIn(
    serving.adapters,
    asked,
    (target) => submit(serving, { generations, policy, target }, signal),
    signal,
  );
  return { lora, sequences: taken.sequences };
}

/** All in one turn of the event loop: no swap in between can mix two revisions in one response. */
async function submit(
  { engine, adapters }: Entrance,
  { generations, ...common }: { generations: Generation[]; policy: Policy; target: Target },
  signal: AbortSignal,
): Promise<{ digest: string | null; sequences: Sequence[]; leave(): Promise<unknown> } | FailureCode> {
  const group = ++lastGroup;
  const { target } = common;
  // No other moves.
  const name = target.kind === 'adapter' ? target.name : '';
  const stepOf = (digest: string) => adapters.describe(name, digest).step;
  const sequences = generations.map((generation) =>
    engine.generate({ ...generation, ...common, group }, signal, stepOf),
  );
  const leave = () => Promise.all(sequences.map((events) => events.return(undefined)));
  const firsts = await Promise.allSettled(sequences.map((events) => events.next()));
  const digests: (string | null)[] = [];
  let failed: FailureCode | null = null;
  let thrown: unknown;
  for (const first of firsts) {
    if (first.status === 'rejected') {
      thrown ??= first.reason;
      continue;
    }
    const event: RequestEvent | undefined = first.value.done ? undefined : first.value.value;
    if (event?.type === 'failed') failed ??= event.code;
    else if (event?.type === 'accepted') digests.push(event.revision);
    else thrown ??= new OpenAiError('internal', `The engine began with ${event?.type ?? 'nothing'}.`);
  }
  if (digests.length === sequences.length) return { digest: digests[0] ?? null, sequences, leave };
  await leave();
  if (failed === null || thrown !== undefined) throw thrown;
  return failed;
}
