// Ops on elements and rows.
#include <cmath>
#include <cstring>

#include "case.h"

namespace lorikeet::test {
namespace {

// The part's rows of `from` [.., cols] into y.
void put_rows(Floats& y, int64_t stride, const Floats& from, const Part& part, int64_t cols) {
  for (int64_t i = 0; i < part.count(); ++i) {
    std::memcpy(y.data() + i * stride, from.data() + part.row(i) * cols,
                static_cast<size_t>(cols) * sizeof(float));
  }
}

// float32 rows that end with their last column.
Elements spread(const Floats& from, const Part& part, int64_t cols, int64_t stride) {
  return lay_out(Dtype::kF32, from, part, {cols, cols, stride, part.count()});
}

const float* floats(Elements& rows) { return static_cast<const float*>(rows.data()); }

Case row_case(const std::string& name, int64_t rows, int64_t cols, int64_t stride) {
  return {.name = name + text({{"rows", rows}, {"cols", cols}}),
          .rows = rows,
          .outs = cols,
          .splits = false,
          .stride = stride};
}

Floats rows_with_a_nan_row(Random& random, int64_t rows, int64_t cols) {
  Floats x = random.numbers(rows * cols);
  for (int64_t k = 0; rows >= 3 && k < cols; ++k) x[cols + k] = NAN;
  return x;
}

void embed_case(Cases& cases, Dtype dtype, int64_t cols) {
  const Stored table(cases.random, dtype, 11, cols, cols + 5);
  Case c = row_case(std::string("embed ") + name_of(dtype), 17, cols, cols + 3);
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    Indices tokens(part.count());
    for (int64_t i = 0; i < part.count(); ++i) tokens[i] = static_cast<int32_t>(part.row(i) * 7 % 11);
    ops.embed(y.data(), c.stride, table.matrix(), tokens.data(), part.count());
  };
  cases.visit(c);
}

void norm_case(Cases& cases, int64_t rows, int64_t cols) {
  const Floats x = rows_with_a_nan_row(cases.random, rows, cols), weight = cases.random.numbers(cols);
  Case c = row_case("norm", rows, cols, cols + 9);
  c.tolerance = stored_as(cases.form.x, {1e-6f, 1e-6f});
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    Elements from = spread(x, part, cols, cols + 3), to(ops.x, y);
    ops.norm(to.data(), c.stride, floats(from), cols + 3, weight.data(), 1e-5f, part.count(), cols);
    to.copy_to(y);
  };
  cases.visit(c);
}

void norm_heads_case(Cases& cases, int64_t heads, int64_t head_dim) {
  const Floats x = rows_with_a_nan_row(cases.random, heads, head_dim),
               weight = cases.random.numbers(head_dim);
  Case c = row_case("norm_heads", heads, head_dim, head_dim);
  c.tolerance = {1e-6f, 1e-6f};
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    put_rows(y, c.stride, x, part, head_dim);
    ops.norm_heads(y.data(), weight.data(), 1e-5f, part.count(), head_dim);
  };
  cases.visit(c);
}

void add_case(Cases& cases, int64_t rows, int64_t cols, bool bias) {
  const Floats before = rows_with_a_nan_row(cases.random, rows, cols);
  const Floats x = cases.random.numbers(rows * cols);
  Case c = row_case(bias ? "add_bias" : "add", rows, cols, cols + 3);
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    put_rows(y, c.stride, before, part, cols);
    Elements from = spread(x, bias ? Part{{0}, 0, 0} : part, cols, cols + 1);
    if (bias) return ops.add_bias(y.data(), c.stride, floats(from), part.count(), cols);
    ops.add(y.data(), c.stride, floats(from), cols + 1, part.count(), cols);
  };
  cases.visit(c);
}

// The op is of one row: rows here are calls.
void rope_case(Cases& cases, int64_t heads, int64_t head_dim) {
  const int64_t rows = 3, width = heads * head_dim, half = head_dim / 2;
  const Floats x = rows_with_a_nan_row(cases.random, rows, width);
  const Floats cos = cases.random.numbers(rows * half), sin = cases.random.numbers(rows * half);
  Case c = row_case("rope" + text({{"heads", heads}}), rows, width, width + 5);
  c.tolerance = {1e-6f, 1e-6f};
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    put_rows(y, c.stride, x, part, width);
    for (int64_t i = 0; i < part.count(); ++i) {
      const int64_t at = part.row(i) * half;
      ops.rope(y.data() + i * c.stride, cos.data() + at, sin.data() + at, heads, head_dim);
    }
  };
  cases.visit(c);
}

void silu_mul_case(Cases& cases, int64_t rows, int64_t cols) {
  const float edges[] = {0, -0.0f, 1e-30f, 20, -20, 87, -87, 88, -88, 89, -89, 104, -104, 1000, -1000, NAN};
  Floats gate = cases.random.numbers(rows * cols, 10);
  for (int64_t i = 0; i < rows * cols; i += 3) gate[i] = edges[i / 3 % 16];
  const Floats up = rows_with_a_nan_row(cases.random, rows, cols);
  Case c = row_case("silu_mul", rows, cols, cols + 9);
  c.tolerance = stored_as(cases.form.x, kElements);
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    Elements g = spread(gate, part, cols, cols + 1), u = spread(up, part, cols, cols + 1), to(ops.x, y);
    ops.silu_mul(to.data(), c.stride, floats(g), floats(u), cols + 1, part.count(), cols);
    to.copy_to(y);
  };
  cases.visit(c);
}

}  // namespace

void element_cases(Cases& cases) {
  std::vector<int64_t> widths = {1, 7, 8, 15, 16, 17, 31, 33, 100, 256, 1031};
  if (cases.quick) widths = {7, 16, 33, 100};
  for (int64_t cols : widths) {
    for (Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) embed_case(cases, dtype, cols);
    for (int64_t rows : {1, 3, 17}) norm_case(cases, rows, cols);
    for (int64_t rows : {1, 5}) {
      add_case(cases, rows, cols, false);
      add_case(cases, rows, cols, true);
      silu_mul_case(cases, rows, cols);
    }
  }
  for (int64_t head_dim : {2, 6, 16, 32, 64, 80, 128}) {
    for (int64_t heads : {1, 3}) {
      rope_case(cases, heads, head_dim);
      norm_heads_case(cases, heads, head_dim);
    }
  }
}

}  // namespace lorikeet::test
