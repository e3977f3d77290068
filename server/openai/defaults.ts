import type { Serving } from './serving.ts';

/** A request's body with the model's own sampling parameters where it names none; null names none. */
export function withModelDefaults({ model }: Pick<Serving, 'model'>, body: unknown): unknown {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return body;
  const named = Object.entries(body).filter(([, value]) => value !== null);
  return { ...body, ...model.samplingDefaults, ...Object.fromEntries(named) };
}
