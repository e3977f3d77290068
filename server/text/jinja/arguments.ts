import { type Dict, numeric, TemplateError, type Value } from './values.ts';

/** The arguments of one call of a filter or method, by place or by name. */
export class Arguments {
  readonly #args: Value[];
  readonly #named: Dict;

  constructor(args: Value[], named: Dict) {
    this.#args = args;
    this.#named = named;
  }

  get positional(): Value[] {
    return this.#args;
  }

  get named(): Dict {
    return this.#named;
  }

  /** Without the first `count` by place. */
  rest(count: number): Arguments {
    return new Arguments(this.#args.slice(count), this.#named);
  }

  /** None counts as given. */
  get(place: number, name: string, fallback: Value = null): Value {
    const given = this.#args[place] === undefined ? this.#named.get(name) : this.#args[place];
    return given === undefined ? fallback : given;
  }

  text(place: number, name: string, fallback?: string): string {
    const value = this.get(place, name, fallback ?? null);
    if (typeof value === 'string') return value;
    throw new TemplateError(`Expected a string for ${name}`);
  }

  textOrNull(place: number, name: string): string | null {
    return this.get(place, name) === null ? null : this.text(place, name);
  }

  integer(place: number, name: string, fallback?: number): number {
    const value = numeric(this.get(place, name, fallback ?? null));
    if (value !== null && Number.isInteger(value)) return value;
    throw new TemplateError(`Expected a whole number for ${name}`);
  }
}
