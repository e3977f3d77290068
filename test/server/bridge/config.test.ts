import { describe, expect, it } from 'vitest';
import { FLAGS, HELP, parseConfig } from '../../../server/bridge/config.ts';
import { ConfigError, environmentName } from '../../../server/contract/flags.ts';

const REQUIRED: Record<string, string> = {
  push: 'http://a:8001',
  'push-token-file': 'token',
  serving: 'http://a:8000',
  'lora-root': 'out',
};
const without = (...names: string[]) =>
  Object.entries(REQUIRED).flatMap(([name, value]) => (names.includes(name) ? [] : [`--${name}`, value]));
const parse = (args: string[] = [], environment: NodeJS.ProcessEnv = {}) =>
  parseConfig([...without(), ...args], environment);

describe('flags of the bridge', () => {
  it('have the documented defaults', () => {
    expect(parse()).toEqual({
      push: { kind: 'pods', adminUrls: ['http://a:8001'] },
      pushTokenFile: 'token',
      pushCaFile: null,
      pushPair: null,
      pushServerName: null,
      serving: ['http://a:8000'],
      loraRoot: 'out',
      host: '127.0.0.1',
      port: 8000,
      tokenFile: null,
      keep: 6,
      syncTimeoutMs: 120_000,
      requestTimeoutMs: 600_000,
      maxInFlight: 4096,
      shutdownTimeoutMs: 25_000,
      logLevel: 'info',
    });
  });

  it.each(Object.keys(FLAGS))('--%s is also an environment variable, and wins', (name) => {
    const samples: Record<string, [flag: string, variable: string]> = {
      push: ['https://b', 'https://c'],
      serving: ['http://b', 'http://c'],
      'serving-dns': ['b:1', 'c:2'],
      host: ['127.0.0.7', '127.0.0.9'],
      'log-level': ['warn', 'debug'],
    };
    const needed: Record<string, string[]> = {
      'push-cert-file': ['--push', 'https://a', '--push-key-file', 'key'],
      'push-key-file': ['--push', 'https://a', '--push-cert-file', 'cert'],
    };
    const [flag, variable] = samples[name] ?? ['7', '9'];
    const others = [...(name === 'serving-dns' ? ['serving'] : []), ...(name in needed ? ['push'] : [])];
    const base = [...without(name, ...others), ...(needed[name] ?? [])];
    const environment = { [environmentName(name)]: variable };
    const byFlag = parseConfig([...base, `--${name}`, flag], environment);
    expect(byFlag).toEqual(parseConfig([...base, `--${name}`, flag], {}));
    expect(parseConfig(base, environment)).toEqual(parseConfig([...base, `--${name}`, variable], {}));
    expect(parseConfig(base, environment)).not.toEqual(byFlag);
  });

  it.each<[string, string[], object]>([
    [
      'a namespace of an operator',
      ['http://op:8080/v1/namespaces/team-a/'],
      { namespaceUrl: 'http://op:8080/v1/namespaces/team-a', object: null },
    ],
    [
      'status.pushURL',
      ['https://push.example/lorikeet/v1/namespaces/team-a/adapters/live/revisions'],
      { namespaceUrl: 'https://push.example/lorikeet/v1/namespaces/team-a', object: 'live' },
    ],
    ['pods', ['http://a:8001,http://b:8001/'], { adminUrls: ['http://a:8001', 'http://b:8001'] }],
  ])('--push takes %s', (_name, urls, place) => {
    const args = urls.flatMap((url) => ['--push', url]);
    expect(parseConfig([...without('push'), ...args], {})?.push).toMatchObject(place);
  });

  it('--serving takes several, repeated or with commas', () => {
    const args = ['--serving', 'http://b,http://c/'];
    expect(parse(args)?.serving).toEqual(['http://a:8000', 'http://b', 'http://c']);
  });

  it.each<[string[], RegExp]>([
    [without('push'), /--push is required/],
    [without('push-token-file'), /--push-token-file is required/],
    [without('lora-root'), /--lora-root is required/],
    [without('serving'), /either --serving or --serving-dns/],
    [[...without(), '--serving-dns', 'a:1'], /either --serving or --serving-dns/],
    [[...without('serving'), '--serving-dns', 'pods'], /a name and a port/],
    [[...without(), '--serving', 'a:8000'], /http or https URLs for --serving but received a:8000/],
    [[...without(), '--push', 'http://op/v1/namespaces/x'], /Expected one URL for --push/],
    [[...without(), '--push-cert-file', 'x'], /--push-cert-file needs --push-key-file/],
    [
      [...without(), '--push-cert-file', 'x', '--push-key-file', 'x'],
      /--push-cert-file needs https URLs for --push, not http:\/\/a:8001/,
    ],
    [[...without(), '--keep', '0'], /from 1 to 17/],
    [[...without(), '--host', '0.0.0.0'], /--token-file is required where --host \(0\.0\.0\.0\)/],
  ])('refuse %j', (args, says) => {
    expect(() => parseConfig(args, {})).toThrow(ConfigError);
    expect(() => parseConfig(args, {})).toThrow(says);
  });

  it('are all in --help', () => {
    expect(parseConfig(['--help'], {})).toBeNull();
    for (const name of Object.keys(FLAGS)) expect(HELP).toContain(`--${name} `);
  });
});
