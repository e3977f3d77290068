// device/runtime.h for the emulated device. What streams are asked for waits until the host waits for it: a
// copy whose source was changed too early, or a result that was read too early, is a wrong result. Graphs
// keep arguments by value: a stale capture is one too.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet::cuda {

std::string missing_device();
std::string device_name();
int64_t free_memory();
constexpr bool has_dependent_launch() { return true; }

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  size_t bytes_;
  std::unique_ptr<std::byte, Free> data_;
};

class PinnedMemory {
 public:
  explicit PinnedMemory(size_t bytes) : data_(std::make_unique<std::byte[]>(bytes)) {}
  std::byte* data() const { return data_.get(); }

 private:
  std::unique_ptr<std::byte[]> data_;
};

class Stream {
 public:
  using Work = std::function<void()>;
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void copy_in(void* device, const void* pinned, size_t bytes) const;
  void copy_out(void* pinned, const void* device, size_t bytes) const { copy_in(pinned, device, bytes); }
  void copy_within(void* to, const void* from, size_t bytes) const { copy_in(to, from, bytes); }
  void synchronize() const;

  void add(Work work) const;
  // Does what was asked for before the `count`-th piece of work since the stream began.
  void finish(size_t count) const;
  size_t added() const;
  // What is added until the end of a capture goes there.
  void begin_capture() const;
  std::vector<Work> end_capture() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

class Event {
 public:
  void record(const Stream& stream) {
    stream_ = &stream;
    until_ = stream.added();
  }
  void wait() const {
    if (stream_ != nullptr) stream_->finish(until_);
  }

 private:
  const Stream* stream_ = nullptr;
  size_t until_ = 0;
};

class Graph {
 public:
  template <typename Launches>
  Graph(const Stream& stream, Launches&& launches) {
    stream.begin_capture();
    launches();
    work_ = stream.end_capture();
  }
  void launch(const Stream& stream) const {
    for (const Stream::Work& work : work_) stream.add(work);
  }

 private:
  std::vector<Stream::Work> work_;
};

struct Launch {
  dim3 grid, block;
  size_t shared;
  const Stream& stream;
  bool overlaps;
};
template <typename Arguments>
void launch(const Launch& l, void (*kernel)(Arguments), const Arguments& arguments) {
  std::function<void()> thread = [kernel, arguments] { kernel(arguments); };
  l.stream.add([grid = l.grid, block = l.block, shared = l.shared, overlaps = l.overlaps,
                thread = std::move(thread)] { simt::run(grid, block, shared, overlaps, thread); });
}
template <typename Arguments>
void allow_shared(void (*)(Arguments), size_t) {}

}  // namespace lorikeet::cuda
