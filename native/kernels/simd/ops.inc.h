// The SIMD backends: one source, compiled once per instruction set after that set's vec.h.
// An op's vector body and its tail do the same operations on each element, so that where a
// split or a row's end falls changes no bit.
#pragma once

#include "kernels/backends.h"
#include "kernels/simd/exp.inc.h"
#include "kernels/simd/products.inc.h"
#include "kernels/simd/attention.inc.h"

namespace lorikeet {
namespace {

template <class W>
void embed_as(float* y, const Matrix& table, const int32_t* tokens, int64_t rows) {
  const auto* elements = static_cast<const typename W::Element*>(table.data);
  for (int64_t i = 0; i < rows; ++i) {
    const auto* from = elements + tokens[i] * table.cols;
    float* to = y + i * table.cols;
    int64_t k = 0;
    for (; k + kLanes <= table.cols; k += kLanes) store(to + k, W::load(from + k));
    if (k < table.cols) store_part(to + k, W::load_part(from + k, table.cols - k), table.cols - k);
  }
}

void embed(float* y, const Matrix& table, const int32_t* tokens, int64_t rows) {
  switch (table.dtype) {
    case Dtype::kF32:
      return embed_as<F32>(y, table, tokens, rows);
    case Dtype::kF16:
      return embed_as<F16>(y, table, tokens, rows);
    case Dtype::kBF16:
      return embed_as<BF16>(y, table, tokens, rows);
  }
}

float sum_of_squares(const float* x, int64_t n) {
  Vec sum = zero();
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) sum = fma(load(x + k), load(x + k), sum);
  if (k < n) {
    const Vec v = load_part(x + k, n - k);
    sum = fma(v, v, sum);
  }
  return reduce_add(sum);
}

void rms_norm(float* y, const float* x, const float* weight, float eps, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* from = x + i * cols;
    const float mean = sum_of_squares(from, cols) / static_cast<float>(cols);
    const float inverse = 1 / __builtin_sqrtf(mean + eps);
    for (int64_t k = 0; k < cols; ++k) y[i * cols + k] = from[k] * inverse * weight[k];
  }
}

void linear(float* y, int64_t y_stride, const float* x, const Matrix& w, int64_t rows, int64_t begin,
            int64_t end) {
  const Products p = {y, y_stride, x, nullptr, nullptr, rows, w.cols};
  switch (w.dtype) {
    case Dtype::kF32:
      return products<F32>(p, static_cast<const float*>(w.data), begin, end);
    case Dtype::kF16:
      return products<F16>(p, static_cast<const uint16_t*>(w.data), begin, end);
    case Dtype::kBF16:
      return products<BF16>(p, static_cast<const uint16_t*>(w.data), begin, end);
  }
}

void add(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

void add_bias(float* y, const float* bias, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) add(y + i * cols, bias, cols);
}

void rotate(float* low, float* high, const float* cos, const float* sin, int64_t half) {
  for (int64_t j = 0; j < half; ++j) {
    const float a = low[j], b = high[j];
    low[j] = a * cos[j] - b * sin[j];
    high[j] = b * cos[j] + a * sin[j];
  }
}

void rope(float* x, int64_t x_stride, const int32_t* positions, const float* cos, const float* sin,
          int64_t rows, int64_t heads, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t angle = positions[i] * half;
    for (int64_t h = 0; h < heads; ++h) {
      float* head = x + i * x_stride + h * head_dim;
      rotate(head, head + half, cos + angle, sin + angle, half);
    }
  }
}

inline Vec silu(Vec gate) { return gate / (broadcast(1) + exp(zero() - gate)); }

void silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, silu(load(gate + i)) * load(up + i));
  if (i < n) store_part(y + i, silu(load_part(gate + i, n - i)) * load_part(up + i, n - i), n - i);
}

void lora_shrink(float* h, const float* x, const int32_t* row_index, const float* scales, const float* a,
                 int64_t ranks, int64_t rows, int64_t cols) {
  products<F32>({h, kPageRanks, x, row_index, scales, rows, cols}, a, 0, ranks);
}

void lora_expand(float* y, int64_t y_stride, const float* h, const int32_t* row_index, const float* b,
                 int64_t ranks, int64_t rows, int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end; o += kLanes) {
    const int64_t n = end - o < kLanes ? end - o : kLanes;
    // b^T for these outputs: [ranks, kLanes].
    float columns[kPageRanks][kLanes] = {};
    for (int64_t lane = 0; lane < n; ++lane) {
      for (int64_t j = 0; j < ranks; ++j) columns[j][lane] = b[(o + lane) * kPageRanks + j];
    }
    for (int64_t i = 0; i < rows; ++i) {
      Vec sum = zero();
      for (int64_t j = 0; j < ranks; ++j) sum = fma(broadcast(h[i * kPageRanks + j]), load(columns[j]), sum);
      float* to = y + row_index[i] * y_stride + o;
      store_part(to, load_part(to, n) + sum, n);
    }
  }
}

constexpr Ops ops_named(const char* name) {
  return {name, embed, rms_norm, linear, add_bias, rope, attention, silu_mul, add, lora_shrink, lora_expand};
}

}  // namespace
}  // namespace lorikeet
