// Threads that give way only where they ask to, on stacks of their own, known to the sanitizers.
#pragma once

#include <cstddef>
#include <memory>

namespace simt {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next resume() begin with entry(), which must not return.
  void start(void (*entry)());
  // From the host's thread: runs until the fiber yields.
  void resume();
  // From within: back to whoever resumed it. The last one, if it is never resumed again.
  void yield(bool is_last);
  // First thing in entry().
  static void entered();

 private:
  static constexpr size_t kStackBytes = 64 << 10;
  std::unique_ptr<std::byte[]> stack_;
  void* stack_pointer_ = nullptr;
  void* sanitizer_ = nullptr;
};

// Calls of the thread sanitizer; nothing without it.
void release(void* variable);
void acquire(void* variable);
// What the host's thread does from here on, until the end, is nothing to it.
void begin_ignoring();
void end_ignoring();

}  // namespace simt
