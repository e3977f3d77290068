/** Milliseconds of processor time that `act` takes in this process; unlike the clock, it does not count the neighbours. */
export function cpuMs(act: () => void): number {
  const before = process.cpuUsage();
  act();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
