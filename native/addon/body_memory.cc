#include "body_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace lorikeet {
namespace {

// Bodies whose lengths differ by a header share blocks.
constexpr size_t kBlockBytes = size_t{1} << 21;
// Of what nobody uses. The kernel may take it whenever memory is short (MADV_FREE), so it counts as no one's.
constexpr size_t kKeptBytesMax = size_t{1} << 29;
constexpr double kSafeInteger = 9007199254740991;

struct Block {
  void* data;
  size_t bytes;
};

class BodyMemory {
 public:
  // Null where there is none. At most a quarter of a block is left over.
  Block* take(size_t bytes) {
    const size_t whole = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    {
      const std::lock_guard lock(mutex_);
      const auto fits = [&](const Block* block) {
        return block->bytes >= whole && block->bytes <= whole + whole / 4;
      };
      const auto found = std::find_if(kept_.rbegin(), kept_.rend(), fits);
      if (found != kept_.rend()) {
        Block* block = *found;
        kept_.erase(std::next(found).base());
        kept_bytes_ -= block->bytes;
        return block;
      }
    }
    void* data = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data == MAP_FAILED ? nullptr : new Block{data, whole};
  }

  // The oldest blocks go first where too much would be kept.
  void give_back(Block* block) {
    madvise(block->data, block->bytes, MADV_FREE);
    const std::lock_guard lock(mutex_);
    kept_.push_back(block);
    kept_bytes_ += block->bytes;
    while (kept_bytes_ > kKeptBytesMax) {
      Block* oldest = kept_.front();
      kept_.erase(kept_.begin());
      kept_bytes_ -= oldest->bytes;
      munmap(oldest->data, oldest->bytes);
      delete oldest;
    }
  }

 private:
  std::mutex mutex_;
  std::vector<Block*> kept_;  // in the order in which they came back
  size_t kept_bytes_ = 0;
};

// Of the process, as bodies outlive engines; never destroyed, as bodies outlive the environment too.
BodyMemory& memory() {
  static auto* shared = new BodyMemory;
  return *shared;
}

}  // namespace

Napi::Value allocate_body(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double bytes = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : 0;
  if (!(bytes >= 1 && bytes <= kSafeInteger)) throw Napi::RangeError::New(env, "Expected at least one byte");
  Block* block = memory().take(static_cast<size_t>(bytes));
  if (block == nullptr) throw Napi::RangeError::New(env, "No memory for a body of this length");
  const auto finalize = [](Napi::Env, void*, Block* done) { memory().give_back(done); };
  return Napi::ArrayBuffer::New(env, block->data, static_cast<size_t>(bytes), finalize, block);
}

}  // namespace lorikeet
