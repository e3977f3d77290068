import { z } from 'zod';

const Key = z.string().min(1).max(317);
const Value = z.string().max(63);

const Requirement = z.object({
  key: Key.describe('The label that the requirement is about.'),
  operator: z
    .enum(['In', 'NotIn', 'Exists', 'DoesNotExist'])
    .describe('How the label must relate to values; Exists and DoesNotExist take none.'),
  values: z.array(Value).max(64).optional().describe('What the label is compared with.'),
});

export const LabelSelector = z.object({
  matchLabels: z
    .record(Key, Value)
    .meta({ maxProperties: 64 })
    .optional()
    .describe('Labels that must all be there with these values.'),
  matchExpressions: z.array(Requirement).max(32).optional().describe('Requirements that must all hold.'),
});
export type LabelSelector = z.infer<typeof LabelSelector>;

/** As the API server decides it: an absent label satisfies NotIn and DoesNotExist. */
export function matchesSelector(selector: LabelSelector, labels: Record<string, string> = {}): boolean {
  const equal = Object.entries(selector.matchLabels ?? {}).every(([key, value]) => labels[key] === value);
  return equal && (selector.matchExpressions ?? []).every((requirement) => holds(requirement, labels));
}

function holds(requirement: z.infer<typeof Requirement>, labels: Record<string, string>): boolean {
  const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined;
  const listed = value !== undefined && (requirement.values ?? []).includes(value);
  switch (requirement.operator) {
    case 'In':
      return listed;
    case 'NotIn':
      return !listed;
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}
