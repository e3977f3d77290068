import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Issued {
  cert: string;
  key: string;
}

/** A certificate authority of its own, for as long as a test runs. */
export class TestCa {
  readonly certificate: string;
  readonly #dir = mkdtempSync(join(tmpdir(), 'lorikeet-ca-'));

  constructor(name = 'lorikeet-test-ca') {
    this.#request(['-subj', `/CN=${name}`, '-keyout', this.#path('ca.key'), '-out', this.#path('ca.crt')]);
    this.certificate = readFileSync(this.#path('ca.crt'), 'utf8');
  }

  /** `san`: as DNS:pod.test or IP:127.0.0.1. */
  issue(san: string, subject = san, more: string[] = []): Issued {
    const name = san.replace(/\W/g, '-');
    this.#request([
      ...['-CA', this.#path('ca.crt'), '-CAkey', this.#path('ca.key'), '-subj', `/CN=${subject}`],
      ...['-addext', `subjectAltName=${san}`, '-addext', 'basicConstraints=critical,CA:FALSE', ...more],
      ...['-keyout', this.#path(`${name}.key`), '-out', this.#path(`${name}.crt`)],
    ]);
    const read = (ending: string) => readFileSync(this.#path(`${name}.${ending}`), 'utf8');
    return { cert: read('crt'), key: read('key') };
  }

  remove(): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #request(args: string[]): void {
    const fixed = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '9',
    ];
    execFileSync('openssl', [...fixed, ...args], { stdio: 'pipe' });
  }

  #path(name: string): string {
    return join(this.#dir, name);
  }
}

/** The files of a Secret as a pod has them: links through `..data`, which is swapped as a whole. */
export class SecretVolume {
  readonly dir = mkdtempSync(join(tmpdir(), 'lorikeet-secret-'));
  #version = 0;

  put(files: Record<string, string>): void {
    this.#version += 1;
    const data = `..${this.#version}`;
    mkdirSync(join(this.dir, data));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.dir, data, name), text);
    symlinkSync(data, join(this.dir, '..next'));
    renameSync(join(this.dir, '..next'), join(this.dir, '..data'));
    if (this.#version > 1) return;
    for (const name of Object.keys(files)) symlinkSync(join('..data', name), this.path(name));
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}
