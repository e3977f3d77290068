#!/usr/bin/env bash
# The second stay: the real engine and server on a GPU. Run from build/gpu-check of a checkout, which `npm run gpu-check`
# fills, with OUT naming a folder for the results. Exits 77 where no GPU answers.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
checkout=$(cd ../.. && pwd)
out=$(realpath "${OUT:-.}")
export LORIKEET_ADDON=$PWD/lorikeet.node LORIKEET_CUDA_LIBRARY=$PWD/liblorikeet_cuda.so
export LORIKEET_CACHE=${LORIKEET_CACHE:-${TMPDIR:-/tmp}/lorikeet}
[ -e "$checkout/node_modules" ] || tar -xJf runtime.tar.xz -C "$checkout" || exit 1
cd "$checkout"
node=node_modules/.bin/node

# Right?
timeout 200 $node test/native/cuda/device.ts | tee "$out/engine.json"
code=${PIPESTATUS[0]}
if [ "$code" -ne 0 ]; then exit "$code"; fi

# Fast? Of 16 GB of weights: they are written first.
timeout 300 $node test/bench/main.ts serving --8b --backend cuda --adapters 32 --streams 32 --tokens 128 --pushes 32 | tee "$out/serving.json"
