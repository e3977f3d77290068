/** A trainer's name as an adapter of the fleet and its step there. */
export interface Named {
  adapter: string;
  /** Null: the name is the adapter itself, and each load is a new step. */
  step: number | null;
}

/** Only these: `_7` and `.7` end names of adapters too. */
const VERSIONED = /^(.+)(?:-v|@)(\d{1,15})$/;

/** `trl-policy-v7` and `trl-policy@7` are step 7 of `trl-policy`; the base model's name is never a version of something. */
export function readName(name: string, baseModel: string): Named {
  const [, adapter, digits] = VERSIONED.exec(name) ?? [];
  if (name === baseModel || adapter === undefined) return { adapter: name, step: null };
  return { adapter, step: Number(digits) };
}

/** What a trainer loaded under a name, and the only revision that may answer it. */
export interface Version {
  name: string;
  /** As the trainer has it, without the version. */
  adapter: string;
  /** As pods have it. */
  served: string;
  revision: string;
  step: number;
  /** Unix seconds. */
  loadedAt: number;
}

/** The trainer's names, oldest load first; of each adapter the last `keep`. */
export class Names {
  readonly #keep: number;
  readonly #versions = new Map<string, Version>();

  constructor(keep: number) {
    this.#keep = keep;
  }

  find(name: string): Version | undefined {
    return this.#versions.get(name);
  }

  all(): Version[] {
    return [...this.#versions.values()];
  }

  of(adapter: string): Version[] {
    return this.all().filter((version) => version.adapter === adapter);
  }

  /** Returns those that are forgotten for it. */
  add(version: Version): Version[] {
    this.#versions.delete(version.name);
    this.#versions.set(version.name, version);
    const forgotten = this.of(version.adapter).slice(0, -this.#keep);
    for (const { name } of forgotten) this.#versions.delete(name);
    return forgotten;
  }

  remove(name: string): void {
    this.#versions.delete(name);
  }
}
