import type { LoraAdapter, RevisionRecord } from '../api/lora-adapter.ts';
import { CommandFailure } from './failure.ts';

const DIGITS_MIN = 4;

/** Those that status knows, what is desired first. */
export function knownRevisions({ status = {} }: LoraAdapter): RevisionRecord[] {
  const { desiredRevision, currentRevision, previousRevisions = [] } = status;
  const all = [desiredRevision, currentRevision, ...previousRevisions].filter((item) => item !== undefined);
  return [...new Map(all.map((revision) => [revision.digest, revision])).values()];
}

/** `9e0ec2`, `sha256:9e0ec2…`, `step-42` or `42`. A number is a step where there is one, as the engine reads it too. */
export function findRevision(adapter: LoraAdapter, text: string): RevisionRecord {
  const known = knownRevisions(adapter);
  const step = /^(?:step-)?(\d{1,15})$/.exec(text)?.[1];
  const byStep = step === undefined ? undefined : known.find((revision) => revision.step === Number(step));
  if (byStep !== undefined) return byStep;
  const digits = text.replace(/^sha256:/, '').toLowerCase();
  const isPrefix = digits.length >= DIGITS_MIN && /^[0-9a-f]+$/.test(digits);
  const found = isPrefix ? known.filter(({ digest }) => digest.startsWith(`sha256:${digits}`)) : [];
  const [revision, other] = found;
  if (revision !== undefined && other === undefined) return revision;
  const list = known.map(({ short, step }) => (step === null ? short : `${short} (step ${step})`)).join(', ');
  throw new CommandFailure(
    other === undefined
      ? `LoraAdapter ${adapter.metadata.name} has no revision ${text}`
      : `${text} are the first digits of several revisions`,
    { todo: `It has ${list || 'none yet'}.` },
  );
}
