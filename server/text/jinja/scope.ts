import { Undefined, type Value } from './values.ts';

/** The names of a block; what is set in it is gone with it. */
export class Scope {
  readonly #names: Map<string, Value>;
  readonly #parent: Scope | null;

  constructor(parent: Scope | null, names: Iterable<[string, Value]> = []) {
    this.#parent = parent;
    this.#names = new Map(names);
  }

  get(name: string): Value {
    const own = this.#names.get(name);
    if (own !== undefined) return own;
    return this.#parent === null ? new Undefined(`'${name}' is undefined`) : this.#parent.get(name);
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}
