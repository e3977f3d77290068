import { describe, expect, it } from 'vitest';
import { HELP, parseConfig } from '../../operator/config.ts';
import { ConfigError, environmentName } from '../../server/contract/flags.ts';

describe('the flags of the operator', () => {
  it('have defaults', () => {
    expect(parseConfig([], {})).toMatchObject({
      pushHost: '0.0.0.0',
      pushPort: 8080,
      pushAudience: 'lorikeet-push',
      pushTls: null,
      pushCaFile: null,
      pushUrl: null,
      metricsPort: 9090,
      spoolBytes: 2 * 2 ** 30,
      awsIdentity: 'none',
      allowedEndpointCidrs: [],
      relayFrom: 4,
      leaderName: 'lorikeet-operator',
      watchNamespace: null,
      logLevel: 'info',
    });
  });

  it('win over their variables, which win over defaults; an empty one counts as absent', () => {
    const environment = {
      LORIKEET_PUSH_PORT: '1',
      LORIKEET_WATCH_NAMESPACE: 'team-a',
      LORIKEET_IDENTITY: '',
    };
    const config = parseConfig(['--push-port', '2', '--spool-bytes=512Mi'], environment);
    expect(config).toMatchObject({ pushPort: 2, watchNamespace: 'team-a', spoolBytes: 512 * 2 ** 20 });
    expect(config?.identity).not.toBe('');
  });

  it.each([
    [['--push-prot', '1'], 'push-prot'],
    [['--push-port', '70000'], '--push-port'],
    [['--spool-bytes', 'much'], '--spool-bytes'],
    [['--push-url', 'ftp://host'], '--push-url'],
    [['--push-tls-cert-file', 'x'], '--push-tls-cert-file needs --push-tls-key-file'],
    [['--push-tls-key-file', 'x'], '--push-tls-key-file needs --push-tls-cert-file'],
    [['--log-level', 'loud'], '--log-level'],
    [['--aws-identity', 'mine'], '--aws-identity'],
    [['--allow-endpoint-cidr', '127.0.0.1'], '--allow-endpoint-cidr'],
    [['--allow-endpoint-cidr', '127.0.0.0/33'], '--allow-endpoint-cidr'],
    [['--allow-endpoint-cidr', '::1/8', '--allow-endpoint-cidr', 'host/8'], 'host/8'],
    [['--relay-from', '1'], '--relay-from'],
    [['positional'], 'positional'],
  ])('%j is refused by name', (args, named) => {
    expect(() => parseConfig(args, {})).toThrow(ConfigError);
    expect(() => parseConfig(args, {})).toThrow(named);
  });

  it('name networks one by one, or in one variable with commas between', () => {
    const args = ['127.0.0.0/8', 'fd00::/128'].flatMap((cidr) => ['--allow-endpoint-cidr', cidr]);
    const environment = { LORIKEET_ALLOW_ENDPOINT_CIDR: '127.0.0.0/8,fd00::/128' };
    for (const config of [parseConfig(args, {}), parseConfig([], environment)]) {
      expect(config?.allowedEndpointCidrs).toEqual(['127.0.0.0/8', 'fd00::/128']);
    }
  });

  it('are all in --help', () => {
    expect(parseConfig(['--help'], {})).toBeNull();
    const names = HELP.match(/^ {2}--[a-z-]+/gm) ?? [];
    expect(names).toHaveLength(21);
    expect(environmentName('push-port')).toBe('LORIKEET_PUSH_PORT');
  });
});
