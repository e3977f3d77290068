#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <vector>

#include "fiber.h"
#include "simt.h"

namespace simt {
namespace {

constexpr char kBarrier[] = "__syncthreads";
#if defined(SIMT_TSAN)
constexpr size_t kThreads = 4096;  // of which there are; the sanitizer has room for 8,128
#else
constexpr size_t kThreads = 1024;  // of a block, at most
#endif
constexpr uint32_t kAllLanes = 0xffffffffu;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Thread {
  uint3 index{};
  bool done = false;
  const char* waits_for = nullptr;  // null: can run
  uint64_t warp_calls = 0;
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
  Fiber fiber;
};

struct Warp {
  struct Call {
    uint32_t arrived = 0, mask = 0;
    const char* what = nullptr;
    alignas(kLaneBytes) std::byte values[32][kLaneBytes];
    float product[16][8];
    bool is_computed = false;
  } calls[2];  // in turn: a lane may be one ahead
  char* order = nullptr;
};

// The one device, which runs one grid at a time.
struct Machine {
  // In turn, so that to the thread sanitizer a thread is none of the blocks before; one of a block long
  // before knows what that one saw.
  std::array<std::unique_ptr<Thread>, kThreads> pool;
  size_t next_thread = 0;
  std::vector<Thread*> threads;  // of the block
  std::vector<Warp> warps;
  std::unique_ptr<std::byte[]> shared;
  const std::function<void()>* body = nullptr;
  bool overlaps = false;
  int current = 0;  // thread of the block
  int alive = 0, at_barrier = 0;
  uint64_t order_seed = 0;

  // What orders threads to the thread sanitizer: variables that they release and acquire. Each grid's end,
  // each block's barrier and each of its warps has one of its own.
  std::vector<char> grid_ends = std::vector<char>(1 << 20), variables = std::vector<char>(1 << 22);
  size_t grid = 1, seen = 1, next_variable = 0;
  char* barrier = nullptr;
  char host = 0, counters = 0;

  Thread& thread() { return *threads[static_cast<size_t>(current)]; }
  char* end_of(size_t of_grid) { return &grid_ends[of_grid % grid_ends.size()]; }
  char* fresh() { return &variables[(next_variable += 8) % variables.size()]; }
};
Machine machine;

void enter() {
  Fiber::entered();
  acquire(&machine.host);
  if (!machine.overlaps) acquire(machine.end_of(machine.grid - 1));
  (*machine.body)();
  release(machine.end_of(machine.grid));
  machine.thread().done = true;
  --machine.alive;
  machine.thread().fiber.yield(true);
}

void give_way() {
  Thread& me = machine.thread();
  me.fiber.yield(false);
}

void open_barrier() {
  for (Thread* thread : machine.threads) {
    if (thread->waits_for == kBarrier) thread->waits_for = nullptr;
  }
  machine.at_barrier = 0;
}

[[noreturn]] void fail_deadlocked() {
  for (size_t id = 0; id < machine.threads.size() && id < 40; ++id) {
    const Thread& thread = *machine.threads[id];
    if (!thread.done) std::fprintf(stderr, "  thread %zu waits for %s\n", id, thread.waits_for);
  }
  fail("%d of %zu threads wait for threads that never come", machine.alive, machine.threads.size());
}

void shuffle(std::vector<int>& order) {
  uint64_t& seed = machine.order_seed;
  for (size_t i = order.size(); seed != 0 && i > 1; --i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[i - 1], order[(seed >> 33) % i]);
  }
}

void run_threads() {
  std::vector<int> order(machine.threads.size());
  std::iota(order.begin(), order.end(), 0);
  machine.alive = static_cast<int>(order.size());
  machine.at_barrier = 0;
  while (machine.alive > 0) {
    shuffle(order);
    bool ran = false;
    for (const int id : order) {
      Thread& thread = *machine.threads[static_cast<size_t>(id)];
      if (thread.done || thread.waits_for != nullptr) continue;
      ran = true;
      machine.current = id;
      threadIdx = thread.index;
      thread.fiber.resume();
    }
    if (machine.at_barrier > 0 && machine.at_barrier == machine.alive) {
      open_barrier();
      ran = true;
    }
    if (!ran && machine.alive > 0) fail_deadlocked();
  }
}

void run_block(dim3 block, size_t shared_bytes) {
  const size_t threads = machine.threads.size();
  machine.shared = std::make_unique<std::byte[]>(shared_bytes);
  std::memset(machine.shared.get(), 0xff, shared_bytes);
  machine.warps.assign((threads + 31) / 32, {});
  for (Warp& warp : machine.warps) warp.order = machine.fresh();
  machine.barrier = machine.fresh();
  for (size_t id = 0; id < threads; ++id) {
    std::unique_ptr<Thread>& pooled = machine.pool[machine.next_thread++ % kThreads];
    if (pooled == nullptr) pooled = std::make_unique<Thread>();
    Thread& thread = *(machine.threads[id] = pooled.get());
    const auto i = static_cast<unsigned>(id);
    thread.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    thread.done = false;
    thread.waits_for = nullptr;
    thread.warp_calls = 0;
    thread.fiber.start(enter);
  }
  release(&machine.host);
  run_threads();
  for (const Thread* thread : machine.threads) {
    if (!thread->open.empty() || !thread->groups.empty()) fail("a thread ends with copies under way");
  }
}

// The call that the lane's next one is part of; returns when all lanes of the mask have come.
Warp::Call& meet(uint32_t mask, const void* mine, size_t bytes, const char* what) {
  Thread& me = machine.thread();
  const int lane = machine.current % 32;
  if ((mask >> lane & 1) == 0) fail("%s: lane %d is not in its own mask", what, lane);
  if (bytes > kLaneBytes) fail("%s: values of %zu bytes", what, bytes);
  Warp& warp = machine.warps[static_cast<size_t>(machine.current / 32)];
  Warp::Call& call = warp.calls[me.warp_calls++ % 2];
  if (call.arrived == call.mask) {
    call.arrived = 0;
    call.mask = mask;
    call.what = what;
    call.is_computed = false;
  }
  if (call.mask != mask || std::strcmp(call.what, what) != 0) {
    fail("lanes of a warp part: %s with mask %08x meets %s with mask %08x", what, mask, call.what, call.mask);
  }
  // Not memcpy, which the sanitizers see.
  for (size_t i = 0; i < bytes; ++i) call.values[lane][i] = static_cast<const std::byte*>(mine)[i];
  release(warp.order);
  call.arrived |= 1u << lane;
  if (call.arrived != mask) {
    me.waits_for = what;
    give_way();
  } else {
    const int first = machine.current / 32 * 32;
    for (int i = 0; i < 32; ++i) {
      if ((mask >> i & 1) != 0 && i != lane)
        machine.threads[static_cast<size_t>(first + i)]->waits_for = nullptr;
    }
  }
  acquire(warp.order);
  return call;
}

struct Fragments {
  uint32_t a[4], b[2];
  float c[4];
};

// Where a lane's fragments lie (PTX manual, mma.m16n8k16). In double, rounded once.
void multiply(Warp::Call& call) {
  const auto value = [](uint32_t pair, int which) {
    return __uint_as_float(which != 0 ? pair & 0xffff0000u : pair << 16);
  };
  float a[16][16], b[16][8], c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    Fragments f;
    std::memcpy(&f, call.values[lane], sizeof f);
    const int group = lane / 4, quad = lane % 4;
    for (int i = 0; i < 8; ++i)
      a[group + (i / 2 % 2) * 8][quad * 2 + i % 2 + (i / 4) * 8] = value(f.a[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) b[quad * 2 + i % 2 + (i / 2) * 8][group] = value(f.b[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) c[group + (i / 2) * 8][quad * 2 + i % 2] = f.c[i];
  }
  for (int i = 0; i < 16; ++i) {
    double sums[8];
    for (int j = 0; j < 8; ++j) sums[j] = c[i][j];
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) sums[j] += static_cast<double>(a[i][k]) * b[k][j];
    }
    for (int j = 0; j < 8; ++j) call.product[i][j] = static_cast<float>(sums[j]);
  }
  call.is_computed = true;
}

}  // namespace

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "simt: block (%u, %u, %u), thread (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z,
               threadIdx.x, threadIdx.y, threadIdx.z);
  std::vfprintf(stderr, format, arguments);
  std::fprintf(stderr, "\n");
  std::abort();
}

void seed(uint64_t value) { machine.order_seed = value; }
std::byte* shared_memory() { return machine.shared.get(); }

void grid_wait() { acquire(machine.end_of(machine.grid - 1)); }
void synchronize() {
  while (machine.seen <= machine.grid) acquire(machine.end_of(machine.seen++));
}
uint32_t arrive(uint32_t* counter) {
  release(&machine.counters);
  const uint32_t before = (*counter)++;
  acquire(&machine.counters);
  return before;
}

void run(dim3 grid, dim3 block, size_t shared_bytes, bool overlaps, const std::function<void()>& thread) {
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (threads < 1 || threads > 1024) fail("a block of %zu threads", threads);
  if (shared_bytes > 227 << 10) fail("%zu bytes of shared memory", shared_bytes);
  if (grid.y > 65535 || grid.z > 65535 || grid.x * grid.y * grid.z == 0) {
    fail("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
  }
  ++machine.grid;
  machine.overlaps = overlaps;
  machine.body = &thread;
  release(&machine.host);
  begin_ignoring();
  machine.threads.resize(threads);
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(block, shared_bytes);
      }
    }
  }
  end_ignoring();
}

void block_barrier() {
  release(machine.barrier);
  machine.thread().waits_for = kBarrier;
  ++machine.at_barrier;
  if (machine.at_barrier == machine.alive) {
    open_barrier();
  } else {
    give_way();
  }
  acquire(machine.barrier);
}

const std::byte* exchange(uint32_t mask, const void* mine, size_t bytes, const char* what) {
  return meet(mask, mine, bytes, what).values[0];
}

void mma_m16n8k16(float (&d)[4], std::array<uint32_t, 4> a, std::array<uint32_t, 2> b) {
  Fragments mine;
  std::copy(a.begin(), a.end(), mine.a);
  std::copy(b.begin(), b.end(), mine.b);
  std::copy(d, d + 4, mine.c);
  Warp::Call& call = meet(kAllLanes, &mine, sizeof mine, "mma.m16n8k16");
  if (!call.is_computed) multiply(call);
  const int lane = machine.current % 32;
  for (int i = 0; i < 4; ++i) d[i] = call.product[lane / 4 + (i / 2) * 8][lane % 4 * 2 + i % 2];
}

void copy_async(void* to, const void* from, size_t bytes) {
  check_aligned(to, bytes);
  check_aligned(from, bytes);
  machine.thread().open.push_back({to, from, bytes});
}
void copy_async_commit() {
  Thread& me = machine.thread();
  me.groups.push_back(std::move(me.open));
  me.open.clear();
}
void copy_async_wait(int pending) {
  std::vector<std::vector<Copy>>& groups = machine.thread().groups;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    groups.erase(groups.begin());
  }
}

}  // namespace simt
