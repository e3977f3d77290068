#include "backends.h"

#include <array>

#include "cpu/cpu_executor.h"
#include "cuda/cuda_executor.h"
#include "error.h"

namespace lorikeet {
namespace {

constexpr std::array kBackends = {
    Backend{"cuda", cuda::missing, cuda::open},
    Backend{"cpu", cpu::missing, cpu::open},
    Backend{"reference", [] { return std::string(); }, cpu::open_reference},
};

}  // namespace

std::span<const Backend> backends() { return kBackends; }

std::unique_ptr<Executor> open_executor(const std::string& backend, const ExecutorOptions& options) {
  std::string names = "auto";
  for (const Backend& candidate : kBackends) {
    names += std::string(", ") + candidate.name;
    if (backend != candidate.name && backend != "auto") continue;
    const std::string missing = candidate.missing();
    if (missing.empty()) return candidate.open(options);
    if (backend != "auto") {
      throw EngineError(ErrorCode::kUnsupportedBackend,
                        "The backend " + backend + " cannot run here: " + missing);
    }
  }
  throw EngineError(ErrorCode::kUnsupportedBackend,
                    "Expected one of " + names + " for backend but received " + backend.substr(0, 64));
}

}  // namespace lorikeet
