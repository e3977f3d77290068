import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { AddonNames, BackendInfo, Engine, EngineEvent, EngineOptions, NativeAddon } from './types.ts';

/** Less is in malloc's hands, which keeps its pages anyway. */
const REUSED_BYTES_MIN = 1 << 20;

let loaded: NativeAddon | undefined;

/** Opens the model and starts the engine thread. `onEvents` gets the events of one or more steps, in order. */
export function createEngine(options: EngineOptions, onEvents: (events: EngineEvent[]) => void): Engine {
  return addon().createEngine(options, onEvents);
}

/** For a body that will be staged: its content is undefined, its pages are those of a body that nobody holds any more. */
export function allocateBody(bytes: number): Buffer {
  return bytes < REUSED_BYTES_MIN ? Buffer.allocUnsafeSlow(bytes) : Buffer.from(addon().allocateBody(bytes));
}

/** What `EngineOptions.backend` may name; `auto` is the first that is available. */
export function backends(): BackendInfo[] {
  return addon().backends();
}

/** Names as the C++ side has them. */
export function names(): AddonNames {
  return addon().names();
}

function addon(): NativeAddon {
  if (loaded) return loaded;
  const chosen = process.env.LORIKEET_ADDON;
  const path = chosen
    ? resolve(chosen)
    : fileURLToPath(new URL('../build/addon/lorikeet.node', import.meta.url));
  if (!existsSync(path)) {
    throw new Error(`The native addon is missing: expected ${path}. Run \`npm run build:addon\`.`);
  }
  loaded = createRequire(import.meta.url)(path) as NativeAddon;
  return loaded;
}
