// Copies to the device that go through a ring of pinned memory, on a stream of their own, beside steps.
#pragma once

#include <algorithm>
#include <array>

#include "runtime.h"

namespace lorikeet::cuda {

class Uploads {
 public:
  const Stream& stream() const { return stream_; }

  // Memory for the next copy; waits for an earlier one from there. At most kChunkBytes.
  std::byte* reserve(int64_t& bytes) {
    bytes = std::min(bytes, kChunkBytes);
    landed_[next_].wait();
    return chunk();
  }
  // Begins to copy what was reserved last.
  void copy(std::byte* to, int64_t bytes) {
    stream_.copy_in(to, chunk(), static_cast<size_t>(bytes));
    landed_[next_].record(stream_);
    next_ = (next_ + 1) % kChunks;
  }
  void finish() {
    Event all;
    all.record(stream_);
    all.wait();
  }

 private:
  static constexpr int64_t kChunkBytes = 16 << 20;
  static constexpr size_t kChunks = 2;

  std::byte* chunk() const { return memory_.data() + static_cast<int64_t>(next_) * kChunkBytes; }

  Stream stream_;
  PinnedMemory memory_{static_cast<size_t>(kChunkBytes) * kChunks};
  std::array<Event, kChunks> landed_;
  size_t next_ = 0;
};

}  // namespace lorikeet::cuda
