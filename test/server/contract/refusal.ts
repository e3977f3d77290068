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
