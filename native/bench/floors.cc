// What this machine can do at most, with N threads: read memory, and multiply in float32, in bf16 dot
// products and in AMX tiles. Prints one JSON object; what the processor lacks is null. `floors [THREADS]
// [--pin]`

#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace {

constexpr size_t kBufferBytes = size_t{2} << 30;
constexpr size_t kPageBytes = 4096;
constexpr int kReadPasses = 8;
constexpr int kPeakPasses = 8;
constexpr int kPeakRounds = 8'000'000;
constexpr int kTileRounds = 2'000'000;
constexpr uint16_t kBf16Factor = 0x3b80;  // 2^-8

/** Threads that start each pass together; a pass is as long as its slowest thread. */
class Team {
 public:
  Team(int threads, bool pin) : threads_(threads), pin_(pin) {}

  int size() const { return threads_; }

  /** Seconds of the fastest of some passes. */
  double best(int passes, const std::function<void(int thread)>& work) const {
    std::barrier gate(threads_);
    double best = 1e30;
    auto run = [&](int thread) {
      if (pin_) pin_to(thread);
      for (int pass = 0; pass < passes; pass++) {
        gate.arrive_and_wait();
        const auto begin = std::chrono::steady_clock::now();
        work(thread);
        gate.arrive_and_wait();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        if (thread == 0) best = std::min(best, took.count());
      }
    };
    std::vector<std::jthread> others;
    for (int thread = 0; thread < threads_; thread++) others.emplace_back(run, thread);
    others.clear();
    return best;
  }

 private:
  static void pin_to([[maybe_unused]] int thread) {
#ifdef __linux__
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(thread, &cpus);
    pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
#endif
  }

  int threads_;
  bool pin_;
};

/** Keeps results alive without a memory access in the loops. */
volatile uint64_t sink;

using ReadFn = uint64_t (*)(const char* from, size_t bytes);
/** Runs `rounds` rounds of independent multiply-adds, and returns how many operations a round has. */
using PeakFn = double (*)(int rounds);

uint64_t read_portable(const char* from, size_t bytes) {
  uint64_t sums[16] = {};
  for (size_t at = 0; at < bytes; at += sizeof sums) {
    uint64_t words[16];
    std::memcpy(words, from + at, sizeof words);
    for (int i = 0; i < 16; i++) sums[i] ^= words[i];
  }
  for (int i = 1; i < 16; i++) sums[0] ^= sums[i];
  return sums[0];
}

double peak_portable(int rounds) {
  constexpr int kLanes = 64;
  float sums[kLanes] = {};
  const float factor = 0.999f + 1e-9f * static_cast<float>(rounds);
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < kLanes; i++) sums[i] = sums[i] * factor + factor;
  }
  float total = 0;
  for (float sum : sums) total += sum;
  sink = static_cast<uint64_t>(total);
  return 2.0 * kLanes;
}

#ifdef __x86_64__

// Without it, the compiler sees that all sums are equal and computes one.
#define KEEP_APART(sum) asm volatile("" : "+v"(sum))

template <int kAheadBytes>
__attribute__((target("avx2"))) uint64_t read_avx2(const char* from, size_t bytes) {
  __m256i sums[4] = {};
  for (size_t at = 0; at < bytes; at += 256) {
    const auto* line = reinterpret_cast<const __m256i*>(from + at);
    if constexpr (kAheadBytes > 0) {
      for (int i = 0; i < 4; i++) _mm_prefetch(from + at + kAheadBytes + 64 * i, _MM_HINT_T0);
    }
    for (int i = 0; i < 4; i++) {
      sums[i] = _mm256_xor_si256(sums[i], _mm256_load_si256(line + i));
      sums[i] = _mm256_xor_si256(sums[i], _mm256_load_si256(line + 4 + i));
    }
  }
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]),
                                                                         _mm256_xor_si256(sums[2], sums[3])));
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}

template <int kAheadBytes>
__attribute__((target("avx512f"))) uint64_t read_avx512(const char* from, size_t bytes) {
  __m512i sums[4] = {};
  for (size_t at = 0; at < bytes; at += 256) {
    for (int i = 0; i < 4; i++) {
      if constexpr (kAheadBytes > 0) _mm_prefetch(from + at + kAheadBytes + 64 * i, _MM_HINT_T0);
      sums[i] = _mm512_xor_si512(sums[i], _mm512_load_si512(from + at + 64 * i));
    }
  }
  alignas(64) uint64_t words[8];
  _mm512_store_si512(
      words, _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3])));
  return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}

__attribute__((target("avx2,fma"))) double peak_avx2(int rounds) {
  constexpr int kSums = 12;
  __m256 sums[kSums] = {};
  const __m256 factor = _mm256_set1_ps(1e-3f);
  for (int round = 0; round < rounds; round++) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; i++) {
      sums[i] = _mm256_fmadd_ps(factor, factor, sums[i]);
      KEEP_APART(sums[i]);
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < kSums; i++) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  sink = static_cast<uint64_t>(_mm256_cvtss_f32(sums[0]));
  return 2.0 * 8 * kSums;
}

__attribute__((target("avx512f"))) double peak_avx512(int rounds) {
  constexpr int kSums = 24;
  __m512 sums[kSums] = {};
  const __m512 factor = _mm512_set1_ps(1e-3f);
  for (int round = 0; round < rounds; round++) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; i++) {
      sums[i] = _mm512_fmadd_ps(factor, factor, sums[i]);
      KEEP_APART(sums[i]);
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < kSums; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  sink = static_cast<uint64_t>(_mm512_cvtss_f32(sums[0]));
  return 2.0 * 16 * kSums;
}

__attribute__((target("avx512f,avx512bw,avx512bf16"))) double peak_dot(int rounds) {
  constexpr int kSums = 24;
  __m512 sums[kSums] = {};
  const __m512bh factor = (__m512bh)_mm512_set1_epi16(kBf16Factor);
  for (int round = 0; round < rounds; round++) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; i++) {
      sums[i] = _mm512_dpbf16_ps(sums[i], factor, factor);
      KEEP_APART(sums[i]);
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < kSums; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  sink = static_cast<uint64_t>(_mm512_cvtss_f32(sums[0]));
  return 2.0 * 32 * kSums;
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

__attribute__((target("amx-tile,amx-bf16"))) double peak_amx(int rounds) {
  const TileConfig config;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  alignas(64) uint16_t factors[16 * 32];
  std::fill(std::begin(factors), std::end(factors), kBf16Factor);
  _tile_loadd(4, factors, 64);
  _tile_loadd(5, factors, 64);
  _tile_loadd(6, factors, 64);
  _tile_loadd(7, factors, 64);
  for (int round = 0; round < rounds; round++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4 * 2.0 * 16 * 16 * 32;
}

bool has_dot() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__builtin_cpu_supports("avx512bw") || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return false;
  return (a >> 5 & 1) != 0;
}

bool has_amx() {
#ifdef __linux__
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d >> 22 & 1) == 0 || (d >> 24 & 1) == 0) return false;
  constexpr int kRequestPermission = 0x1023;
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

#undef KEEP_APART
#endif  // __x86_64__

std::vector<ReadFn> reads() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f")) return {read_avx512<0>, read_avx512<4096>, read_avx2<0>};
  if (__builtin_cpu_supports("avx2")) return {read_avx2<0>, read_avx2<1024>, read_avx2<4096>};
#endif
  return {read_portable};
}

std::vector<PeakFn> fmas() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f")) return {peak_avx512, peak_avx2};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {peak_avx2};
#endif
  return {peak_portable};
}

/** GB/s of each thread reading its own part of a buffer that no cache holds. */
double read_gbps(const Team& team) {
  void* mapped = mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return 0;
#ifdef MADV_HUGEPAGE
  madvise(mapped, kBufferBytes, MADV_HUGEPAGE);
#endif
  char* buffer = static_cast<char*>(mapped);
  const size_t part = kBufferBytes / static_cast<size_t>(team.size()) / kPageBytes * kPageBytes;
  // Each thread writes its part first, so that it lies in the memory of the thread's node.
  team.best(1, [&](int thread) { std::memset(buffer + part * static_cast<size_t>(thread), 1, part); });
  double best = 1e30;
  for (const ReadFn read : reads()) {
    best = std::min(best, team.best(kReadPasses, [&](int thread) {
      sink = read(buffer + part * static_cast<size_t>(thread), part);
    }));
  }
  munmap(mapped, kBufferBytes);
  return static_cast<double>(part) * team.size() / best / 1e9;
}

double gflops(const Team& team, PeakFn peak, int rounds) {
  const double seconds = team.best(kPeakPasses, [&](int) { peak(rounds); });
  return peak(1) * rounds * team.size() / seconds / 1e9;
}

std::string number_or_null(double value) {
  if (value <= 0) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  bool pin = false;
  for (int i = 1; i < argc; i++) {
    if (std::strcmp(argv[i], "--pin") == 0)
      pin = true;
    else
      threads = std::atoi(argv[i]);
  }
  if (threads < 1 || threads > 1024) {
    std::fprintf(stderr, "Expected between 1 and 1024 threads but received %d\n", threads);
    return 2;
  }
  const Team team(threads, pin);
  const double read = read_gbps(team);
  double fma = 0;
  for (const PeakFn peak : fmas()) fma = std::max(fma, gflops(team, peak, kPeakRounds));
  double dot = 0;
  double amx = 0;
#ifdef __x86_64__
  if (has_dot()) dot = gflops(team, peak_dot, kPeakRounds);
  if (has_amx()) amx = gflops(team, peak_amx, kTileRounds);
#endif
  std::printf(
      "{\"readGBps\": %s, \"fmaGflops\": %s, \"dotGflops\": %s, \"amxGflops\": %s, \"threads\": %d}\n",
      number_or_null(read).c_str(), number_or_null(fma).c_str(), number_or_null(dot).c_str(),
      number_or_null(amx).c_str(), threads);
  return 0;
}
