/** One writer, one reader. The reader waits while it is empty. */
export class EventQueue<T> {
  private items: T[] = [];
  private wake: ((item: T) => void) | null = null;

  push(item: T): void {
    if (this.wake === null) {
      this.items.push(item);
      return;
    }
    const wake = this.wake;
    this.wake = null;
    wake(item);
  }

  next(): Promise<T> {
    const item = this.items.shift();
    if (item !== undefined) return Promise.resolve(item);
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }
}
