/**
 * What clients wait with, in turns: one item of each client that has any, then the next of each. Where there is no room
 * for another, one of the client with the most goes, its last.
 */
export class FairQueue<T> {
  readonly #itemsMax: number;
  // In the order of turns: the first is the next.
  readonly #byClient = new Map<string, T[]>();
  #size = 0;

  constructor(itemsMax: number) {
    this.#itemsMax = itemsMax;
  }

  get isEmpty(): boolean {
    return this.#size === 0;
  }

  /** Returns what has to go for it, which may be the item itself. */
  push(client: string, item: T): T | undefined {
    const items = this.#byClient.get(client) ?? [];
    const dropped = this.#size < this.#itemsMax ? undefined : this.#dropFor(items.length + 1);
    if (this.#size === this.#itemsMax) return item;
    items.push(item);
    this.#byClient.set(client, items);
    this.#size += 1;
    return dropped;
  }

  shift(): T | undefined {
    const [next] = this.#byClient;
    if (next === undefined) return undefined;
    const [client, items] = next;
    const item = items.shift();
    this.#size -= 1;
    this.#byClient.delete(client);
    if (items.length > 0) this.#byClient.set(client, items);
    return item;
  }

  remove(client: string, item: T): void {
    const items = this.#byClient.get(client);
    const place = items?.indexOf(item) ?? -1;
    if (items === undefined || place === -1) return;
    items.splice(place, 1);
    this.#size -= 1;
    if (items.length === 0) this.#byClient.delete(client);
  }

  /** Takes all out. */
  clear(): T[] {
    const all = [...this.#byClient.values()].flat();
    this.#byClient.clear();
    this.#size = 0;
    return all;
  }

  /** Drops nothing where nobody would have more left than the newcomer then has. */
  #dropFor(newcomers: number): T | undefined {
    const longest = [...this.#byClient.values()].reduce((a, b) => (b.length > a.length ? b : a), []);
    if (longest.length <= newcomers) return undefined;
    this.#size -= 1;
    return longest.pop();
  }
}
