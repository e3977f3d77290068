// The one exception type of the engine. `code` is stable (native/types.ts lists them); the message is for
// people.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <utility>

namespace lorikeet {

// Owns its message: std::runtime_error shares it between copies, and copies cross threads.
class EngineError : public std::exception {
 public:
  EngineError(std::string code, std::string message) : code_(std::move(code)), message_(std::move(message)) {}

  static EngineError invalid(std::string field, const std::string& message) {
    EngineError error("invalid_argument", message);
    error.field = std::move(field);
    return error;
  }

  const std::string& code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

  std::string field;          // of invalid_argument
  std::optional<int> module;  // of non_finite: index into the staged modules
  char factor = 0;            // of non_finite: 'a' or 'b'

 private:
  std::string code_, message_;
};

}  // namespace lorikeet
