// The addon of LORIKEET_WATCHED, seen from between engine and server: writes to the file LORIKEET_STALLS, a line each
// time that it grows, for how many engine steps a request waited for its next token while others got theirs. Such a step
// is told by what events say: no request gets two tokens in one.
const { appendFileSync } = require('node:fs');

const { LORIKEET_WATCHED, LORIKEET_STALLS } = process.env;
const addon = require(LORIKEET_WATCHED);

function watch(onEvents) {
  const lastStep = new Map();
  let step = 0;
  let most = 0;
  return (events) => {
    for (const { id, type } of events) {
      if (type === 'finished' || type === 'failed') lastStep.delete(id);
      if (type !== 'token') continue;
      const last = lastStep.get(id);
      if (last === step) step += 1;
      const stalled = last === undefined ? 0 : step - last - 1;
      lastStep.set(id, step);
      if (stalled <= most) continue;
      most = stalled;
      appendFileSync(LORIKEET_STALLS, `${stalled}\n`);
    }
    onEvents(events);
  };
}

module.exports = {
  ...addon,
  createEngine: (options, onEvents) => addon.createEngine(options, watch(onEvents)),
};
