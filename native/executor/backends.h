// The one table of backends: what --backend may name.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "executor.h"

namespace lorikeet {

struct Backend {
  const char* name;
  // Why it cannot run here; empty where it can.
  std::string (*missing)();
  std::unique_ptr<Executor> (*open)(const ExecutorOptions& options);
};

// The one that `auto` means comes first, where it can run here, and so on.
std::span<const Backend> backends();

// Throws unsupported_backend. "auto" is the first that can run here.
std::unique_ptr<Executor> open_executor(const std::string& backend, const ExecutorOptions& options);

}  // namespace lorikeet
