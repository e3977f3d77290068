import { describe, expect, it } from 'vitest';
import { AddressGuard, type AddressGuardOptions } from '../../../operator/source/address-guard.ts';
import { locationOf, S3 } from '../../../operator/source/s3-location.ts';
import { Terminal } from '../../../operator/source/types.ts';

const at = (objectStore: object) => () =>
  locationOf(
    {
      metadata: { namespace: 'team-a', name: 'sql' },
      spec: { source: { objectStore: { uri: 's3://bucket/prefix/', ...objectStore } } },
    },
    S3,
  );

const guardOf = (options: Partial<AddressGuardOptions> = {}) =>
  new AddressGuard({ allowed: [], apiServer: null, ...options });

/** Where a source with this endpoint is read; rejects where it may not be. */
async function opened(endpoint: string | undefined, guard = guardOf()): Promise<string | null> {
  const location = at(endpoint === undefined ? {} : { endpoint })();
  if (location.endpoint !== null) await guard.requireAllowed(new URL(location.endpoint));
  return location.endpoint;
}

const REFUSED_ENDPOINTS = [
  'http://127.0.0.1:7070',
  'http://127.8.9.10',
  'http://0x7f.1',
  'http://[::1]:7070',
  'http://[::ffff:127.0.0.1]',
  'http://[::7f00:1]',
  'http://[64:ff9b::7f00:1]',
  'http://[2002:7f00:1::1]',
  'http://169.254.169.254',
  'http://169.254.169.254:80/latest',
  'http://169.254.170.2',
  'http://[::ffff:169.254.169.254]',
  'http://[::ffff:a9fe:a9fe]',
  'http://[::a9fe:a9fe]',
  'http://[64:ff9b::a9fe:a9fe]',
  'http://[64:ff9b:1::1]',
  'http://[2002:a9fe:a9fe::1]',
  'http://[fe80::1]',
  'http://[febf::1]',
  'http://[fd00:ec2::254]',
  'http://[fd20:ce::254]',
  'http://[ff02::1]',
  'http://[::]',
  'http://0.0.0.0',
  'http://0',
  'http://0xa9fea9fe',
  'http://0xa9.0xfe.0xa9.0xfe',
  'http://2852039166',
  'http://0251.0376.0251.0376',
  'http://169.254.43518',
  'http://１６９.２５４.１６９.２５４',
  'http://169。254。169。254',
  'http://100.100.100.200',
  'http://168.63.129.16',
  'http://192.0.0.192',
  'http://224.0.0.1',
  'http://255.255.255.255',
  'http://169.254.169.254\\@good',
  'http://user:pass@store',
  'http://user@store',
  'http://store?x=1',
  'http://store/#x',
  'https://169.254.169.254',
  'file:///etc/passwd',
  'gopher://store',
  'ftp://store',
  'javascript:alert(1)',
  'store:9000',
  '//store',
  'http://',
  'http://[::1',
  'http://store:99999',
  'http://a b',
];

describe('an endpoint', () => {
  it.each(REFUSED_ENDPOINTS)('is refused: %s', (endpoint) => {
    return expect(opened(endpoint)).rejects.toThrow(Terminal);
  });

  it.each([
    ['http://minio.storage.svc:9000', 'http://minio.storage.svc:9000/'],
    ['http://10.0.0.7:9000', 'http://10.0.0.7:9000/'],
    ['http://[fd12:3456::1]', 'http://[fd12:3456::1]/'],
    ['https://storage.example.com/s3', 'https://storage.example.com/s3'],
    ['http://good\\@169.254.169.254', 'http://good/@169.254.169.254'],
    ['http://1.1.1.1', 'http://1.1.1.1/'],
    ['http://168.63.129.17', 'http://168.63.129.17/'],
    [undefined, null],
  ])('is taken as one URL parser reads it: %s', async (endpoint, expected) => {
    expect(await opened(endpoint)).toBe(expected);
  });

  it.each([
    ['http://127.0.0.1:7070', ['127.0.0.0/8']],
    ['http://[::ffff:127.0.0.1]', ['10.0.0.0/8', '127.0.0.0/8']],
    ['http://[::1]:7070', ['::1/128']],
    ['http://169.254.20.10', ['169.254.20.10/32']],
  ])('is let through where its network is allowed: %s', async (endpoint, allowed) => {
    await opened(endpoint, guardOf({ allowed }));
  });

  it.each([
    ['http://[::1]:7070', ['127.0.0.0/8']],
    ['http://169.254.169.254', ['127.0.0.0/8', '169.254.20.10/32']],
  ])('is refused where another network is allowed: %s', async (endpoint, allowed) => {
    await expect(opened(endpoint, guardOf({ allowed }))).rejects.toThrow(Terminal);
  });

  it.each([
    ['https://10.96.0.1', 'https://10.96.0.1:443', []],
    ['http://10.96.0.1:443', 'https://10.96.0.1', []],
    ['https://[::ffff:10.96.0.1]', 'https://10.96.0.1', []],
    ['https://[fd12::1]:6443', 'https://[fd12::1]:6443', []],
    ['https://127.0.0.1:6443', 'https://localhost:6443', ['127.0.0.0/8', '::1/128']],
  ])(
    'is refused where it is the API server, whatever is allowed: %s',
    async (endpoint, apiServer, allowed) => {
      await expect(opened(endpoint, guardOf({ apiServer, allowed }))).rejects.toThrow(Terminal);
    },
  );

  it('is taken beside the API server, at another port', async () => {
    const guard = guardOf({ apiServer: 'https://10.96.0.1' });
    expect(await opened('https://10.96.0.1:9000', guard)).toBe('https://10.96.0.1:9000/');
  });

  it('never connects to a name that resolves to a refused address', async () => {
    const resolved = (hostname: string, all: boolean, guard = guardOf(), port = 80) =>
      new Promise<unknown>((resolve, reject) => {
        const lookup = guard.lookupFor(port);
        lookup(hostname, { all }, (error, addresses) => (error ? reject(error) : resolve(addresses)));
      });
    // The resolver takes an address for a name: so no name server is needed to see it refused.
    await expect(resolved('169.254.169.254', true)).rejects.toBeInstanceOf(Terminal);
    await expect(resolved('::ffff:169.254.169.254', false)).rejects.toBeInstanceOf(Terminal);
    await expect(resolved('localhost', false)).rejects.toBeInstanceOf(Terminal);
    await expect(resolved('10.0.0.7', false)).resolves.toBe('10.0.0.7');
    await expect(resolved('10.0.0.7', true)).resolves.toEqual([{ address: '10.0.0.7', family: 4 }]);
    const guard = guardOf({ apiServer: 'https://10.0.0.7' });
    await expect(resolved('10.0.0.7', true, guard, 443)).rejects.toBeInstanceOf(Terminal);
    await expect(resolved('10.0.0.7', false, guard, 80)).resolves.toBe('10.0.0.7');
  });
});

describe('a place in a bucket', () => {
  it.each([
    's3://bucket/../other',
    's3://bucket/a/./b',
    's3://Bucket/a',
    's3://a/b',
    's3:///a',
    's3://arn:aws:s3:::x/y',
    's3://bucket@evil/a',
    's3://bucket/a\nb',
    's3://bucket/a\u0000',
    `s3://bucket/${'x'.repeat(1001)}`,
    'https://bucket/a',
    'bucket/a',
    '',
  ])('is refused: %j', (uri) => {
    expect(at({ uri })).toThrow(Terminal);
  });

  it.each(['x.evil.com/#', 'a b', '', '-'.repeat(64)].filter((region) => region !== ''))(
    'is refused with region %j',
    (region) => {
      expect(at({ region })).toThrow(Terminal);
    },
  );

  it('says what is wrong without repeating it', () => {
    expect(at({ endpoint: 'http://canary-user:canary-pass@store' })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('canary') }),
    );
  });
});
