// Memory from mmap: a file read-only, or anonymous memory, zero, that costs nothing until it is written.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace lorikeet {

class MappedMemory {
 public:
  MappedMemory() = default;
  static MappedMemory file(const std::string& path);
  static MappedMemory anonymous(size_t bytes);

  MappedMemory(MappedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  MappedMemory& operator=(MappedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedMemory();

  // Of a file: its pages need not count as this process's memory until they are read again.
  void let_go() const;

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace lorikeet
