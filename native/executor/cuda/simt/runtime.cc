#include "../device/runtime.h"

#include <condition_variable>
#include <cstdlib>
#include <mutex>

namespace lorikeet::cuda {
namespace {

// In the order of arrival, so that a thread that asks again at once keeps nobody else waiting.
class TurnMutex {
 public:
  void lock() {
    std::unique_lock lock(mutex_);
    const uint64_t mine = arrived_++;
    left_changed_.wait(lock, [&] { return left_ == mine; });
  }
  void unlock() {
    const std::lock_guard lock(mutex_);
    ++left_;
    left_changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable left_changed_;
  uint64_t arrived_ = 0, left_ = 0;
};

// The device does one thing at a time, whichever thread of the host waits for it.
TurnMutex device_mutex;
int64_t memory_taken = 0;

// The device's size and health are what a test says.
int64_t number_of(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoll(text);
}

// A device that failed stays so.
void fail_if_asked() {
  static int64_t work_done = 0;
  const int64_t works = number_of("LORIKEET_SIMT_FAILS_AFTER", -1);
  if (works < 0) return;
  if (work_done++ >= works)
    throw DeviceError(FailureKind::kDevice, "an illegal memory access was encountered");
}

}  // namespace

std::string missing_device() { return {}; }
std::string device_name() { return "simt"; }

int64_t free_memory() {
  const std::lock_guard lock(device_mutex);
  return number_of("LORIKEET_SIMT_MEMORY", int64_t{16} << 30) - memory_taken;
}

DeviceMemory::DeviceMemory(size_t bytes) : bytes_(bytes) {
  if (static_cast<int64_t>(bytes) > free_memory()) throw DeviceError(FailureKind::kMemory, "out of memory");
  // Of whole pages that cost nothing before they are written.
  data_.reset(static_cast<std::byte*>(std::calloc(bytes + 256, 1)));
  if (data_ == nullptr) throw DeviceError(FailureKind::kMemory, "out of memory");
  const std::lock_guard lock(device_mutex);
  memory_taken += static_cast<int64_t>(bytes_);
}
DeviceMemory::~DeviceMemory() {
  const std::lock_guard lock(device_mutex);
  memory_taken -= static_cast<int64_t>(bytes_);
}
void DeviceMemory::Free::operator()(std::byte* data) const { std::free(data); }

struct Stream::State {
  std::mutex mutex;
  std::deque<Work> work;
  std::vector<Work> captured;
  bool captures = false;
  size_t done = 0;
};

Stream::Stream() : state_(std::make_unique<State>()) {}
Stream::~Stream() = default;

void Stream::add(Work work) const {
  const std::lock_guard lock(state_->mutex);
  if (state_->captures) {
    state_->captured.push_back(std::move(work));
  } else {
    state_->work.push_back(std::move(work));
  }
}

void Stream::copy_in(void* to, const void* from, size_t bytes) const {
  add([=] {
    simt::synchronize();  // a copy comes after the grids before it
    std::memcpy(to, from, bytes);
  });
}

size_t Stream::added() const {
  const std::lock_guard lock(state_->mutex);
  return state_->done + state_->work.size();
}

void Stream::finish(size_t count) const {
  const std::lock_guard lock(device_mutex);
  std::vector<Work> done;  // arguments live until the host has seen what became of them
  for (;;) {
    {
      const std::lock_guard queue(state_->mutex);
      if (state_->done >= count || state_->work.empty()) break;
      done.push_back(std::move(state_->work.front()));
      state_->work.pop_front();
      ++state_->done;
    }
    fail_if_asked();
    done.back()();
  }
  simt::synchronize();
}
void Stream::synchronize() const { finish(added()); }

void Stream::begin_capture() const {
  const std::lock_guard lock(state_->mutex);
  state_->captures = true;
}
std::vector<Stream::Work> Stream::end_capture() const {
  const std::lock_guard lock(state_->mutex);
  state_->captures = false;
  return std::exchange(state_->captured, {});
}

}  // namespace lorikeet::cuda
