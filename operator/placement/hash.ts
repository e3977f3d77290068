/** FNV-1a over the UTF-16 code units: spreads names, guards against nobody. 32 bits. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}

/**
 * The weight of a pair in rendezvous hashing: each adapter prefers the pods of the highest weights, so a pod that comes or
 * goes changes nothing in the order of the others.
 */
export function weightOf(adapter: number, pod: number): number {
  let mixed = Math.imul(adapter ^ Math.imul(pod, 0x9e3779b1), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** A pod that is full is not out of the question. */
const FREE_LEAST = 0.05;

/**
 * The weight where pods are not alike: each gets a part of the adapters in proportion to what it has free. Where all have
 * the same free, scores are in the order of weights.
 */
export function scoreOf(weight: number, free: number): number {
  return Math.max(free, FREE_LEAST) / -Math.log((weight + 0.5) / 2 ** 32);
}
