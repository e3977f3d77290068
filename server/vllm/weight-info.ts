import type { Registry } from '../adapters/registry.ts';

/** The weights that `model` means now, by digest: the base's, where none is named. */
export function weightInfo(
  { baseModel, lookup }: Registry,
  { model = baseModel.name }: Record<string, unknown>,
): { weight_version: string } {
  const resolved = lookup.resolve(String(model));
  if (resolved.kind === 'base') return { weight_version: baseModel.digest };
  if (resolved.kind === 'revision') return { weight_version: resolved.digest };
  const current = lookup.models().find(({ name }) => name === resolved.name);
  return { weight_version: current?.revision ?? baseModel.digest };
}
