import type { LabelSelector } from '../api/label-selector.ts';

type Requirement = NonNullable<LabelSelector['matchExpressions']>[number];

/** As the query `labelSelector` of a list has it. */
export function selectorText({ matchLabels = {}, matchExpressions = [] }: LabelSelector): string {
  const equal = Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`);
  return [...equal, ...matchExpressions.map(requirementText)].join(',');
}

function requirementText({ key, operator, values = [] }: Requirement): string {
  switch (operator) {
    case 'In':
      return `${key} in (${values.join(',')})`;
    case 'NotIn':
      return `${key} notin (${values.join(',')})`;
    case 'Exists':
      return key;
    case 'DoesNotExist':
      return `!${key}`;
  }
}
