import { createHash } from 'node:crypto';

/** Characters of a text, or tokens, that decide which pod a prompt goes to. */
const HEAD_LENGTH = 256;
/** How much more than the mean a pod may have in flight before prompts pass it over. */
const LOAD_FACTOR = 1.25;

/** What prompts that may share keys and values have in common: the adapter, whatever its revision, and how they begin. */
export function affinityKey(served: string, body: Readonly<Record<string, unknown>>): string {
  return JSON.stringify([served, headOf(body)]);
}

function headOf({ prompt, token_ids: tokens, messages }: Readonly<Record<string, unknown>>): unknown {
  if (Array.isArray(messages)) return headOfChat(messages);
  const first = Array.isArray(prompt) && typeof prompt[0] !== 'number' ? prompt[0] : prompt;
  const head = first ?? tokens;
  return typeof head === 'string' || Array.isArray(head) ? head.slice(0, HEAD_LENGTH) : null;
}

function headOfChat(messages: unknown[]): string {
  let head = '';
  for (const message of messages) {
    if (head.length >= HEAD_LENGTH) break;
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    head += `${role}: ${typeof content === 'string' ? content : JSON.stringify(content)}\n`;
  }
  return head.slice(0, HEAD_LENGTH);
}

export interface Candidate {
  url: string;
  inFlight: number;
}

/**
 * Rendezvous hashing with bounded loads: a prompt's own pod, unless that has more than its share in flight; then the next
 * one of the same prompt. A pod that comes or goes moves only the prompts that it gets or had.
 */
export function choosePod<P extends Candidate>(key: string, pods: readonly P[]): P | undefined {
  const inFlight = pods.reduce((sum, pod) => sum + pod.inFlight, 0);
  const most = Math.ceil((LOAD_FACTOR * (inFlight + 1)) / pods.length);
  const ranked = pods
    .map((pod) => ({ pod, score: scoreOf(key, pod.url) }))
    .sort((a, b) => b.score - a.score)
    .map(({ pod }) => pod);
  return ranked.find((pod) => pod.inFlight < most);
}

function scoreOf(key: string, url: string): number {
  return createHash('sha256').update(`${url}\n${key}`).digest().readUIntBE(0, 6);
}
