// The table of functions that liblorikeet_cuda.so exports, and what passes through it: plain data, so that
// the addon and the library may be built by different compilers. The same sources built by g++ against an
// emulated device export the same table (liblorikeet_simt.so).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lorikeet::cuda {

constexpr uint32_t kApiVersion = 2;
constexpr char kApiSymbol[] = "lorikeet_cuda_api";

// Alternatives whose log-probabilities a device reports.
constexpr int32_t kTopMax = 20;
// Rows of logits that there is room for at a time.
constexpr int32_t kLogitRows = 64;

struct ModelShape {
  int32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
  float rms_eps;
  int32_t has_bias, has_qk_norm;  // of q, k and v; of q and k per head
  int32_t has_tied_head;
};

enum class FailureKind : int32_t { kNone, kDevice, kMemory };
struct Failure {
  FailureKind kind;
  char message[500];
};

struct OpenRequest {
  ModelShape model;
  int32_t slots, pages_max;         // pages of an adapted projection
  int32_t rows_max, sequences_max;  // of a step
  int64_t kv_bytes;
  const float *cos, *sin;  // [context, head_dim / 2]
};
struct Opened {
  void* device;
  char name[100];
  int64_t kv_blocks;
  int64_t weight_bytes, kv_bytes, page_bytes, activation_bytes, graph_bytes;
};

// Matrices are bf16, [outs, columns padded with zeros to a multiple of 32]; vectors float32. Parts that are
// products of the same x are one matrix, one under the other.
enum class WeightKind : int32_t {
  kEmbed,
  kHead,
  kNorm,
  kQkv,
  kO,
  kGateUp,
  kDown,
  kInputNorm,
  kPostAttentionNorm,
  kQkvBias,
  kQNorm,
  kKNorm
};

// What a row of logits is wanted for.
struct Wanted {
  int32_t row;     // of the step
  int32_t scored;  // the token to score; -1: sample
  int32_t top;     // alternatives to report, at most kTopMax; -1: no log-probabilities
  int32_t top_k;   // 0: all
  float temperature, top_p, min_p;
  double uniform;  // in [0, 1), where temperature is not 0
};
struct Chosen {
  int32_t finite;  // where not, nothing else holds
  int32_t token;
  float logprob;
  int32_t top_tokens[kTopMax];
  float top_logprobs[kTopMax];
};

// Rows of a step that share a slot.
struct Run {
  int32_t slot, row, rows;
};
struct StepRequest {
  int32_t rows, runs, tables_length;
  const int32_t *tokens, *positions;  // [rows]
  const float* scales;                // [rows]
  const int32_t* table_of;            // [rows]: where the block table of the row's sequence begins
  const int32_t* tables;
  const Run* of_slots;  // by row
};
struct ChooseRequest {
  int32_t rows, runs;
  const Wanted* wanted;  // [rows], at most kLogitRows
  const float* scales;   // [rows]
  const Run* of_slots;   // in rows of logits
};

// Where A and B of one page of a projection lie: A is [16, in, padded to a multiple of 32], B [out, 16],
// bf16. Both in the region of pages, in bytes from its begin.
struct StagedPage {
  int64_t a, b;
};

// What a bench measures alone: a copy of half of the KV cache onto the other half, or one product in all
// layers in turn.
enum class Measured : int32_t { kCopy, kQkv, kO, kGateUp, kDown, kHead };

// All return 0, or -1 with a failure. One thread calls step, choose, logits and poison; one other may call
// the rest.
struct Api {
  uint32_t version;
  int (*probe)(Failure*);
  int (*open)(const OpenRequest*, Opened*, Failure*);
  void (*close)(void* device);

  // Pinned memory for up to *bytes, which says how many it has, for one of the copies that follow.
  int (*reserve)(void* device, int64_t* bytes, void** memory, Failure*);
  // Begin to copy what was reserved last.
  int (*copy_weight)(void* device, WeightKind, int32_t layer, int64_t offset, int64_t bytes, Failure*);
  int (*copy_page)(void* device, int64_t offset, int64_t bytes, Failure*);
  // After its pages: [layers, kModules, pages_max], and ranks and scales, [layers, kModules].
  int (*copy_slot)(void* device, int32_t slot, const StagedPage*, const int32_t* ranks, const float* scales,
                   Failure*);
  // Returns when all copies have landed.
  int (*finish)(void* device, Failure*);

  int (*step)(void* device, const StepRequest*, Failure*);
  // Of the step that was asked for last; returns when `chosen`, [rows], is there.
  int (*choose)(void* device, const ChooseRequest*, Chosen* chosen, Failure*);
  // Row i of the logits of the last choose, [vocab].
  int (*logits)(void* device, int32_t i, float* to, Failure*);
  int (*poison)(void* device, int32_t slot, Failure*);
  // Does it `count` times; what the step before left is lost.
  int (*measure)(void* device, Measured, int32_t rows, int32_t count, double* seconds, Failure*);
};

}  // namespace lorikeet::cuda
