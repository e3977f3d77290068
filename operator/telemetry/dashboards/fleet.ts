import { type Dashboard, type Panel, perMinute, quantile, quantiles } from './panel.ts';

/** Of server pods, by the labels that the chart's PodMonitor gives their series. */
const PODS = '{namespace=~"$namespace", pool=~"$pool"}';
/** Of what the operator says of them. */
const POOLS = 'ns=~"$namespace", pool=~"$pool"';

const overview: Panel[] = [
  {
    title: 'Operators that lead',
    unit: 'none',
    description:
      'Must be 1. At 0 nothing is reconciled and no push is taken; pods go on serving what they hold.',
    queries: [['sum(lorikeet_operator_leader)', 'leaders']],
    kind: 'stat',
    alarm: { bad: 1, falls: true },
    width: 4,
  },
  {
    title: 'Adapters not ready',
    unit: 'none',
    description: 'Adapters that not all of their pods serve as desired. Which: the table below.',
    queries: [
      ['sum(1 - max by (ns, adapter) (lorikeet_operator_adapter_ready{ns=~"$namespace"}))', 'adapters'],
    ],
    kind: 'stat',
    alarm: { warn: 1 },
    width: 4,
  },
  {
    title: 'Adapters',
    unit: 'none',
    description: 'LoraAdapter objects that the operator sees.',
    queries: [
      ['count(max by (ns, adapter) (lorikeet_operator_adapter_ready{ns=~"$namespace"}))', 'adapters'],
    ],
    kind: 'stat',
    width: 4,
  },
  {
    title: 'Pods that cannot be used',
    unit: 'none',
    description:
      'Pods of pools that do not answer the operator or serve another base model; status.podErrors of the ServerPool says why.',
    queries: [[`sum(max by (ns, pool) (lorikeet_operator_pool_pods{state="unready", ${POOLS}}))`, 'pods']],
    kind: 'stat',
    alarm: { bad: 1 },
    width: 4,
  },
  {
    title: 'Slots in use',
    unit: 'percentunit',
    description:
      'Slots that hold an adapter. Full is no fault: the adapter used least gives way; watch evictions.',
    queries: [
      [
        `sum(max by (ns, pool) (lorikeet_operator_pool_slots{state="used", ${POOLS}})) / sum(max by (ns, pool, state) (lorikeet_operator_pool_slots{${POOLS}}))`,
        'used',
      ],
    ],
    kind: 'stat',
    alarm: { warn: 0.95 },
    width: 4,
  },
  {
    title: 'Requests that fail',
    unit: 'percentunit',
    description: 'Share of requests that pods answered with 5xx.',
    queries: [
      [
        `(sum(rate(lorikeet_requests_total{code=~"5..", namespace=~"$namespace", pool=~"$pool"}[$__rate_interval])) or vector(0)) / sum(rate(lorikeet_requests_total${PODS}[$__rate_interval]))`,
        '5xx',
      ],
    ],
    kind: 'stat',
    alarm: { warn: 0.001, bad: 0.01 },
    width: 4,
  },
];

const traffic: Panel[] = [
  {
    title: 'Requests by status',
    unit: 'reqps',
    description:
      'Answers of the serving API. 404: no such adapter here; 503: the pod is full, not ready or ends.',
    queries: [[`sum by (code) (rate(lorikeet_requests_total${PODS}[$__rate_interval]))`, '{{code}}']],
    isStacked: true,
    colours: [
      ['^2', 'green'],
      ['^4', 'orange'],
      ['^5', 'red'],
    ],
    width: 8,
  },
  {
    title: 'Tokens',
    unit: 'tokens/s',
    description: 'Prompt tokens that were computed, and tokens generated, all pods together.',
    queries: [
      [`sum(rate(vllm:prompt_tokens_total${PODS}[$__rate_interval]))`, 'prompt'],
      [`sum(rate(vllm:generation_tokens_total${PODS}[$__rate_interval]))`, 'generated'],
    ],
    width: 8,
  },
  {
    title: 'Adapters with most tokens',
    unit: 'tokens/s',
    description: 'The ten adapters for which most tokens are generated; base: requests without an adapter.',
    queries: [
      [
        `topk(10, label_replace(sum by (adapter) (rate(lorikeet_adapter_generated_tokens_total${PODS}[$__rate_interval])), "adapter", "base", "adapter", "^$"))`,
        '{{adapter}}',
      ],
    ],
    width: 8,
  },
];

const latency: Panel[] = [
  {
    title: 'Time to first token',
    unit: 's',
    description: 'From request to first token, the time in the queue and the wait for a slot included.',
    queries: quantiles('vllm:time_to_first_token_seconds', PODS),
    width: 8,
  },
  {
    title: 'Inter-token latency',
    unit: 's',
    description:
      'From one token of a sequence to the next. Rises with the batch, and with prompts that are computed meanwhile.',
    queries: quantiles('vllm:inter_token_latency_seconds', PODS),
    width: 8,
  },
  {
    title: 'Whole requests',
    unit: 's',
    description: 'From request to last byte of completions that were answered with 200.',
    queries: quantiles('vllm:e2e_request_latency_seconds', PODS),
    width: 8,
  },
];

const load: Panel[] = [
  {
    title: 'Sequences that wait, by pod',
    unit: 'none',
    description:
      'Rises where a pod gets more than it can run at once. One pod alone: look how requests are spread.',
    queries: [[`vllm:num_requests_waiting${PODS}`, '{{pod}}']],
    width: 6,
  },
  {
    title: 'Sequences that run, by pod',
    unit: 'none',
    description: 'The batch of the engine; its bound is --max-batch.',
    queries: [[`vllm:num_requests_running${PODS}`, '{{pod}}']],
    width: 6,
  },
  {
    title: 'KV cache in use, by pod',
    unit: 'percentunit',
    description:
      'Share of KV blocks that sequences or the prefix cache hold. At 100 % sequences are preempted.',
    queries: [[`vllm:kv_cache_usage_perc${PODS}`, '{{pod}}']],
    alarm: { bad: 0.95 },
    width: 6,
  },
  {
    title: 'Preemptions and evictions',
    unit: '/min',
    description:
      'Sequences that gave up their KV blocks, and adapters that gave up their slots, for others. Steady: too little memory, or too few slots for the adapters in use.',
    queries: [
      [perMinute('vllm:num_preemptions_total', PODS), 'sequences preempted'],
      [perMinute('lorikeet_evictions_total', PODS), 'adapters evicted'],
    ],
    width: 6,
  },
];

const adapters: Panel[] = [
  {
    title: 'Adapters that are not ready',
    unit: 'none',
    description: 'Empty when all is well. Then: kubectl describe lora NAME, whose conditions say why.',
    queries: [
      [
        'max by (ns, adapter, reason) (lorikeet_operator_adapter_unready{ns=~"$namespace"}) * on (ns, adapter) group_left () (max by (ns, adapter) (lorikeet_operator_adapter_replicas{state="desired"}) - max by (ns, adapter) (lorikeet_operator_adapter_replicas{state="ready"}))',
        '',
      ],
    ],
    column: 'pods without it',
    kind: 'table',
    width: 8,
  },
  {
    title: 'Slots in use, by pod',
    unit: 'percentunit',
    description: 'Revisions in slots, of those that fit.',
    queries: [[`lorikeet_slots_used${PODS} / lorikeet_slots${PODS}`, '{{pod}}']],
    width: 8,
  },
  {
    title: 'Host tier in use, by pod',
    unit: 'percentunit',
    description:
      'Memory for adapters besides the slots. Full: loads are refused with no_capacity, unless something can be dropped.',
    queries: [[`lorikeet_host_bytes_used${PODS} / lorikeet_host_bytes${PODS}`, '{{pod}}']],
    alarm: { bad: 0.95 },
    width: 8,
  },
];

const operator: Panel[] = [
  {
    title: 'Failures of reconciling, by reason',
    unit: '/min',
    description:
      'Failures by condition reason or by code of a pod. A steady line is something that is tried again and again.',
    queries: [[perMinute('lorikeet_operator_reconcile_errors_total', '', 'reason'), '{{reason}}']],
    isStacked: true,
    width: 6,
  },
  {
    title: 'Objects that wait to be looked at',
    unit: 'none',
    description: 'The queues of the operator that leads. Falls to 0 within seconds unless it is overwhelmed.',
    queries: [['max by (queue) (lorikeet_operator_queue_depth)', '{{queue}}']],
    width: 6,
  },
  {
    title: 'Kubernetes API: waits and lag of status',
    unit: 's',
    description:
      'How long calls wait for their turn in the operator, and how long what it decided is not in status yet.',
    queries: [
      [quantile(0.99, 'lorikeet_operator_api_wait_seconds'), 'wait p99'],
      [quantile(0.99, 'lorikeet_operator_status_lag_seconds'), 'status lag p99'],
    ],
    width: 6,
  },
  {
    title: 'Memory of processes',
    unit: 'bytes',
    description: 'Resident memory of operators and server pods: to be held against their limits.',
    queries: [
      ['process_resident_memory_bytes and on (instance) lorikeet_operator_leader', '{{pod}}'],
      [`process_resident_memory_bytes and on (instance) lorikeet_slots${PODS}`, '{{pod}}'],
    ],
    width: 6,
  },
];

export const FLEET: Dashboard = {
  file: 'fleet',
  title: 'Lorikeet / Fleet',
  description: 'Is anything wrong, and where: operators, pools of server pods and their traffic.',
  variables: [
    {
      name: 'namespace',
      label: 'Namespace',
      query: 'label_values(lorikeet_operator_pool_slots, ns)',
      isMany: true,
    },
    {
      name: 'pool',
      label: 'Pool',
      query: 'label_values(lorikeet_operator_pool_slots{ns=~"$namespace"}, pool)',
      isMany: true,
    },
  ],
  rows: [
    { title: 'Now', height: 4, panels: overview },
    { title: 'Traffic', height: 8, panels: traffic },
    { title: 'Latency', height: 8, panels: latency },
    { title: 'Load', height: 8, panels: load },
    { title: 'Adapters', height: 8, panels: adapters },
    { title: 'Operator', height: 8, panels: operator },
  ],
};
