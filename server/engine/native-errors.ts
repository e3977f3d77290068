import { ENGINE_ERRORS, type EngineErrorCode } from '../../native/types.ts';
import { LorikeetError } from '../contract/errors.ts';
import type { BoundModule } from '../contract/format/bind.ts';
import { modulePath, partName } from '../contract/format/tensor-names.ts';

export function engineCode(error: unknown): EngineErrorCode | undefined {
  if (!(error instanceof Error && 'code' in error)) return undefined;
  return ENGINE_ERRORS.find((code) => code === error.code);
}

/** What an error of staging these modules, or of activating them, means to the caller of the admin API. */
export function engineRefusal(error: unknown, modules: BoundModule[]): LorikeetError {
  switch (engineCode(error)) {
    case 'non_finite':
      return nonFinite(error as { module?: unknown; factor?: unknown }, modules);
    case 'closing':
      return new LorikeetError('shutting_down', 'The server is shutting down', { cause: error });
    default:
      return new LorikeetError('internal', 'The engine could not take the revision in', { cause: error });
  }
}

/** `error` says which module, by its place, and which factor of it. */
export function nonFinite(
  error: { module?: unknown; factor?: unknown },
  modules: BoundModule[],
): LorikeetError {
  const module = modules[Number(error.module)];
  const factor = error.factor === 'b' ? 'b' : 'a';
  const field =
    module === undefined
      ? 'adapter'
      : `${modulePath(module.layer, module.module)}.${partName(module.module, factor)}`;
  return new LorikeetError('non_finite', `Expected finite numbers in ${field} but found NaN or infinity`, {
    field,
    expected: 'finite numbers',
    actual: 'NaN or infinity',
    cause: error,
  });
}
