import type { EngineErrorCode } from '../../native/types.ts';
import type { FailureCode } from './port.ts';

export function failureCode(code: EngineErrorCode): FailureCode {
  switch (code) {
    case 'adapter_not_found':
    case 'not_resident':
    case 'queue_full':
    case 'non_finite':
    case 'closing':
      return code;
    default:
      return 'engine_failed';
  }
}
