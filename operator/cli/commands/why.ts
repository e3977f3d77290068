import { z } from 'zod';
import { podsText } from '../../pods/words.ts';
import { type Command, ENDPOINT_FLAGS, KUBE_FLAGS, PLAIN_OUTPUT } from '../command.ts';
import { Endpoint } from '../endpoint.ts';
import { getAdapter } from '../objects.ts';
import { print } from '../output.ts';
import { oneNamespace, withCluster } from '../session.ts';
import { table } from '../table.ts';
import { numberText, sizeText } from '../words.ts';

const WHY_MS = 15_000;

/** What is shown of operator/adapter/why.ts; a newer operator may say more. */
const Why = z.looseObject({
  servedName: z.string(),
  pool: z.string(),
  mode: z.string(),
  priority: z.number(),
  requestsPerMinute: z.number().optional(),
  wanted: z.number(),
  placed: z.number(),
  refusal: z.object({ reason: z.string(), message: z.string() }).nullable(),
  pods: z.array(
    z.looseObject({
      pod: z.string(),
      state: z.string(),
      zone: z.string().nullish(),
      holds: z.boolean().optional(),
      freeBytes: z.number().nullish(),
      neededBytes: z.number().optional(),
      why: z.string(),
    }),
  ),
});
export type Why = z.infer<typeof Why>;

export const why: Command = {
  name: 'why',
  args: 'NAME',
  arity: [1, 1],
  about: 'Says pod by pod where an adapter is placed, where it would fit, and why not elsewhere.',
  detail: `
FREE is the host memory that adapters of its own and higher priority leave in a pod; NEEDS is what this one takes.
STATE is placed, spare (it would fit, and need not be there), full, silent, or mismatched (another base model).

Examples:
  kubectl lora why sql -n models`,
  flags: { ...PLAIN_OUTPUT, ...KUBE_FLAGS, ...ENDPOINT_FLAGS },
  run: async (invocation) => {
    await withCluster(invocation, async (session) => {
      const [name = ''] = invocation.args;
      const adapter = await getAdapter(session, oneNamespace(session), name);
      const endpoint = await Endpoint.open(session, adapter, invocation.flags);
      const { body } = await endpoint.call({ method: 'GET', path: '/why', timeoutMs: WHY_MS, reply: Why });
      print(invocation, body, () => whyText(name, body));
    });
  },
};

export function whyText(name: string, body: Why): string {
  const { pool, mode, priority, requestsPerMinute, wanted, placed, refusal, pods } = body;
  const rank = priority === 0 ? '' : `, priority ${priority}`;
  const traffic = mode === 'Auto' ? `, ${numberText(requestsPerMinute)} requests a minute` : '';
  const lines = [
    `${name} asks for ${podsText(wanted)} of pool ${pool} (placement ${mode}${rank}${traffic}) and is placed on ${placed}.`,
    ...(refusal === null ? [] : [`${refusal.reason}: ${refusal.message}`]),
  ];
  if (pods.length === 0) return `${lines.join('\n')}\n`;
  const hasZones = pods.some(({ zone }) => typeof zone === 'string');
  const headers = ['POD', ...(hasZones ? ['ZONE'] : []), 'STATE', 'HOLDS IT', 'FREE', 'NEEDS', 'WHY'];
  const rows = pods.map(({ pod, zone, state, holds, freeBytes, neededBytes, why }) => [
    pod,
    ...(hasZones ? [zone ?? '-'] : []),
    state,
    holds === undefined ? '-' : holds ? 'yes' : 'no',
    freeBytes === null || freeBytes === undefined ? '-' : sizeText(Math.max(0, freeBytes)),
    sizeText(neededBytes),
    why,
  ]);
  return `${lines.join('\n')}\n\n${table(headers, rows)}`;
}
