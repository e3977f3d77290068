import { type Dashboard, type Panel, perMinute, quantile, quantileBy, quantiles } from './panel.ts';

const OBJECTS = 'ns=~"$namespace", adapter=~"$adapter"';
const PUSHES = 'lorikeet_operator_push_requests_total';
const ACCEPTED = 'code=~"ok|noop"';
const REFUSED = 'code!~"ok|noop"';

const now: Panel[] = [
  {
    title: 'Pushes accepted',
    unit: '/min',
    description: 'Pushes that were answered with a revision.',
    queries: [[perMinute(PUSHES, `{${ACCEPTED}}`), 'pushes']],
    kind: 'stat',
    width: 4,
  },
  {
    title: 'Pushes that fail',
    unit: 'percentunit',
    description: 'Share of pushes that were refused or cut off. By code: below.',
    queries: [
      [
        `sum(rate(lorikeet_operator_push_requests_total{${REFUSED}}[$__rate_interval])) / sum(rate(lorikeet_operator_push_requests_total[$__rate_interval]))`,
        'refused',
      ],
    ],
    kind: 'stat',
    alarm: { warn: 0.01, bad: 0.1 },
    width: 4,
  },
  {
    title: 'Since the last push',
    unit: 's',
    description:
      'Age of the newest revision of the adapters chosen. Longer than a training step takes: the trainer does not get through.',
    queries: [[`min(lorikeet_operator_revision_age_seconds{${OBJECTS}})`, 'newest']],
    kind: 'stat',
    width: 4,
  },
  {
    title: 'A push takes',
    unit: 's',
    description: 'The 95th percentile from request to reply: so long a trainer that waits is held up.',
    queries: quantiles('lorikeet_operator_push_duration_seconds', '', [0.95]),
    kind: 'stat',
    width: 4,
  },
  {
    title: 'Skew of a swap',
    unit: 's',
    description: 'The 95th percentile from the first pod that serves the new revision to the last.',
    queries: quantiles('lorikeet_operator_swap_skew_seconds', '', [0.95]),
    kind: 'stat',
    alarm: { warn: 0.5, bad: 2 },
    width: 4,
  },
  {
    title: 'Adapters out of step',
    unit: 'none',
    description:
      'Adapters of which pods have served more than one revision for the last two minutes: trouble on a pod. Which: Adapter, Revision on each pod.',
    queries: [
      [
        'count(min_over_time(count by (adapter) (count_values by (adapter) ("revision", lorikeet_adapter_revision{namespace=~"$namespace"}))[2m:15s]) > 1) or vector(0)',
        'adapters',
      ],
    ],
    kind: 'stat',
    alarm: { warn: 1 },
    width: 4,
  },
];

const pushes: Panel[] = [
  {
    title: 'Pushes by outcome',
    unit: '/min',
    description: 'ok: a new revision; noop: a retry of the one before; else the code of the refusal.',
    queries: [[`${perMinute(PUSHES, '', 'code')} > 0`, '{{code}}']],
    isStacked: true,
    colours: [
      ['^ok$', 'green'],
      ['^noop$', 'blue'],
    ],
    width: 8,
  },
  {
    title: 'Bytes of pushes',
    unit: 'Bps',
    description: 'Bytes that trainers sent in accepted pushes; each pod gets them as well.',
    queries: [['sum(rate(lorikeet_operator_push_bytes_total[$__rate_interval]))', 'accepted']],
    width: 8,
  },
  {
    title: 'Pushes in flight',
    unit: 'none',
    description: 'Pushes that are being taken in. Flat above 0: bodies that do not get on.',
    queries: [['sum(lorikeet_operator_push_in_flight)', 'pushes']],
    width: 8,
  },
];

const stages: Panel[] = [
  {
    title: 'Stages of a push, mean',
    unit: 's',
    description:
      'auth: the token is asked about; receive: first byte of the body to last; stage: until pods have it; activate: until they serve it. What grows says who is slow: API server, network, pods or swap.',
    queries: [
      [
        'sum by (stage) (rate(lorikeet_operator_push_stage_duration_seconds_sum[$__rate_interval])) / sum by (stage) (rate(lorikeet_operator_push_stage_duration_seconds_count[$__rate_interval]))',
        '{{stage}}',
      ],
    ],
    isStacked: true,
    width: 8,
  },
  {
    title: 'Stages of a push, p95',
    unit: 's',
    description: 'The slow end of each stage.',
    queries: [quantileBy('stage', 0.95, 'lorikeet_operator_push_stage_duration_seconds')],
    width: 8,
  },
  {
    title: 'A whole push',
    unit: 's',
    description: 'From request to reply.',
    queries: quantiles('lorikeet_operator_push_duration_seconds'),
    width: 8,
  },
];

const swaps: Panel[] = [
  {
    title: 'Swap skew',
    unit: 's',
    description:
      'From the first confirmation of a swap to the last: so long pods answer with different revisions. Its bound is spec.update.maxSkew.',
    queries: quantiles('lorikeet_operator_swap_skew_seconds'),
    width: 6,
  },
  {
    title: 'Swap duration',
    unit: 's',
    description: 'From the first order to activate to the last confirmation.',
    queries: quantiles('lorikeet_operator_swap_duration_seconds'),
    width: 6,
  },
  {
    title: 'On a pod: into a slot, and switched',
    unit: 's',
    description:
      'What of it is the pod: packing a revision into a slot, and making it current between two steps. p95.',
    queries: [
      [quantile(0.95, 'lorikeet_stage_seconds', '{namespace=~"$namespace"}'), 'into a slot'],
      [quantile(0.95, 'lorikeet_swap_seconds', '{namespace=~"$namespace"}'), 'switched'],
    ],
    width: 6,
  },
  {
    title: 'Adapters read from sources, by phase',
    unit: 's',
    description:
      'For adapters that are not pushed: resolve (which version), fetch (bytes), stage, activate. p95.',
    queries: [quantileBy('phase', 0.95, 'lorikeet_operator_phase_duration_seconds')],
    width: 6,
  },
];

const progress: Panel[] = [
  {
    title: 'Step of each adapter',
    unit: 'none',
    description:
      "The trainer's step that all desired pods have confirmed. A line that stops is a trainer that does not get through.",
    queries: [[`max by (ns, adapter) (lorikeet_operator_adapter_step{${OBJECTS}})`, '{{ns}}/{{adapter}}']],
    width: 8,
  },
  {
    title: 'Steps behind, on pods',
    unit: 'none',
    description: 'From the newest pod to the oldest, by served name. Flat at 0 with spikes at a push.',
    queries: [
      [
        'max by (adapter) (lorikeet_adapter_step{namespace=~"$namespace"}) - min by (adapter) (lorikeet_adapter_step{namespace=~"$namespace"})',
        '{{adapter}}',
      ],
    ],
    width: 8,
  },
  {
    title: 'Age of revisions: the twenty oldest',
    unit: 's',
    description: 'Saw teeth of a trainer that pushes; a straight rise of one that stopped.',
    queries: [
      [
        `topk(20, min by (ns, adapter) (lorikeet_operator_revision_age_seconds{${OBJECTS}}))`,
        '{{ns}}/{{adapter}}',
      ],
    ],
    width: 8,
  },
];

const failures: Panel[] = [
  {
    title: 'Refused pushes, by code',
    unit: '/min',
    description:
      'In the README of the repository each code says who must act. step_not_newer and superseded: two trainers, or a late retry.',
    queries: [[`${perMinute(PUSHES, `{${REFUSED}}`, 'code')} > 0`, '{{code}}']],
    isStacked: true,
    width: 8,
  },
  {
    title: 'Refused by pods, by code',
    unit: '/min',
    description:
      'Admin calls that pods refused: what the operator, or someone else with the token, asked of them in vain.',
    queries: [[perMinute('lorikeet_refusals_total', '{namespace=~"$namespace"}', 'code'), '{{code}}']],
    isStacked: true,
    width: 8,
  },
  {
    title: 'Spool of operators',
    unit: 'bytes',
    description: 'Revisions kept to seed new pods from. Bounded by --spool-bytes; the oldest go first.',
    queries: [['lorikeet_operator_spool_bytes', '{{pod}}']],
    width: 8,
  },
];

export const TRAINER_SYNC: Dashboard = {
  file: 'trainer-sync',
  title: "Lorikeet / Trainer's sync",
  description: 'How trainers get their revisions into pods: rate, stages, skew and failures of pushes.',
  variables: [
    {
      name: 'namespace',
      label: 'Namespace',
      query: 'label_values(lorikeet_operator_adapter_info, ns)',
      isMany: true,
    },
    {
      name: 'adapter',
      label: 'Adapter',
      query: 'label_values(lorikeet_operator_adapter_info{ns=~"$namespace"}, adapter)',
      isMany: true,
    },
  ],
  rows: [
    { title: 'Now', height: 4, panels: now },
    { title: 'Pushes', height: 8, panels: pushes },
    { title: 'Where the time goes', height: 8, panels: stages },
    { title: 'Swap', height: 8, panels: swaps },
    { title: 'Progress', height: 8, panels: progress },
    { title: 'Failures', height: 8, panels: failures },
  ],
};
