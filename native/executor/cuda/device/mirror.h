// Arrays that the host writes and the device reads, laid out alike in pinned and in device memory, so that
// one copy brings them over.
#pragma once

#include "memory.h"
#include "runtime.h"

namespace lorikeet::cuda {

class Mirror {
 public:
  explicit Mirror(int64_t bytes) : host_(static_cast<size_t>(bytes)), device_(static_cast<size_t>(bytes)) {}

  template <typename T>
  void take(T*& host, T*& device, int64_t count) {
    const int64_t at = region_.take(count * static_cast<int64_t>(sizeof(T)));
    host = reinterpret_cast<T*>(host_.data() + at);
    device = reinterpret_cast<T*>(device_.data() + at);
  }
  // Up to `end`, a place in the host's arrays.
  void copy_in(const Stream& stream, const void* end) const {
    const auto bytes = static_cast<const std::byte*>(end) - host_.data();
    stream.copy_in(device_.data(), host_.data(), static_cast<size_t>(bytes));
  }

 private:
  PinnedMemory host_;
  DeviceMemory device_;
  Region region_;
};

}  // namespace lorikeet::cuda
