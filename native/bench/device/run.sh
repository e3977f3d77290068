#!/usr/bin/env bash
# What one short stay on a GPU machine should yield: run from build/gpu-check, which `npm run gpu-check` fills, with OUT
# naming a folder for the results. Exits 77 where no GPU answers.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
out=${OUT:-.}
library=./liblorikeet_cuda.so
./device_bench $library --shape tiny >/dev/null 2>"$out/probe.txt"
code=$?
if [ $code -ne 0 ]; then
  cat "$out/probe.txt"
  exit $code
fi
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,pcie.link.gen.current,pcie.link.width.current --format=csv | tee "$out/gpu.csv"
failed=0

# Right?
LORIKEET_CUDA_LIBRARY=$library timeout 90 ./step_test --library --long 2>&1 | tee "$out/steps.txt" | tail -3
[ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
LORIKEET_CUDA_PDL=0 LORIKEET_CUDA_LIBRARY=$library timeout 60 ./step_test --library 2>&1 | tail -1
if [ $failed -ne 0 ]; then exit 1; fi

# Fast? With and without what may not help.
timeout 100 ./device_bench $library | tee "$out/bench.json"
LORIKEET_CUDA_PDL=0 timeout 100 ./device_bench $library >"$out/bench-no-dependent-launch.json"

# Clean?
for tool in memcheck racecheck; do
  LORIKEET_CUDA_LIBRARY=$library timeout 60 compute-sanitizer --tool $tool ./step_test --library --quick --only llama 2>&1 | tail -4 | tee "$out/$tool.txt"
done
timeout 60 ncu --clock-control none --set full -k regex:linear -c 8 -o "$out/linear" ./device_bench $library >"$out/ncu.txt" 2>&1 || true
