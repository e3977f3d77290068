/** `npm run bench -- NAME …`: the benches by name; without one, push. */
const BENCHES: Record<string, string> = {
  push: './push.ts',
  engine: './engine/main.ts',
  serving: './serving.ts',
  slots: './slots.ts',
  sync: './sync/main.ts',
  operator: './operator/main.ts',
  fanout: './fanout/main.ts',
  sidecar: './sidecar.ts',
};

const [name = '', ...rest] = process.argv.slice(2);
const known = Object.hasOwn(BENCHES, name);
if (known) process.argv.splice(2, process.argv.length - 2, ...rest);
if (!known && name !== '' && !name.startsWith('-')) {
  process.stderr.write(`Expected one of ${Object.keys(BENCHES).join(', ')} but received ${name}\n`);
  process.exitCode = 2;
} else {
  await import(BENCHES[known ? name : 'push'] as string);
}
