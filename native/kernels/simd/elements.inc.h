// Ops on elements and rows. An op's vector body and its tail do the same operations on each element.
#pragma once

namespace lorikeet {
namespace {

void embed(float* y, int64_t y_stride, const Matrix& table, const int32_t* tokens, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    float* to = y + i * y_stride;
    const int64_t row = tokens[i] * table.stride;
    int64_t k = 0;
    if (table.dtype == Dtype::kF32) {
      const auto* from = static_cast<const float*>(table.data) + row;
      for (; k + kLanes <= table.cols; k += kLanes) store(to + k, load(from + k));
      if (k < table.cols) store_part(to + k, load_part(from + k, table.cols - k), table.cols - k);
      continue;
    }
    const auto* from = static_cast<const uint16_t*>(table.data) + row;
    const auto wide = [&](auto bits) { return table.dtype == Dtype::kF16 ? widen_f16(bits) : widen_bf16(bits); };
    for (; k + kLanes <= table.cols; k += kLanes) store(to + k, wide(load_halves(from + k)));
    if (k < table.cols) {
      store_part(to + k, wide(load_halves_part(from + k, table.cols - k)), table.cols - k);
    }
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

template <class X>
void norm_as(void* y, int64_t y_stride, const float* x, int64_t x_stride, const float* weight, float eps,
             int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* from = x + i * x_stride;
    X* to = static_cast<X*>(y) + i * y_stride;
    const float mean = sum_of_squares(from, cols) / static_cast<float>(cols);
    const Vec inverse = broadcast(1 / __builtin_sqrtf(mean + eps));
    int64_t k = 0;
    for (; k + kLanes <= cols; k += kLanes) store(to + k, load(from + k) * inverse * load(weight + k));
    if (k < cols) {
      const int64_t n = cols - k;
      store_part(to + k, load_part(from + k, n) * inverse * load_part(weight + k, n), n);
    }
  }
}

void norm_heads(float* x, const float* weight, float eps, int64_t heads, int64_t head_dim) {
  norm_as<float>(x, head_dim, x, head_dim, weight, eps, heads, head_dim);
}

void add(float* y, int64_t y_stride, const float* x, int64_t x_stride, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < cols; ++k) y[i * y_stride + k] += x[i * x_stride + k];
  }
}

void add_bias(float* y, int64_t y_stride, const float* bias, int64_t rows, int64_t cols) {
  add(y, y_stride, bias, 0, rows, cols);
}

void rope(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t head = 0; head < heads; ++head) {
    float* low = x + head * head_dim;
    float* high = low + half;
    for (int64_t j = 0; j < half; ++j) {
      const float a = low[j], b = high[j];
      low[j] = a * cos[j] - b * sin[j];
      high[j] = b * cos[j] + a * sin[j];
    }
  }
}

inline Vec silu(Vec gate) { return gate / (broadcast(1) + exp(zero() - gate)); }

template <class X>
void silu_mul_as(void* y, int64_t y_stride, const float* gate, const float* up, int64_t g_stride, int64_t rows,
                 int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    X* to = static_cast<X*>(y) + i * y_stride;
    const float* g = gate + i * g_stride;
    const float* u = up + i * g_stride;
    int64_t k = 0;
    for (; k + kLanes <= cols; k += kLanes) store(to + k, silu(load(g + k)) * load(u + k));
    if (k < cols) {
      const int64_t n = cols - k;
      store_part(to + k, silu(load_part(g + k, n)) * load_part(u + k, n), n);
    }
  }
}

}  // namespace
}  // namespace lorikeet
