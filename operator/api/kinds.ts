import type { CrdOptions } from './crd.ts';
import { LORA_ADAPTERS, LoraAdapterSpec, LoraAdapterStatus } from './lora-adapter.ts';
import { SERVER_POOLS, ServerPoolSpec, ServerPoolStatus } from './server-pool.ts';

const ready = '.status.conditions[?(@.type=="Ready")]';

const AGE = {
  name: 'Age',
  type: 'date',
  jsonPath: '.metadata.creationTimestamp',
  description: 'Time since the object was made.',
} as const;

const READY = [
  { name: 'Ready', type: 'string', jsonPath: `${ready}.status`, description: 'The condition Ready.' },
] as const;

const REASON = {
  name: 'Reason',
  type: 'string',
  jsonPath: `${ready}.reason`,
  description: 'The reason of the condition Ready.',
  priority: 1,
} as const;

/** All kinds of the operator: one CustomResourceDefinition each. */
export const KINDS: CrdOptions[] = [
  {
    resource: LORA_ADAPTERS,
    singular: 'loraadapter',
    shortNames: ['lora', 'loras'],
    description: 'A LoRA adapter that is kept live on the pods of a ServerPool.',
    spec: LoraAdapterSpec,
    status: LoraAdapterStatus,
    columns: [
      { name: 'Pool', type: 'string', jsonPath: '.spec.poolRef.name', description: 'The pool.' },
      {
        name: 'Served',
        type: 'string',
        jsonPath: '.status.servedName',
        description: 'What clients send as "model".',
      },
      {
        name: 'Revision',
        type: 'string',
        jsonPath: '.status.currentRevision.short',
        description: 'The revision that every pod serves.',
      },
      {
        name: 'Step',
        type: 'integer',
        jsonPath: '.status.currentRevision.step',
        description: "The trainer's step.",
      },
      ...READY,
      {
        name: 'Pods',
        type: 'string',
        jsonPath: '.status.pods.summary',
        description: 'Pods that serve it of all that should.',
      },
      AGE,
      REASON,
    ],
  },
  {
    resource: SERVER_POOLS,
    singular: 'serverpool',
    shortNames: ['lorapool', 'lorapools'],
    description: 'Server pods that hold the same base model and can hold LoRA adapters.',
    spec: ServerPoolSpec,
    status: ServerPoolStatus,
    columns: [
      { name: 'Base', type: 'string', jsonPath: '.spec.baseModel.name', description: 'The base model.' },
      {
        name: 'Adapters',
        type: 'integer',
        jsonPath: '.status.adapters',
        description: 'LoraAdapters of the pool.',
      },
      { name: 'Slots', type: 'integer', jsonPath: '.status.slots.total', description: 'Slots of all pods.' },
      { name: 'Used', type: 'integer', jsonPath: '.status.slots.used', description: 'Slots that are taken.' },
      ...READY,
      {
        name: 'Pods',
        type: 'string',
        jsonPath: '.status.podsSummary',
        description: 'Usable pods of all pods.',
      },
      AGE,
      REASON,
    ],
  },
];
