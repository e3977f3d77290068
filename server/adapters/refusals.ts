import { expected, LorikeetError } from '../contract/errors.ts';
import { brief, quoted } from '../contract/strict-json.ts';

export function noEffect(): LorikeetError {
  return new LorikeetError(
    'zero_effect',
    'Every lora_B is zero or scaled by zero, so this adapter changes nothing. Where that is meant, as in step 0 of a training, send header "x-lora-allow: zero_effect"',
    { field: 'lora_B', expected: 'numbers other than zero', actual: 'zeros' },
  );
}

export function adapterNotFound(model: string): LorikeetError {
  return new LorikeetError('adapter_not_found', `No adapter ${quoted(model)} is active here`, {
    field: 'model',
    actual: brief(model),
  });
}

export function revisionNotFound(name: string, pin: string): LorikeetError {
  return new LorikeetError(
    'revision_not_found',
    `This pod holds no one revision ${quoted(pin)} of adapter ${quoted(name)}`,
    {
      field: 'revision',
      actual: brief(pin),
    },
  );
}

export function baseModelName(name: string): LorikeetError {
  return expected('invalid_name', 'name', "a name that is not the base model's", name);
}
