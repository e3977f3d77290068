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

  // Makes the next resume() begin with entry(), on a stack that may have been another's; to the thread
  // sanitizer it is a thread that has seen nothing. entry() must not return.
  void start(void (*entry)());
  // From the host's thread: runs until the fiber yields.
  void resume();
  // From within: back to whoever resumed it. The last one, if it is never resumed again.
  void yield(bool is_last);
  // First thing in entry().
  static void entered();

 private:
#if defined(SIMT_TSAN)  // a new one for each thread of each block, whose shadow is cleared
  static constexpr size_t kStackBytes = 16 << 10;
#else
  static constexpr size_t kStackBytes = 64 << 10;
#endif
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
