import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { toolPath } from '../support/tools.ts';
import { runCommand } from './command.ts';
import { freePort } from './free-port.ts';
import { type RunningProcess, startProcess } from './process.ts';

export interface ControlPlaneOptions {
  /** Also the controller manager and the scheduler: ServiceAccounts, Deployments, garbage collection, binding. */
  controllers?: boolean;
  /** Every write that arrives is written down: see `audited`. */
  audit?: boolean;
  /** Where the API server listens. Pods reach it through its Service where this is no loopback address. */
  host?: string;
  log?: (line: string) => void;
}

export interface ControlPlane {
  /** Path of an administrator's kubeconfig; it stands alone. */
  kubeconfig: string;
  url: string;
  caFile: string;
  adminToken: string;
  /** Logs and data, until stop. */
  dir: string;
  /** Runs kubectl as the administrator and returns its stdout. */
  kubectl(args: string[], input?: string): Promise<string>;
  /** Stops, continues or ends one of its programs. */
  signal(program: 'etcd' | 'kube-apiserver', signal: NodeJS.Signals): void;
  /** Writes that the API server has answered, oldest first, by whomever. */
  audited(): Promise<AuditedWrite[]>;
  stop(): Promise<void>;
}

export interface AuditedWrite {
  user: string;
  verb: string;
  /** The path with its query. */
  uri: string;
  status: number;
  receivedAt: Date;
}

const READY_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 3_000;
const START_ATTEMPTS_MAX = 3;

/** A real etcd and API server on loopback ports with a folder of their own. */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const log = options.log ?? (() => {});
  const assets = toolPath('assets');
  for (let attempt = 1; ; attempt++) {
    const dir = await mkdtemp(join(tmpdir(), 'lorikeet-control-plane-'));
    const plane = new Plane(assets, dir, log);
    try {
      await plane.start(options);
      return plane;
    } catch (error) {
      await plane.stop();
      // Another process can take a port between our asking for it and the server's listening on it.
      if (attempt === START_ATTEMPTS_MAX || !String(error).includes('address already in use')) throw error;
    }
  }
}

class Plane implements ControlPlane {
  readonly dir: string;
  readonly kubeconfig: string;
  readonly caFile: string;
  readonly adminToken = randomBytes(24).toString('hex');
  url = '';
  readonly #assets: string;
  readonly #log: (line: string) => void;
  readonly #processes: RunningProcess[] = [];
  readonly #programs = new Map<string, RunningProcess>();

  constructor(assets: string, dir: string, log: (line: string) => void) {
    this.#assets = assets;
    this.#log = log;
    this.dir = dir;
    this.kubeconfig = join(dir, 'admin.kubeconfig');
    this.caFile = join(dir, 'certs', 'apiserver.crt');
  }

  async start({ controllers, audit, host = '127.0.0.1' }: ControlPlaneOptions): Promise<void> {
    const started = performance.now();
    const keyFile = join(this.dir, 'service-account.key');
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    await writeFile(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    const tokensFile = join(this.dir, 'tokens.csv');
    await writeFile(tokensFile, `${this.adminToken},admin,admin,"system:masters"\n`, { mode: 0o600 });

    const etcdUrl = `http://127.0.0.1:${await freePort()}`;
    const peerUrl = `http://127.0.0.1:${await freePort()}`;
    const port = await freePort(host);
    this.url = `https://${host}:${port}`;
    await this.#run('etcd', etcdArgs(join(this.dir, 'etcd'), etcdUrl, peerUrl));
    await this.#run('kube-apiserver', [
      `--etcd-servers=${etcdUrl}`,
      `--cert-dir=${join(this.dir, 'certs')}`,
      `--secure-port=${port}`,
      `--bind-address=${host}`,
      `--advertise-address=${host}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${keyFile}`,
      `--service-account-signing-key-file=${keyFile}`,
      '--service-cluster-ip-range=10.96.0.0/16',
      '--authorization-mode=RBAC',
      // Nobody resolves the name of the stand-in node.
      '--kubelet-preferred-address-types=InternalIP',
      `--token-auth-file=${tokensFile}`,
      // Names of nodes are in no DNS.
      '--kubelet-preferred-address-types=InternalIP',
      ...(audit ? await this.#auditArgs() : []),
    ]);
    await this.#untilReady('/readyz');
    await this.#writeKubeconfig();
    if (controllers) await this.#startControllers(keyFile);
    this.#log(`control plane ready in ${Math.round(performance.now() - started)} ms at ${this.url}`);
  }

  async #startControllers(keyFile: string): Promise<void> {
    await this.#run('kube-controller-manager', [
      `--kubeconfig=${this.kubeconfig}`,
      `--service-account-private-key-file=${keyFile}`,
      '--use-service-account-credentials',
      `--root-ca-file=${this.caFile}`,
      '--leader-elect=false',
      '--secure-port=0',
    ]);
    await this.#run('kube-scheduler', [
      `--kubeconfig=${this.kubeconfig}`,
      '--leader-elect=false',
      '--secure-port=0',
    ]);
    // Pods are refused until the controllers have made their namespace's ServiceAccount.
    await this.#untilReady('/api/v1/namespaces/default/serviceaccounts/default');
  }

  async #auditArgs(): Promise<string[]> {
    const policyFile = join(this.dir, 'audit-policy.json');
    const verbs = ['create', 'update', 'patch', 'delete', 'deletecollection'];
    const policy = {
      apiVersion: 'audit.k8s.io/v1',
      kind: 'Policy',
      omitStages: ['RequestReceived'],
      rules: [{ level: 'Metadata', verbs }, { level: 'None' }],
    };
    await writeFile(policyFile, JSON.stringify(policy));
    return [`--audit-policy-file=${policyFile}`, `--audit-log-path=${join(this.dir, 'audit.log')}`];
  }

  async audited(): Promise<AuditedWrite[]> {
    const lines = (await readFile(join(this.dir, 'audit.log'), 'utf8')).split('\n');
    return lines.filter(Boolean).map((line) => {
      const { user, verb, requestURI, responseStatus, requestReceivedTimestamp } = JSON.parse(line);
      const receivedAt = new Date(requestReceivedTimestamp);
      return { user: user.username, verb, uri: requestURI, status: responseStatus.code, receivedAt };
    });
  }

  async #run(name: string, args: string[]): Promise<void> {
    const command = join(this.#assets, name);
    const program = await startProcess({ command, args, logFile: join(this.dir, `${name}.log`) });
    this.#processes.push(program);
    this.#programs.set(name, program);
  }

  signal(program: 'etcd' | 'kube-apiserver', signal: NodeJS.Signals): void {
    this.#programs.get(program)?.kill(signal);
  }

  async #untilReady(path: string): Promise<void> {
    await eventually(
      `${this.url}${path} answers 200`,
      { timeoutMs: READY_TIMEOUT_MS, everyMs: 50 },
      async () => {
        const ended = this.#processes.find((process) => process.exit !== null);
        if (ended) return ended;
        return (await this.#status(path)) === 200 ? 'ready' : undefined;
      },
    ).then((outcome) => {
      if (outcome !== 'ready')
        throw new Error(`a control plane process ended while starting:\n${outcome.logTail()}`);
    });
  }

  async #status(path: string): Promise<number | undefined> {
    if (!existsSync(this.caFile)) return undefined;
    const ca = await readFile(this.caFile);
    const headers = { authorization: `Bearer ${this.adminToken}` };
    return await new Promise((resolve) => {
      const call = request(this.url + path, { ca, headers, agent: false, timeout: 5_000 }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      call.once('timeout', () => call.destroy());
      call.once('error', () => resolve(undefined));
      call.end();
    });
  }

  /** JSON is YAML, and every reader of a kubeconfig takes it. */
  async #writeKubeconfig(): Promise<void> {
    const ca = (await readFile(this.caFile)).toString('base64');
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server: this.url, 'certificate-authority-data': ca } }],
      users: [{ name: 'admin', user: { token: this.adminToken } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
      'current-context': 'test',
    };
    await writeFile(this.kubeconfig, JSON.stringify(config, null, 2), { mode: 0o600 });
  }

  kubectl(args: string[], input?: string): Promise<string> {
    const own = [`--kubeconfig=${this.kubeconfig}`, `--cache-dir=${join(this.dir, 'kubectl-cache')}`];
    return runCommand(join(this.#assets, 'kubectl'), [...own, ...args], { input });
  }

  async stop(): Promise<void> {
    // Controllers first: without an API server they would only log errors.
    for (const process of this.#processes.reverse()) await process.stop(STOP_GRACE_MS);
    this.#processes.length = 0;
    await rm(this.dir, { recursive: true, force: true });
  }
}

function etcdArgs(dataDir: string, url: string, peerUrl: string): string[] {
  return [
    `--data-dir=${dataDir}`,
    `--listen-client-urls=${url}`,
    `--advertise-client-urls=${url}`,
    `--listen-peer-urls=${peerUrl}`,
    `--initial-advertise-peer-urls=${peerUrl}`,
    `--initial-cluster=default=${peerUrl}`,
    '--unsafe-no-fsync',
    '--log-level=warn',
  ];
}
