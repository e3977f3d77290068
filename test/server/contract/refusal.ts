import { LorikeetError } from '../../../server/contract/errors.ts';

/** The refusal that `act` throws; fails where it throws nothing or something else. */
export function refusalOf(act: () => unknown): LorikeetError {
  try {
    act();
  } catch (error) {
    if (error instanceof LorikeetError) return error;
    throw error;
  }
  throw new Error('Expected a refusal');
}

/** The same of a promise that rejects. */
export async function refusalIn(promise: Promise<unknown>): Promise<LorikeetError> {
  const failed = await promise.then(
    () => null,
    (error: unknown) => ({ error }),
  );
  return refusalOf(() => {
    if (failed !== null) throw failed.error;
  });
}
