// Writes that go to the device in as few copies as their places allow: those side by side share one.
#pragma once

#include <functional>

#include "api.h"
#include "library.h"

namespace lorikeet::cuda {

class PinnedWriter {
 public:
  using Copy = std::function<int(int64_t offset, int64_t bytes, Failure*)>;
  PinnedWriter(const Api& api, void* device, Copy copy)
      : api_(api), device_(device), copy_(std::move(copy)) {}

  // Memory that goes to [offset, offset + bytes); what is not written there is whatever was. Hold it until
  // the next call. `bytes` may come back smaller.
  std::byte* at(int64_t offset, int64_t& bytes) {
    const int64_t gap = offset - end();
    if (memory_ == nullptr || gap < 0 || gap >= kGapMax || end() + gap + bytes > begin_ + room_) {
      flush();
      begin_ = offset;
      room_ = kWanted;
      Failure failure{};
      void* memory = nullptr;
      check(api_.reserve(device_, &room_, &memory, &failure), failure);
      memory_ = static_cast<std::byte*>(memory);
      bytes = std::min(bytes, room_);
    }
    used_ = offset - begin_ + bytes;
    return memory_ + offset - begin_;
  }

  void flush() {
    if (memory_ == nullptr) return;
    memory_ = nullptr;
    Failure failure{};
    check(copy_(begin_, std::exchange(used_, 0), &failure), failure);
  }

 private:
  static constexpr int64_t kWanted = INT64_MAX;
  static constexpr int64_t kGapMax = 256;  // what alignment leaves between two arrays

  int64_t end() const { return begin_ + used_; }

  const Api& api_;
  void* const device_;
  const Copy copy_;
  std::byte* memory_ = nullptr;
  int64_t begin_ = 0, used_ = 0, room_ = 0;
};

}  // namespace lorikeet::cuda
