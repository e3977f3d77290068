const PATIENCE_MS = 3_000;

/** Waits, in real time, for what crosses a real socket; the message of the last failure is the failure. */
export async function eventually(expectation: () => void): Promise<void> {
  const untilMs = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      expectation();
      return;
    } catch (error) {
      if (performance.now() > untilMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
