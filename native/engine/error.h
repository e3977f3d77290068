// The one exception type of the engine. `code` is stable (native/types.ts lists them); the message is for
// people.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace lorikeet {

class EngineError : public std::runtime_error {
 public:
  EngineError(std::string code, const std::string& message)
      : std::runtime_error(message), code_(std::move(code)) {}

  static EngineError invalid(std::string field, const std::string& message) {
    EngineError error("invalid_argument", message);
    error.field = std::move(field);
    return error;
  }

  const std::string& code() const { return code_; }

  std::string field;          // of invalid_argument
  std::optional<int> module;  // of non_finite: index into the staged modules
  char factor = 0;            // of non_finite: 'a' or 'b'

 private:
  std::string code_;
};

}  // namespace lorikeet
