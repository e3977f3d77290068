import { type Dashboard, type Panel, quantiles } from './panel.ts';

/** Of the pods of its pool; where nobody has labelled them with their pool, of all of the namespace. */
const POOL = 'namespace="$pool_namespace", pool=~"$pool|"';
/** What pods say of it, under its served name. */
const SERVED = `adapter="$served", ${POOL}`;
const RESIDENT = `adapter_name="$served", ${POOL}`;
/** What the operator says of it; each operator says it, for all read the same objects. */
const OBJECT = 'ns="$namespace", adapter="$adapter"';

const now: Panel[] = [
  {
    title: 'Ready',
    unit: 'bool_yes_no',
    description:
      'Whether all desired pods serve the desired revision. No: kubectl describe lora $adapter -n $namespace.',
    queries: [[`max(lorikeet_operator_adapter_ready{${OBJECT}})`, 'ready']],
    kind: 'stat',
    alarm: { bad: 1, falls: true },
    width: 4,
  },
  {
    title: 'Pods that serve it',
    unit: 'percentunit',
    description: 'Pods that have confirmed the desired revision, of those that should.',
    queries: [
      [
        `max(lorikeet_operator_adapter_replicas{state="ready", ${OBJECT}}) / max(lorikeet_operator_adapter_replicas{state="desired", ${OBJECT}})`,
        'ready',
      ],
    ],
    kind: 'stat',
    alarm: { bad: 1, falls: true },
    width: 4,
  },
  {
    title: 'Revisions in service',
    unit: 'none',
    description:
      'Distinct current revisions on its pods, the fewest of the last two minutes: during a push there are two for a moment. More than 1: pods answer differently.',
    queries: [
      [
        `min_over_time(count(count_values("revision", lorikeet_adapter_revision{${SERVED}}))[2m:15s])`,
        'revisions',
      ],
    ],
    kind: 'stat',
    alarm: { bad: 2 },
    width: 4,
  },
  {
    title: 'Step',
    unit: 'none',
    description:
      "The trainer's step of the revision that every desired pod has confirmed; empty where it gives none.",
    queries: [[`max(lorikeet_operator_adapter_step{${OBJECT}})`, 'step']],
    kind: 'stat',
    width: 4,
  },
  {
    title: 'Age of the revision',
    unit: 's',
    description:
      'Since the operator had the current revision. Of an adapter in training: since its last push.',
    queries: [[`min(lorikeet_operator_revision_age_seconds{${OBJECT}})`, 'age']],
    kind: 'stat',
    width: 4,
  },
  {
    title: 'Pods with it in a slot',
    unit: 'none',
    description: 'Elsewhere the next request waits until it is brought in.',
    queries: [[`count(vllm:lora_adapter_loaded{level="gpu", ${RESIDENT}}) or vector(0)`, 'pods']],
    kind: 'stat',
    alarm: { warn: 1, falls: true },
    width: 4,
  },
];

const revision: Panel[] = [
  {
    title: 'Step on each pod',
    unit: 'none',
    description:
      'Lines that part are pods that lag behind; they meet again when the operator has brought them up.',
    queries: [[`lorikeet_adapter_step{${SERVED}}`, '{{pod}}']],
    width: 8,
  },
  {
    title: 'Revision skew',
    unit: 'none',
    description:
      'Distinct current revisions on its pods, and steps from the newest pod to the oldest. Flat at 1 and 0, with spikes at a push.',
    queries: [
      [`count(count_values("revision", lorikeet_adapter_revision{${SERVED}}))`, 'revisions'],
      [`max(lorikeet_adapter_step{${SERVED}}) - min(lorikeet_adapter_step{${SERVED}})`, 'steps behind'],
    ],
    width: 8,
  },
  {
    title: 'Revision on each pod',
    unit: 'hex',
    description:
      'What the name means on each pod now: the short digest that kubectl get lora shows, in capitals and without leading zeros.',
    queries: [[`sum by (pod) (lorikeet_adapter_revision{${SERVED}})`, '']],
    column: 'revision',
    kind: 'table',
    width: 8,
  },
];

const traffic: Panel[] = [
  {
    title: 'Requests, by pod',
    unit: 'reqps',
    description: 'Requests for the adapter that pods have taken in.',
    queries: [
      [`sum by (pod) (rate(lorikeet_adapter_requests_total{${SERVED}}[$__rate_interval]))`, '{{pod}}'],
    ],
    isStacked: true,
    width: 8,
  },
  {
    title: 'Tokens',
    unit: 'tokens/s',
    description: 'Tokens of its prompts, and tokens generated.',
    queries: [
      [`sum(rate(lorikeet_prefix_cache_queries_total{${SERVED}}[$__rate_interval]))`, 'prompt'],
      [`sum(rate(lorikeet_adapter_generated_tokens_total{${SERVED}}[$__rate_interval]))`, 'generated'],
    ],
    width: 8,
  },
  {
    title: 'Time to first token',
    unit: 's',
    description: 'Of this adapter alone, the wait for a slot included.',
    queries: quantiles('lorikeet_adapter_first_token_seconds', `{${SERVED}}`),
    width: 8,
  },
];

const slots: Panel[] = [
  {
    title: 'Pods that hold it',
    unit: 'none',
    description:
      'In a slot it answers at once; in the host tier the next request brings it in, and puts another out where slots are full.',
    queries: [
      [`count(vllm:lora_adapter_loaded{level="gpu", ${RESIDENT}}) or vector(0)`, 'in a slot'],
      [`count(vllm:lora_adapter_loaded{level="cpu", ${RESIDENT}}) or vector(0)`, 'in the host tier'],
    ],
    isStacked: true,
    width: 6,
  },
  {
    title: 'Pods by how far they are',
    unit: 'none',
    description:
      'desired: should hold it; staged: hold the desired revision; ready: have confirmed that they serve it.',
    queries: [[`max by (state) (lorikeet_operator_adapter_replicas{${OBJECT}})`, '{{state}}']],
    width: 6,
  },
  {
    title: 'Pods where requests wait for its slot',
    unit: 'none',
    description: 'Above 0 for long: more adapters are asked for at once than there are slots.',
    queries: [
      [
        `count(vllm:lora_requests_info{waiting_lora_adapters=~"(.*,)?$served(,.*)?", ${POOL}}) or vector(0)`,
        'pods',
      ],
    ],
    width: 6,
  },
  {
    title: 'Prompt tokens found in the prefix cache',
    unit: 'percentunit',
    description:
      'Share of its prompt tokens whose keys and values were there already. It falls with each new revision: what the one before computed is not used.',
    queries: [
      [
        `sum(rate(lorikeet_prefix_cache_hits_total{${SERVED}}[$__rate_interval])) / sum(rate(lorikeet_prefix_cache_queries_total{${SERVED}}[$__rate_interval]))`,
        'found',
      ],
    ],
    width: 6,
  },
];

export const ADAPTER: Dashboard = {
  file: 'adapter',
  title: 'Lorikeet / Adapter',
  description:
    'One adapter: which revision its pods serve, its traffic and latency, and whether it has a slot.',
  variables: [
    { name: 'namespace', label: 'Namespace', query: 'label_values(lorikeet_operator_adapter_info, ns)' },
    {
      name: 'adapter',
      label: 'Adapter',
      query: 'label_values(lorikeet_operator_adapter_info{ns="$namespace"}, adapter)',
    },
    {
      name: 'served',
      label: 'Served name',
      query: `label_values(lorikeet_operator_adapter_info{${OBJECT}}, served_name)`,
      isHidden: true,
    },
    {
      name: 'pool_namespace',
      label: 'Namespace of the pool',
      query: `label_values(lorikeet_operator_adapter_info{${OBJECT}}, pool_ns)`,
      isHidden: true,
    },
    {
      name: 'pool',
      label: 'Pool',
      query: `label_values(lorikeet_operator_adapter_info{${OBJECT}}, pool)`,
      isHidden: true,
    },
  ],
  rows: [
    { title: 'Now', height: 4, panels: now },
    { title: 'Revision', height: 8, panels: revision },
    { title: 'Traffic', height: 8, panels: traffic },
    { title: 'Slots', height: 8, panels: slots },
  ],
};
