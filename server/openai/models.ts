import type { Serving } from './serving.ts';

interface ModelCard {
  id: string;
  object: 'model';
  /** Unix seconds. */
  created: number;
  owned_by: 'lorikeet';
  root: string;
  parent: string | null;
  max_model_len: number;
  permission: [];
  revision?: string;
  digest?: string;
  step?: number | null;
}

type Listed = Pick<Serving, 'model' | 'adapters'>;

function baseCard({ model }: Listed): ModelCard {
  return {
    id: model.name,
    object: 'model',
    created: model.createdAt,
    owned_by: 'lorikeet',
    root: model.name,
    parent: null,
    max_model_len: model.maxTokens,
    permission: [],
  };
}

/** The base first, unless an adapter has its name; then each adapter with its current revision. */
export function listModels(serving: Listed): { object: 'list'; data: ModelCard[] } {
  const base = baseCard(serving);
  const adapters = serving.adapters.models().map(({ name, revision, step, createdAt }) => ({
    ...base,
    id: name,
    created: createdAt,
    root: name,
    parent: base.id,
    revision,
    digest: revision,
    step,
  }));
  const isShadowed = adapters.some(({ id }) => id === base.id);
  return { object: 'list', data: isShadowed ? adapters : [base, ...adapters] };
}

/** `id` may pin a revision, as `sql@step-42`; throws where there is no such model. */
export function describeModel(serving: Listed, id: string): ModelCard {
  const resolved = serving.adapters.resolve(id);
  const { data } = listModels(serving);
  const card = data.find(
    (entry) => entry.id === (resolved.kind === 'base' ? serving.model.name : resolved.name),
  );
  const known = card ?? { ...baseCard(serving), parent: serving.model.name };
  if (resolved.kind !== 'revision') return { ...known, id };
  return { ...known, id, revision: resolved.digest, digest: resolved.digest, step: resolved.step };
}
