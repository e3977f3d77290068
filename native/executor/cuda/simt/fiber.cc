#include "fiber.h"

#if defined(SIMT_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned flags);
void __tsan_acquire(void*);
void __tsan_release(void*);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#define TSAN(...) __VA_ARGS__
#else
#define TSAN(...)
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define ASAN(...) __VA_ARGS__
#else
#define ASAN(...)
#endif

// Saves the callee-saved registers on the stack that is left and takes up the other one.
extern "C" void simt_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch,@function
simt_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size simt_switch,.-simt_switch
)");
constexpr int kSavedRegisters = 6;
#else
#error "simt_switch for this processor"
#endif

namespace simt {
namespace {

// Where the host's thread goes on.
void* host_stack = nullptr;
constexpr unsigned kNoSync = 1;
TSAN(void* host_sanitizer = nullptr;)
ASAN(const void* host_bottom = nullptr; size_t host_bytes = 0;)

}  // namespace

Fiber::~Fiber() { TSAN(if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);) }

void Fiber::start(void (*entry)()) {
  if (stack_ == nullptr) stack_ = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
  auto* top = reinterpret_cast<void**>(stack_.get() + kStackBytes);
  *--top = nullptr;  // the stack is as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  stack_pointer_ = top;
  TSAN(if (sanitizer_ == nullptr) sanitizer_ = __tsan_create_fiber(0);)
}

void Fiber::resume() {
  ASAN(void* fake = nullptr; __sanitizer_start_switch_fiber(&fake, stack_.get(), kStackBytes);)
  TSAN(host_sanitizer = __tsan_get_current_fiber(); __tsan_switch_to_fiber(sanitizer_, kNoSync);)
  simt_switch(&host_stack, stack_pointer_);
  ASAN(__sanitizer_finish_switch_fiber(fake, nullptr, nullptr);)
}

void Fiber::yield([[maybe_unused]] bool is_last) {
  ASAN(__sanitizer_start_switch_fiber(is_last ? nullptr : &sanitizer_, host_bottom, host_bytes);)
  TSAN(__tsan_switch_to_fiber(host_sanitizer, kNoSync);)
  simt_switch(&stack_pointer_, host_stack);
  ASAN(__sanitizer_finish_switch_fiber(sanitizer_, &host_bottom, &host_bytes);)
}

void Fiber::entered() { ASAN(__sanitizer_finish_switch_fiber(nullptr, &host_bottom, &host_bytes);) }

void release([[maybe_unused]] void* variable) { TSAN(__tsan_release(variable);) }
void acquire([[maybe_unused]] void* variable) { TSAN(__tsan_acquire(variable);) }
void begin_ignoring() { TSAN(AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0);) }
void end_ignoring() { TSAN(AnnotateIgnoreReadsEnd("", 0); AnnotateIgnoreWritesEnd("", 0);) }

}  // namespace simt
