// The one exception type of the engine. The message is for people, the code for programs.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>

namespace lorikeet {

// ENGINE_ERRORS of native/types.ts lists the same names; a test compares them.
enum class ErrorCode : uint8_t {
  kInvalidArgument,
  kUnsupportedBackend,
  kNoCapacity,
  kNonFinite,
  kRevisionNotFound,
  kAdapterNotFound,
  kNotResident,
  kQueueFull,
  kEngineFailed,
  kClosing,
};
constexpr std::array kErrorNames = {
    "invalid_argument",  "unsupported_backend", "no_capacity", "non_finite",    "revision_not_found",
    "adapter_not_found", "not_resident",        "queue_full",  "engine_failed", "closing",
};
static_assert(kErrorNames.size() == static_cast<size_t>(ErrorCode::kClosing) + 1);

constexpr const char* name_of(ErrorCode code) { return kErrorNames[static_cast<size_t>(code)]; }

// Owns its message: std::runtime_error shares it between copies, and copies cross threads.
class EngineError : public std::exception {
 public:
  EngineError(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static EngineError invalid(std::string field, const std::string& message) {
    EngineError error(ErrorCode::kInvalidArgument, message);
    error.field = std::move(field);
    return error;
  }

  ErrorCode code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

  std::string field;          // of invalid_argument
  std::optional<int> module;  // of non_finite: index into the staged modules
  char factor = 0;            // of non_finite: 'a' or 'b'

 private:
  ErrorCode code_;
  std::string message_;
};

}  // namespace lorikeet
