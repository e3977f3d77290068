import { describe, expect, it } from 'vitest';
import { FLAGS, HELP, parseConfig } from '../../server/config.ts';
import { ConfigError, environmentName } from '../../server/contract/flags.ts';

const MODEL = ['--model', 'some/dir'];
const parse = (args: string[], environment: NodeJS.ProcessEnv = {}) =>
  parseConfig([...MODEL, ...args], environment);

describe('flags', () => {
  it('have the documented defaults', () => {
    expect(parse([])).toMatchObject({
      model: 'some/dir',
      servedModelName: null,
      host: '127.0.0.1',
      port: 8000,
      adminHost: '127.0.0.1',
      adminPort: 8001,
      adminTokenFile: null,
      adminTls: null,
      relayCaFile: null,
      vllmApi: false,
      loraRoot: null,
      adapters: [],
      maxRank: 64,
      maxAdapterBytes: 512 * 2 ** 20,
      backend: 'auto',
      dtype: 'auto',
      logprobsMode: 'raw',
      readyWhen: 'serving',
      shutdownTimeoutMs: 25_000,
      logLevel: 'info',
    });
  });

  it.each(Object.keys(FLAGS).filter((name) => name !== 'model' && name !== 'vllm-api'))(
    '--%s is also an environment variable, and wins',
    (name) => {
      const samples: Record<string, [flag: string, variable: string]> = {
        adapter: ['a=x', 'b=y'],
        'admin-host': ['127.0.0.7', '127.0.0.9'],
        backend: ['cpu', 'reference'],
        'allowed-origins': ['*', 'https://ui.example'],
        'log-level': ['warn', 'debug'],
        dtype: ['float32', 'bfloat16'],
        'logprobs-mode': ['processed', 'raw'],
        'prefix-cache': ['off', 'on'],
        'ready-when': ['seeded', 'serving'],
        'max-batch-tokens': ['100', '200'],
        engine: ['vllm', 'sglang'],
        'engine-url': ['http://127.0.0.1:1', 'http://127.0.0.1:2'],
      };
      const [flag, variable] = samples[name] ?? ['7', '9'];
      const url = ['--engine-url', 'http://127.0.0.1:1'];
      const dir = ['--engine-dir', 'some/dir'];
      const needed: Record<string, string[]> = {
        engine: [...url, ...dir],
        'engine-url': ['--engine', 'vllm', ...dir],
        'engine-dir': ['--engine', 'vllm', ...url],
        'engine-sees-dir': ['--engine', 'vllm', ...url, ...dir],
        'engine-token-file': ['--engine', 'vllm', ...url, ...dir],
        'lora-root': ['--vllm-api'],
        'admin-tls-cert-file': ['--admin-tls-key-file', 'key'],
        'admin-tls-key-file': ['--admin-tls-cert-file', 'cert'],
        'admin-client-ca-file': ['--admin-tls-cert-file', 'cert', '--admin-tls-key-file', 'key'],
        'relay-ca-file': ['--admin-tls-cert-file', 'cert', '--admin-tls-key-file', 'key'],
      };
      const base = needed[name] ?? [];
      const environment = { [environmentName(name)]: variable };
      const byFlag = parse([...base, `--${name}`, flag], environment);
      expect(byFlag).toEqual(parse([...base, `--${name}`, flag]));
      expect(parse(base, environment)).toEqual(parse([...base, `--${name}`, variable]));
      expect(parse(base, environment)).not.toEqual(byFlag);
    },
  );

  it.each([
    [['--engine-url', 'http://127.0.0.1:1'], '--engine-… flags need --engine vllm or sglang'],
    [['--engine', 'vllm'], '--engine vllm needs --engine-url and --engine-dir'],
    [
      ['--engine', 'sglang', '--engine-url', 'http://a', '--engine-dir', 'd', '--vllm-api'],
      '--vllm-api needs --engine native, and this is sglang',
    ],
  ])('of an attached engine hang together: %s', (args, words) => {
    expect(() => parse(args)).toThrow(words);
  });

  it.each([
    ['1000000', 1_000_000],
    ['512Mi', 512 * 2 ** 20],
    ['1.5Gi', 1.5 * 2 ** 30],
    ['2G', 2e9],
    ['4k', 4000],
  ])('sizes accept %s', (text, bytes) => {
    expect(parse(['--kv-bytes', text])?.kvBytes).toBe(bytes);
  });

  it.each([
    ['*', ['*']],
    ['["*"]', ['*']],
    ['app://obsidian.md', ['app://obsidian.md']],
    ['https://a.example,http://localhost:3000', ['https://a.example', 'http://localhost:3000']],
    ['["https://a.example", "http://b.example"]', ['https://a.example', 'http://b.example']],
  ])('origins accept %s', (text, origins) => {
    expect(parse(['--allowed-origins', text])?.allowedOrigins).toEqual(origins);
  });

  it.each([
    ['0', 512, 256],
    ['0', 4, 4],
    ['7', 4, 7],
  ])('--threads %s of %d processors are %d', (threads, processors, wanted) => {
    const machine = { processors, memoryBytes: 2 ** 40 };
    expect(parseConfig([...MODEL, '--threads', threads], {}, machine)?.threads).toBe(wanted);
  });

  it('--host-bytes is no more than there is', () => {
    const machine = { processors: 1, memoryBytes: 2 ** 30 };
    expect(parseConfig([...MODEL, '--host-bytes', '1Gi'], {}, machine)?.hostBytes).toBe(2 ** 30);
    expect(() => parseConfig([...MODEL, '--host-bytes', '2Gi'], {}, machine)).toThrow(
      new ConfigError(
        'Expected at most the 1073741824 bytes of memory that there are for --host-bytes but received 2147483648',
      ),
    );
  });

  it('repeat --adapter only', () => {
    expect(parse(['--adapter', 'a=x', '--adapter', 'b=y=z'])?.adapters).toEqual([
      { name: 'a', dir: 'x' },
      { name: 'b', dir: 'y=z' },
    ]);
    expect(parse(['--adapter', 'org/Sql=x'])?.adapters).toEqual([{ name: 'org/Sql', dir: 'x' }]);
    expect(() => parse(['--port', '1', '--port', '2'])).toThrow('--port was given 2 times');
  });

  it('are not taken from what Kubernetes writes for a Service', () => {
    expect(parse([], { LORIKEET_PORT: 'tcp://10.0.0.1:80' })?.port).toBe(8000);
  });

  it.each<[string[], RegExp]>([
    [['--nonsense'], /nonsense/],
    [['stray'], /stray/],
    [['--port', '65536'], /from 0 to 65535 for --port but received 65536/],
    [['--port', '80x'], /80x/],
    [['--threads', '257'], /from 0 to 256 for --threads/],
    [['--max-rank', '0'], /from 1 to 512/],
    [['--kv-bytes', '12MB'], /12MB/],
    [['--kv-bytes', '0'], /--kv-bytes/],
    [['--backend', ''], /--backend/],
    [['--adapter', 'sql'], /NAME=DIR/],
    [['--allowed-origins', 'ui.example'], /https:\/\/ui\.example .* but received ui\.example/],
    [['--allowed-origins', 'https://ui.example/'], /--allowed-origins/],
    [['--adapter', 'sql@step-1=x'], /the name of A-Z a-z 0-9/],
    [['--adapter', 'a=x', '--adapter', 'a=y'], /a twice/],
    [['--admin-host', '0.0.0.0'], /--admin-token-file is required/],
    [['--vllm-api', '--host', '0.0.0.0'], /--admin-token-file is required where --host \(0\.0\.0\.0\)/],
    [['--lora-root', 'x'], /--lora-root needs --vllm-api/],
    [['--admin-tls-cert-file', 'x'], /--admin-tls-cert-file needs --admin-tls-key-file/],
    [['--admin-tls-key-file', 'x'], /--admin-tls-key-file needs --admin-tls-cert-file/],
    [['--relay-ca-file', 'x'], /--relay-ca-file needs --admin-tls-cert-file/],
    [['--admin-client-ca-file', 'x'], /--admin-client-ca-file needs --admin-tls-cert-file/],
    [['--port', '8001'], /both 8001/],
    [['--max-batch', '64', '--max-batch-tokens', '32'], /each running sequence needs a token/],
    [['--served-model-name', ''], /empty/],
  ])('refuse %j', (args, says) => {
    expect(() => parse(args)).toThrow(ConfigError);
    expect(() => parse(args)).toThrow(says);
  });

  it('require a model', () => {
    expect(() => parseConfig([], {})).toThrow('--model is required (or LORIKEET_MODEL)');
    expect(parseConfig([], { LORIKEET_MODEL: 'x' })?.model).toBe('x');
  });
});

describe('--help', () => {
  it('lists every flag with its default', () => {
    expect(parseConfig(['--help'], {})).toBeNull();
    for (const [name, flag] of Object.entries(FLAGS)) {
      const line = HELP.split('\n').find((text) => text.includes(`--${name} `));
      expect(line, name).toBeDefined();
      if (flag.default !== null) expect(line, name).toContain(`[${flag.default}]`);
    }
  });
});
