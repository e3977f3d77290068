// The oracle: the plainest loop for each op. Reductions run in double, so that a
// backend's own rounding is what a comparison against this file shows.
#include <cmath>
#include <cstring>

#include "kernels/backends.h"

namespace lorikeet {
namespace {

float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float widen_bf16(uint16_t bits) { return float_of_bits(uint32_t{bits} << 16); }

float widen_f16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31;
  const uint32_t exponent = bits >> 10 & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0x1f) return float_of_bits(sign | 0x7f800000 | mantissa << 13);
  if (exponent != 0) return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

float element(const Matrix& m, int64_t index) {
  switch (m.dtype) {
    case Dtype::kF16: return widen_f16(static_cast<const uint16_t*>(m.data)[index]);
    case Dtype::kBF16: return widen_bf16(static_cast<const uint16_t*>(m.data)[index]);
    default: return static_cast<const float*>(m.data)[index];
  }
}

void embed(float* y, const Matrix& table, const int32_t* tokens, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < table.cols; ++k)
      y[i * table.cols + k] = element(table, tokens[i] * table.cols + k);
  }
}

void rms_norm(float* y, const float* x, const float* weight, float eps, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* from = x + i * cols;
    double squares = 0;
    for (int64_t k = 0; k < cols; ++k) squares += double{from[k]} * from[k];
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
    for (int64_t k = 0; k < cols; ++k) y[i * cols + k] = static_cast<float>(from[k] * inverse * weight[k]);
  }
}

void linear(float* y, int64_t y_stride, const float* x, const Matrix& w, int64_t rows, int64_t begin,
            int64_t end) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t o = begin; o < end; ++o) {
      double sum = 0;
      for (int64_t k = 0; k < w.cols; ++k) sum += double{x[i * w.cols + k]} * element(w, o * w.cols + k);
      y[i * y_stride + o] = static_cast<float>(sum);
    }
  }
}

void add_bias(float* y, const float* bias, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < cols; ++k) y[i * cols + k] += bias[k];
  }
}

void rope(float* x, int64_t x_stride, const int32_t* positions, const float* cos, const float* sin,
          int64_t rows, int64_t heads, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < rows; ++i) {
    const float* c = cos + positions[i] * half;
    const float* s = sin + positions[i] * half;
    for (int64_t head = 0; head < heads; ++head) {
      float* low = x + i * x_stride + head * head_dim;
      float* high = low + half;
      for (int64_t j = 0; j < half; ++j) {
        const float a = low[j], b = high[j];
        low[j] = a * c[j] - b * s[j];
        high[j] = b * c[j] + a * s[j];
      }
    }
  }
}

// Where the keys or values of one position and one head lie in a cache.
int64_t cache_offset(const int32_t* blocks, int64_t position, int64_t kv_head, int64_t kv_heads,
                     int64_t head_dim) {
  const int64_t block = blocks[position / kBlockTokens];
  return ((block * kv_heads + kv_head) * kBlockTokens + position % kBlockTokens) * head_dim;
}

void attention(float* out, const float* q, const float* k_cache, const float* v_cache, const int32_t* blocks,
               int64_t context, int64_t heads, int64_t kv_heads, int64_t head_dim, float scale, int64_t begin,
               int64_t end, float* scores) {
  for (int64_t head = begin; head < end; ++head) {
    const int64_t kv_head = head / (heads / kv_heads);
    const float* query = q + head * head_dim;
    float largest = -INFINITY;
    for (int64_t t = 0; t < context; ++t) {
      const float* key = k_cache + cache_offset(blocks, t, kv_head, kv_heads, head_dim);
      double dot = 0;
      for (int64_t d = 0; d < head_dim; ++d) dot += double{query[d]} * key[d];
      scores[t] = static_cast<float>(dot * scale);
      largest = std::fmax(largest, scores[t]);
    }
    double total = 0;
    for (int64_t t = 0; t < context; ++t) {
      scores[t] = std::exp(scores[t] - largest);
      total += scores[t];
    }
    for (int64_t d = 0; d < head_dim; ++d) {
      double sum = 0;
      for (int64_t t = 0; t < context; ++t) {
        sum += double{scores[t]} * v_cache[cache_offset(blocks, t, kv_head, kv_heads, head_dim) + d];
      }
      out[head * head_dim + d] = static_cast<float>(sum / total);
    }
  }
}

void silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

void add(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

void lora_shrink(float* h, const float* x, const int32_t* row_index, const float* scales, const float* a,
                 int64_t ranks, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = x + row_index[i] * cols;
    for (int64_t j = 0; j < ranks; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < cols; ++k) sum += double{row[k]} * a[j * cols + k];
      h[i * kPageRanks + j] = static_cast<float>(scales[i] * sum);
    }
  }
}

void lora_expand(float* y, int64_t y_stride, const float* h, const int32_t* row_index, const float* b,
                 int64_t ranks, int64_t rows, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = y + row_index[i] * y_stride;
    for (int64_t o = begin; o < end; ++o) {
      double sum = 0;
      for (int64_t j = 0; j < ranks; ++j) sum += double{h[i * kPageRanks + j]} * b[o * kPageRanks + j];
      row[o] = static_cast<float>(row[o] + sum);
    }
  }
}

}  // namespace

const Ops kReferenceOps = {"reference", embed,    rms_norm, linear,      add_bias,   rope,
                           attention,   silu_mul, add,      lora_shrink, lora_expand};

}  // namespace lorikeet
