import dns, { type LookupAddress } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { Terminal } from './types.ts';

/**
 * Addresses of this very machine, ones that answer with its credentials, and ones that are no host at all. Private
 * addresses stay open: an object store inside the cluster is the normal case.
 */
const refused = new BlockList();
const IPV4: [string, number][] = [
  ['0.0.0.0', 8],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['100.100.100.200', 32], // metadata of Alibaba Cloud
  ['168.63.129.16', 32], // wire server of Azure
  ['192.0.0.192', 32], // metadata of Oracle Cloud
  ['224.0.0.0', 3],
];
const IPV6: [string, number][] = [
  ['::', 127], // unspecified and loopback
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
  ['fd00:ec2::', 32], // metadata of AWS
  ['fd20:ce::254', 128], // metadata of Google Cloud
  ['64:ff9b:1::', 48],
];
for (const [network, prefix] of IPV4) {
  refused.addSubnet(network, prefix, 'ipv4');
  // The forms that carry an IPv4 address: mapped ones the BlockList knows; compatible, NAT64 and 6to4 it does not.
  const [a, b, c, d] = network.split('.').map(Number) as [number, number, number, number];
  const tail = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  if (a !== 0) refused.addSubnet(`::${tail}`, 96 + prefix, 'ipv6');
  refused.addSubnet(`64:ff9b::${tail}`, 96 + prefix, 'ipv6');
  refused.addSubnet(`2002:${tail}::`, 16 + prefix, 'ipv6');
}
for (const [network, prefix] of IPV6) refused.addSubnet(network, prefix, 'ipv6');

const PORTS: Record<string, number> = { 'http:': 80, 'https:': 443 };

export interface AddressGuardOptions {
  /** Networks, as 127.0.0.0/8, whose addresses are let through all the same. */
  allowed: readonly string[];
  /** URL of the API server, which is never let through; null: there is none. */
  apiServer: string | null;
}

/** Which addresses the endpoint of a source may have. */
export class AddressGuard {
  readonly #allowed = new BlockList();
  readonly #apiServer: URL | null;

  constructor({ allowed, apiServer }: AddressGuardOptions) {
    for (const network of allowed) {
      const [address = '', prefix] = network.split('/');
      this.#allowed.addSubnet(address, Number(prefix), familyOf(address));
    }
    this.#apiServer = apiServer === null ? null : new URL(apiServer);
  }

  /** For a host written as an address, which a connection never looks up. */
  async requireAllowed(endpoint: URL): Promise<void> {
    const address = unbracketed(endpoint.hostname);
    if (isIP(address) !== 0) await this.#requireAllowed([address], portOf(endpoint));
  }

  /** Resolves a name and hands out only what was checked, so that the connection goes where the check looked. */
  lookupFor(port: number): LookupFunction {
    return (hostname, options, callback) => {
      const resolved = (addresses: LookupAddress[]) => {
        const [first] = addresses;
        if (options.all) callback(null, addresses);
        else if (first !== undefined) callback(null, first.address, first.family);
      };
      dns.lookup(hostname, { ...options, all: true }, (error, addresses) => {
        if (error) return callback(error, []);
        const found = addresses.map(({ address }) => address);
        this.#requireAllowed(found, port).then(
          () => resolved(addresses),
          (refusal: NodeJS.ErrnoException) => callback(refusal, []),
        );
      });
    };
  }

  async #requireAllowed(found: string[], port: number): Promise<void> {
    const addresses = found.map((address) => address.replace(/%.*$/, ''));
    if (addresses.length === 0 || addresses.some((address) => this.#isRefused(address))) throw refusal();
    if (this.#apiServer === null || portOf(this.#apiServer) !== port) return;
    const own = new BlockList();
    const host = unbracketed(this.#apiServer.hostname);
    for (const { address } of await dns.promises.lookup(host, { all: true })) {
      own.addAddress(address, familyOf(address));
    }
    if (addresses.some((address) => own.check(address, familyOf(address)))) throw refusal();
  }

  #isRefused(address: string): boolean {
    if (isIP(address) === 0) return true;
    const family = familyOf(address);
    return refused.check(address, family) && !this.#allowed.check(address, family);
  }
}

export function portOf({ port, protocol }: URL): number {
  return port === '' ? (PORTS[protocol] ?? 0) : Number(port);
}

/** Of a host as URL.hostname gives it. */
function unbracketed(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 6 ? 'ipv6' : 'ipv4';
}

function refusal(): Terminal {
  const what = 'a loopback, link-local, metadata or multicast address, or the API server';
  return new Terminal('SourceInvalid', `The endpoint is ${what}.`);
}
