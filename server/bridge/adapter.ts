import type { FileHandle } from 'node:fs/promises';
import { revisionDigest } from '../contract/digest.ts';
import { parseAdapterConfig } from '../contract/format/adapter-config.ts';
import { type OpenFile, openTensors, readBounded, readConfigFile } from '../transfer/adapter-folder.ts';
import { HashingReader } from '../transfer/tensors-reader.ts';

/** What is sent of the file at a time. */
const CHUNK_BYTES = 256 << 10;

/** An adapter on the trainer's disk whose bytes have all been read once, so that its revision is known. */
export class AdapterOnDisk {
  readonly config: unknown;
  readonly revision: string;
  readonly bytes: number;
  /** Of the tensors' file, lower-case hex. */
  readonly sha256: string;
  readonly #file: FileHandle;

  /** Refuses what is no adapter, such as a file that is not whole yet. To be closed. */
  static async open(openFile: OpenFile): Promise<AdapterOnDisk> {
    const { raw } = parseAdapterConfig(await readConfigFile(openFile));
    const file = await openTensors(openFile);
    try {
      const { size } = await file.stat();
      // How large an adapter may be is for the pods to say.
      const reader = new HashingReader({ maxBytes: size, declaredBytes: size, accept: () => null });
      await readBounded(file, size, (chunk) => reader.push(chunk));
      return new AdapterOnDisk(raw, file, { bytes: size, sha256: reader.finish().tensorsSha256 });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  private constructor(config: unknown, file: FileHandle, read: { bytes: number; sha256: string }) {
    this.config = config;
    this.#file = file;
    this.bytes = read.bytes;
    this.sha256 = read.sha256;
    this.revision = revisionDigest(config, read.sha256);
  }

  /** The tensors from the first byte; as often, and as many at once, as is wanted. A stream would close the file. */
  async *tensors(): AsyncGenerator<Buffer> {
    for (let at = 0; at < this.bytes; ) {
      const room = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, this.bytes - at));
      const { bytesRead } = await this.#file.read(room, 0, room.length, at);
      if (bytesRead === 0) throw new Error('adapter_model.safetensors became shorter while it was read');
      yield room.subarray(0, bytesRead);
      at += bytesRead;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
