const PROGRESS_EVERY_MS = 2_000;

/** Tells a person what happens, and how long it took. */
export class Narrator {
  readonly #write: (text: string) => void;
  readonly #started = performance.now();
  #chapter = 0;

  constructor(write: (text: string) => void = (text) => process.stdout.write(text)) {
    this.#write = write;
  }

  chapter(title: string): void {
    this.#chapter += 1;
    this.#write(`\n${this.#chapter}. ${title}\n`);
  }

  say(text: string): void {
    this.#write(`${text.replace(/^/gm, '   ')}\n`);
  }

  /** A command as it would be typed, and what it printed. */
  command(command: string, output: string): void {
    this.say(`$ ${command}`);
    if (output.trim() !== '') this.say(output.trimEnd());
  }

  /** Runs `work`, with a progress line while it takes longer than 2 s, and says how long it took. */
  async timed<T>(what: string, work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const progress = setInterval(() => this.say(`… ${what} (${seconds(started)} so far)`), PROGRESS_EVERY_MS);
    try {
      const result = await work();
      this.say(`✓ ${what} (${seconds(started)})`);
      return result;
    } catch (error) {
      this.say(`✗ ${what} (${seconds(started)})`);
      throw error;
    } finally {
      clearInterval(progress);
    }
  }

  end(text: string): void {
    this.#write(`\n${text} (${seconds(this.#started)} in all)\n`);
  }
}

function seconds(since: number): string {
  const ms = performance.now() - since;
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`;
}
