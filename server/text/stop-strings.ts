export interface StopOutcome {
  /** Text that can be given out now. */
  text: string;
  /** The stop string that ended the text, if one did. */
  stop: string | null;
}

/** Cuts a text at the first stop string, wherever its chunks break; holds back what may become one. */
export class StopStrings {
  private readonly stops: readonly string[];
  private readonly include: boolean;
  private held = '';

  constructor(stops: readonly string[], options: { include: boolean } = { include: false }) {
    this.stops = stops;
    this.include = options.include;
  }

  push(text: string): StopOutcome {
    this.held += text;
    const found = this.firstStop();
    if (found) {
      const end = found.index + (this.include ? found.stop.length : 0);
      const head = this.held.slice(0, end);
      this.held = '';
      return { text: head, stop: found.stop };
    }
    const keep = this.possibleStart();
    const head = this.held.slice(0, this.held.length - keep);
    this.held = this.held.slice(this.held.length - keep);
    return { text: head, stop: null };
  }

  end(): string {
    const rest = this.held;
    this.held = '';
    return rest;
  }

  private firstStop(): { index: number; stop: string } | null {
    let first: { index: number; stop: string } | null = null;
    for (const stop of this.stops) {
      const index = this.held.indexOf(stop);
      if (index >= 0 && (first === null || index < first.index)) first = { index, stop };
    }
    return first;
  }

  /** Length of the longest tail of the text that a stop string begins with. */
  private possibleStart(): number {
    let longest = 0;
    for (const stop of this.stops) {
      for (let length = Math.min(stop.length - 1, this.held.length); length > longest; length -= 1) {
        if (this.held.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
