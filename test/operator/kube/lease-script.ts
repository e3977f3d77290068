import type { Received, Reply } from './scripted-server.ts';

interface Lease {
  metadata: { name: string; resourceVersion: string; annotations?: Record<string, string> };
  spec: { holderIdentity: string; leaseTransitions: number; renewTime: string; leaseDurationSeconds: number };
}

/** One lease with the API server's rule: a write must name the version that it replaces. */
export class LeaseScript {
  lease: Lease | null = null;
  /** Identity → what befalls its writes and reads. Reads do not say who reads, so '' stands for all of those. */
  readonly faults = new Map<string, Reply>();
  #version = 0;

  readonly script = (request: Received): Reply => {
    const writer: string = request.body?.spec?.holderIdentity ?? '';
    const fault = this.faults.get(writer);
    if (fault !== undefined) return fault;
    if (request.method === 'GET') return this.lease ? { status: 200, body: this.lease } : { status: 404 };
    if (request.method === 'POST' && this.lease !== null) return { status: 409 };
    if (request.method === 'PUT' && this.lease === null) return { status: 404 };
    if (
      request.method === 'PUT' &&
      request.body.metadata.resourceVersion !== this.lease?.metadata.resourceVersion
    ) {
      return { status: 409 };
    }
    this.put(request.body);
    return { status: 200, body: this.lease };
  };

  put(lease: Omit<Lease, 'metadata'> & { metadata: object }): void {
    this.#version += 1;
    this.lease = {
      ...lease,
      metadata: { name: 'lease', ...lease.metadata, resourceVersion: String(this.#version) },
    };
  }
}
