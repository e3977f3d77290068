import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FLAGS as OPERATOR_FLAGS, parseConfig as parseOperatorConfig } from '../../../operator/config.ts';
import { FLAGS as BRIDGE_FLAGS } from '../../../server/bridge/config.ts';
import { parseConfig as parseServerConfig, FLAGS as SERVER_FLAGS } from '../../../server/config.ts';
import { ConfigError, FlagReader, type Flags, helpText, synopsis } from '../../../server/contract/flags.ts';

const ROOT = resolve(import.meta.dirname, '../../..');

const FLAGS = {
  port: { value: 'PORT', default: '80', help: 'where' },
  name: { value: 'NAME', default: null, help: 'who' },
  base: { value: 'URL', default: null, help: 'whence' },
  size: { value: 'BYTES', default: '1Ki', help: 'how much' },
  pace: { value: ['slow', 'fast'], default: 'slow', help: 'how' },
  dry: { value: '', default: null, help: 'whether' },
} as const satisfies Flags;

const read = (args: string[], environment: NodeJS.ProcessEnv = {}) =>
  new FlagReader(FLAGS, args, environment);

describe('a reader of flags', () => {
  it('takes the flag, else its variable, else the default', () => {
    const environment = { LORIKEET_PORT: '81', LORIKEET_NAME: 'b' };
    expect(read(['--port', '82'], environment).port('port')).toBe(82);
    expect(read([], environment).port('port')).toBe(81);
    expect(read([]).port('port')).toBe(80);
    expect(read([], environment).optional('name')).toBe('b');
    expect(read([]).optional('name')).toBeNull();
  });

  it('takes an empty variable for none, and refuses an empty flag', () => {
    expect(read([], { LORIKEET_PORT: '' }).port('port')).toBe(80);
    expect(() => read(['--port=']).port('port')).toThrow(
      'Expected a value for --port but received an empty one',
    );
  });

  it('reads lists, of several flags or of one variable with commas', () => {
    expect(read(['--name', 'a', '--name', 'b,c']).list('name')).toEqual(['a', 'b,c']);
    expect(read([], { LORIKEET_NAME: 'a,,b' }).list('name')).toEqual(['a', 'b']);
    expect(read([]).list('name')).toEqual([]);
  });

  it('reads sizes, rounded up to whole bytes', () => {
    expect(read([]).bytes('size')).toBe(1024);
    expect(read(['--size', '0.3k']).bytes('size')).toBe(300);
    expect(read(['--size', '0.0001Ki']).bytes('size')).toBe(1);
  });

  it('reads URLs and choices', () => {
    expect(read([]).url('base')).toBeNull();
    expect(read(['--base', 'https://a/b']).url('base')).toBe('https://a/b');
    const pace: 'slow' | 'fast' = read(['--pace', 'fast']).oneOf('pace');
    expect(pace).toBe('fast');
  });

  it('reads switches, whose variables are 1 or 0', () => {
    const given = [read(['--dry']), read([], { LORIKEET_DRY: '1' }), read(['--dry'], { LORIKEET_DRY: '0' })];
    expect(given.map((reader) => reader.isOn('dry'))).toEqual([true, true, true]);
    expect([read([]), read([], { LORIKEET_DRY: '0' })].map((reader) => reader.isOn('dry'))).toEqual([
      false,
      false,
    ]);
  });

  it.each<[string, () => unknown]>([
    [
      'Expected 1 or 0 for LORIKEET_DRY but received yes',
      () => read([], { LORIKEET_DRY: 'yes' }).isOn('dry'),
    ],
    ["Option '--dry' does not take an argument", () => read(['--dry=1'])],
    ['--port was given 2 times; once is allowed', () => read(['--port', '1', '--port', '1']).port('port')],
    ['--name is required (or LORIKEET_NAME)', () => read([]).text('name')],
    [
      'Expected a whole number from 0 to 65535 for --port but received -0',
      () => read(['--port=-0']).port('port'),
    ],
    [
      'Expected a size as 512Mi or 1000000 for --size but received 1mi',
      () => read(['--size', '1mi']).bytes('size'),
    ],
    ['Expected one of slow, fast for --pace but received fas', () => read(['--pace', 'fas']).oneOf('pace')],
    ['Expected an http or https URL for --base but received a', () => read(['--base', 'a']).url('base')],
    ["Unknown option '--prot'", () => read(['--prot', '1'])],
  ])('says "%s"', (message, wrong) => {
    expect(wrong).toThrow(ConfigError);
    expect(wrong).toThrow(message);
  });

  it('knows --help, and what to print then', () => {
    expect([read(['--help']).wantsHelp, read([]).wantsHelp]).toEqual([true, false]);
    expect(helpText('node a.ts', FLAGS, ['A note.'])).toMatch(
      /^Usage: node a\.ts\n\n {2}--port PORT +where \[80\]\n[\s\S]*\n {2}--pace slow\|fast +how \[slow\]\n {2}--dry +whether\n[\s\S]*\nA note\.\n$/,
    );
  });
});

const PROGRAMS: { program: string; flags: Flags }[] = [
  { program: 'server', flags: SERVER_FLAGS },
  { program: 'server/bridge', flags: BRIDGE_FLAGS },
  { program: 'operator', flags: OPERATOR_FLAGS },
];

describe.each(PROGRAMS)('$program/README.md', ({ program, flags }) => {
  it('has a row for every flag, in the order and in the words of its table', () => {
    const rows = Object.entries(flags).map(([name, flag]) => {
      return [`\`${synopsis(name, flag).replaceAll('|', '\\|')}\``, flag.default ?? '', flag.help];
    });
    const written = readFileSync(resolve(ROOT, program, 'README.md'), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| `--'))
      .map((line) =>
        line
          .split(/(?<!\\)\|/)
          .slice(1, -1)
          .map((cell) => cell.trim()),
      );
    expect(written).toEqual(rows);
  });
});

describe('what Kubernetes writes for a Service', () => {
  it('is not taken for a port', () => {
    const written = 'tcp://10.0.0.1:80';
    expect(parseServerConfig(['--model', 'x'], { LORIKEET_PORT: written })?.port).toBe(8000);
    expect(parseOperatorConfig([], { LORIKEET_PUSH_PORT: written })?.pushPort).toBe(8080);
  });
});
