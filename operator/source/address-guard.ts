import { lookup } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { Terminal } from './types.ts';

/**
 * Addresses that answer with the credentials of the machine, and ones that are no host at all. Private and loopback
 * addresses stay open: an object store inside the cluster is the normal case.
 */
const refused = new BlockList();
const IPV4: [string, number][] = [
  ['0.0.0.0', 8],
  ['169.254.0.0', 16],
  ['100.100.100.200', 32], // metadata of Alibaba Cloud
  ['168.63.129.16', 32], // wire server of Azure
  ['192.0.0.192', 32], // metadata of Oracle Cloud
  ['224.0.0.0', 3],
];
const IPV6: [string, number][] = [
  ['::', 128],
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

export function isRefusedAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 0) return true;
  return refused.check(address.replace(/%.*$/, ''), family === 6 ? 'ipv6' : 'ipv4');
}

/** For a host written as an address, which a connection never looks up. `host` as URL.hostname gives it. */
export function requireAllowedHost(host: string): void {
  const address = host.replace(/^\[(.*)\]$/, '$1');
  if (isIP(address) !== 0 && isRefusedAddress(address)) throw refusal();
}

/** Resolves a name and hands out only what was checked, so that the connection goes where the check looked. */
export const guardedLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, []);
    const [first] = addresses;
    if (first === undefined || addresses.some(({ address }) => isRefusedAddress(address))) {
      return callback(refusal(), []);
    }
    if (options.all) callback(null, addresses);
    else callback(null, first.address, first.family);
  });
};

function refusal(): Terminal & NodeJS.ErrnoException {
  return new Terminal('SourceInvalid', 'The endpoint is a link-local, metadata or multicast address.');
}
