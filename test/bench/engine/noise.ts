// A prime number of values, so that no two rows of a matrix get the same ones.
const TILE_VALUES = 8_388_593;
const STANDARD_DEVIATION = 0.02;
const BF16_BYTES = 2;

/** An endless stream of normal bf16 noise: one seeded tile of 16 MiB, over and over. */
export class Noise {
  readonly #tile = normalTile(1);
  #next: number;

  constructor(start = 0) {
    this.#next = start % TILE_VALUES;
  }

  /** The next values as little-endian bf16, in views of the tile. */
  *take(values: number): Generator<Uint8Array> {
    for (let left = values; left > 0; ) {
      const count = Math.min(left, TILE_VALUES - this.#next);
      yield this.#tile.subarray(this.#next * BF16_BYTES, (this.#next + count) * BF16_BYTES);
      this.#next = (this.#next + count) % TILE_VALUES;
      left -= count;
    }
  }

  seek(value: number): void {
    this.#next = value % TILE_VALUES;
  }
}

/** The bf16 number 1, `values` times. */
export function bf16Ones(values: number): Uint8Array {
  return new Uint8Array(new Uint16Array(values).fill(0x3f80).buffer);
}

/** Box and Muller's normal numbers from mulberry32's uniform ones. */
function normalTile(seed: number): Uint8Array {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const float = new Float32Array(2);
  const bits = new Uint32Array(float.buffer);
  const tile = new Uint16Array(TILE_VALUES);
  for (let i = 0; i < TILE_VALUES; i += 2) {
    const radius = STANDARD_DEVIATION * Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    float[0] = radius * Math.cos(angle);
    float[1] = radius * Math.sin(angle);
    // bf16 is the upper half of a float32, rounded.
    tile[i] = ((bits[0] as number) + 0x8000) >>> 16;
    tile[i + 1] = ((bits[1] as number) + 0x8000) >>> 16;
  }
  return new Uint8Array(tile.buffer);
}
