import type { Serving } from './serving.ts';

/** A request's body with what this server, or the model itself, has in place of what it does not name; null names none. */
export function withModelDefaults({ model }: Pick<Serving, 'model'>, body: unknown): unknown {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return body;
  const named = Object.entries(body).filter(([, value]) => value !== null);
  return { ...body, ...model.requestDefaults, ...Object.fromEntries(named) };
}
