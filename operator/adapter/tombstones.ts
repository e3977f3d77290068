const TOMBSTONES_MAX = 1024;

/**
 * Served names whose object is gone while a silent pod may still hold them. Bounded and lost with the process: pods
 * report the fence of whatever an operator activated, which says the same for all but revisions that were only staged.
 */
export class Tombstones {
  readonly #names = new Set<string>();

  bury(poolKey: string, servedName: string): void {
    const key = `${poolKey} ${servedName}`;
    this.#names.delete(key);
    this.#names.add(key);
    const [oldest] = this.#names;
    if (this.#names.size > TOMBSTONES_MAX && oldest !== undefined) this.#names.delete(oldest);
  }

  has(poolKey: string, servedName: string): boolean {
    return this.#names.has(`${poolKey} ${servedName}`);
  }
}
