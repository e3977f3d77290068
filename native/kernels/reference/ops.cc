// The oracle: the plainest loop for each op. Reductions run in double, so that a table's own rounding is what
// a comparison against this file shows.
#include <cmath>

#include "kernels/tables.h"

namespace lorikeet {
namespace {

float element(const Panels& w, int64_t out, int64_t col) {
  return widen(w.data, w.dtype, panel_index(w.dtype, w.cols, out, col));
}

const float* row_of(const Rows& x, int64_t row) { return static_cast<const float*>(x.data) + row * x.stride; }

double dot(const float* x, const Panels& w, int64_t out) {
  double sum = 0;
  const int64_t first = panel_index(w.dtype, w.cols, out, 0);
  if (w.dtype == Dtype::kF32) {
    const float* values = static_cast<const float*>(w.data) + first;
    for (int64_t k = 0; k < w.cols; ++k) sum += double{x[k]} * values[panel_index(Dtype::kF32, 0, 0, k)];
  } else {
    const uint16_t* values = static_cast<const uint16_t*>(w.data) + first;
    for (int64_t k = 0; k < w.cols; ++k) {
      sum += double{x[k]} * widen_bf16(values[panel_index(Dtype::kBF16, 0, 0, k)]);
    }
  }
  return sum;
}

void embed(float* y, int64_t y_stride, const Matrix& table, const int32_t* tokens, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < table.cols; ++k) {
      y[i * y_stride + k] = widen(table.data, table.dtype, tokens[i] * table.stride + k);
    }
  }
}

void norm(void* y, int64_t y_stride, const float* x, int64_t x_stride, const float* weight, float eps,
          int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* from = x + i * x_stride;
    float* to = static_cast<float*>(y) + i * y_stride;
    double squares = 0;
    for (int64_t k = 0; k < cols; ++k) squares += double{from[k]} * from[k];
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
    for (int64_t k = 0; k < cols; ++k) to[k] = static_cast<float>(from[k] * inverse * weight[k]);
  }
}

void norm_heads(float* x, const float* weight, float eps, int64_t heads, int64_t head_dim) {
  norm(x, head_dim, x, head_dim, weight, eps, heads, head_dim);
}

void product(float* y, int64_t y_stride, const Rows& x, const Panels& w, const PanelPart& part) {
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t o = part.begin * kPanelOuts; o < part.end * kPanelOuts; ++o) {
      y[i * y_stride + o - part.begin * kPanelOuts] = static_cast<float>(dot(row_of(x, i), w, o));
    }
  }
}

void shrink(void* h, const Rows& x, float scale, const float* scales, const Panels& a) {
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t j = 0; j < kPageRanks; ++j) {
      static_cast<float*>(h)[i * kPageRanks + j] =
          static_cast<float>(double{scale * scales[i]} * dot(row_of(x, i), a, j));
    }
  }
}

void look_up(void* h, const int32_t* tokens, int64_t rows, float scale, const float* scales,
             const Panels& a) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < kPageRanks; ++j) {
      static_cast<float*>(h)[i * kPageRanks + j] =
          static_cast<float>(double{scale * scales[i]} * element(a, j, tokens[i]));
    }
  }
}

void expand(float* y, int64_t y_stride, const void* h, int64_t rows, const Panels& b, int64_t begin,
            int64_t end) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* ranks = static_cast<const float*>(h) + i * kPageRanks;
    for (int64_t o = begin * kPanelOuts; o < end * kPanelOuts; ++o) {
      float& to = y[i * y_stride + o - begin * kPanelOuts];
      to = static_cast<float>(to + dot(ranks, b, o));
    }
  }
}

void add_bias(float* y, int64_t y_stride, const float* bias, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < cols; ++k) y[i * y_stride + k] += bias[k];
  }
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

// Element `d` of a token of the cache, in keys (tokens are the outputs) or in values (tokens are the
// columns).
float key_at(const Attention& a, int64_t token, int64_t d) {
  const int64_t cols = round_up(a.head_dim, kColumnStep);
  const int64_t block = a.blocks[token / kBlockTokens] * a.block_elements;
  return static_cast<const float*>(a.keys)[block + panel_index(Dtype::kF32, cols, token % kBlockTokens, d)];
}
float value_at(const Attention& a, int64_t token, int64_t d) {
  const int64_t block = a.blocks[token / kBlockTokens] * a.block_elements;
  return static_cast<const float*>(
      a.values)[block + panel_index(Dtype::kF32, kBlockTokens, d, token % kBlockTokens)];
}

void attend(const Attention& a, const float* query, int64_t context, float* out) {
  const auto score = [&](int64_t token) {
    double sum = 0;
    for (int64_t d = 0; d < a.head_dim; ++d) sum += double{query[d]} * key_at(a, token, d);
    return static_cast<float>(sum * a.scale);
  };
  float largest = -INFINITY;
  for (int64_t t = 0; t < context; ++t) largest = std::fmax(largest, score(t));
  double total = 0;
  double sums[kHeadDimMax] = {};
  for (int64_t t = 0; t < context; ++t) {
    const double weight = std::exp(score(t) - largest);
    total += weight;
    for (int64_t d = 0; d < a.head_dim; ++d) sums[d] += weight * value_at(a, t, d);
  }
  for (int64_t d = 0; d < a.head_dim; ++d) out[d] = static_cast<float>(sums[d] / total);
}

void attention(const Attention& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t head = 0; head < a.heads; ++head) {
      attend(a, a.q + i * a.q_stride + head * a.head_dim, a.position + i + 1,
             static_cast<float*>(a.out) + i * a.out_stride + head * a.head_dim);
    }
  }
}

void silu_mul(void* y, int64_t y_stride, const float* gate, const float* up, int64_t g_stride, int64_t rows,
              int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < cols; ++k) {
      const float g = gate[i * g_stride + k];
      static_cast<float*>(y)[i * y_stride + k] = g / (1 + std::exp(-g)) * up[i * g_stride + k];
    }
  }
}

void add(float* y, int64_t y_stride, const float* x, int64_t x_stride, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < cols; ++k) y[i * y_stride + k] += x[i * x_stride + k];
  }
}

}  // namespace

const Ops kReference = {
    .x = Dtype::kF32,
    .stored = Dtype::kF32,
    .columns = 0,
    .embed = embed,
    .norm = norm,
    .norm_heads = norm_heads,
    .product = product,
    .shrink = shrink,
    .look_up = look_up,
    .expand = expand,
    .add_bias = add_bias,
    .rope = rope,
    .attention = attention,
    .silu_mul = silu_mul,
    .add = add,
};

}  // namespace lorikeet
