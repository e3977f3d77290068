#include "library.h"

#include <dlfcn.h>

#include <cstdlib>

namespace lorikeet::cuda {
namespace {

constexpr char kFileName[] = "liblorikeet_cuda.so";

// The folder of this code's own file.
std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

const Api& open_library() {
  const char* named = std::getenv("LORIKEET_CUDA_LIBRARY");
  const std::string path = named != nullptr ? named : own_folder() + "/" + kFileName;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw EngineError(ErrorCode::kUnsupportedBackend,
                      std::string(dlerror()) + (named == nullptr ? " (`npm run build:cuda` builds it)" : ""));
  }
  const auto table = reinterpret_cast<const Api* (*)()>(dlsym(library, kApiSymbol));
  if (table == nullptr) {
    throw EngineError(ErrorCode::kUnsupportedBackend, "Expected " + std::string(kApiSymbol) + " in " + path);
  }
  if (table()->version != kApiVersion) {
    throw EngineError(ErrorCode::kUnsupportedBackend, "Expected version " + std::to_string(kApiVersion) +
                                                          " of " + path + " but it is " +
                                                          std::to_string(table()->version));
  }
  return *table();
}

}  // namespace

const Api& library() {
  static const Api& api = open_library();
  return api;
}

void check(int result, const Failure& failure) {
  if (result == 0) return;
  const bool is_memory = failure.kind == FailureKind::kMemory;
  throw EngineError(is_memory ? ErrorCode::kNoCapacity : ErrorCode::kEngineFailed, failure.message);
}

}  // namespace lorikeet::cuda
