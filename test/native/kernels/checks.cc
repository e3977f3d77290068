// The rules of ops.h, as checks of a case. Each returns the first difference, or "".
#include <bit>
#include <cmath>
#include <cstdio>

#include "case.h"

namespace lorikeet::test {
namespace {

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

bool near(float value, float reference, Tolerance tolerance) {
  if (same_bits(value, reference)) return true;
  // What the reference leaves alone is nobody's, or that of a row without an adapter.
  if (same_bits(reference, kUntouched)) return false;
  return std::fabs(value - reference) <= tolerance.absolute + std::fabs(reference) * tolerance.relative;
}

Part whole(const Case& c) {
  Part part{{}, 0, c.outs};
  for (int64_t i = 0; i < c.rows; ++i) part.rows.push_back(i);
  return part;
}

// With `beyond` rows of nobody after the part's; without, the output ends with its last element.
Floats output(const Case& c, const Ops& ops, const Part& part, int64_t beyond) {
  Floats y((part.count() + beyond - 1) * c.stride + c.outs * c.unit, kUntouched);
  c.run(ops, part, y);
  return y;
}

std::string difference(const char* rule, int64_t row, int64_t at, float value, float expected) {
  char line[200];
  std::snprintf(line, sizeof line, ": %s: row %lld index %lld: %.9g expected, %.9g computed", rule,
                static_cast<long long>(row), static_cast<long long>(at), expected, value);
  return line;
}

std::string compare_with_reference(const Case& c, const Floats& y, const Floats& expected) {
  for (int64_t i = 0; i < y.size(); ++i) {
    if (!near(y[i], expected[i], c.tolerance)) {
      return difference("unlike the reference", i / c.stride, i % c.stride, y[i], expected[i]);
    }
  }
  return "";
}

// Computes a part anew and compares it bit by bit with the same part of the
// whole output y; elsewhere the part's own output must be untouched.
std::string compare_part(const char* rule, const Case& c, const Ops& ops, const Part& part, const Floats& y) {
  const Floats alone = output(c, ops, part, 0);
  for (int64_t i = 0; i < alone.size(); ++i) {
    const int64_t row = part.row(i / c.stride), at = i % c.stride;
    const bool within = at >= part.begin * c.unit && at < part.end * c.unit;
    const float expected = within ? y[row * c.stride + at] : kUntouched;
    if (!same_bits(alone[i], expected)) return difference(rule, row, at, alone[i], expected);
  }
  return "";
}

std::string compare_rows(const Case& c, const Ops& ops, const Floats& y, bool quick) {
  std::string first = compare_part("a second time differs", c, ops, whole(c), y);
  for (int64_t row = 0; first.empty() && row < c.rows; row += 1 + c.rows / (quick ? 4 : 17)) {
    first = compare_part("a row alone differs", c, ops, {{row}, 0, c.outs}, y);
  }
  if (c.rows == 1 || !first.empty()) return first;
  Part later{{}, 0, c.outs}, turned{{}, 0, c.outs};
  for (int64_t row = c.rows / 3 + 1; row < c.rows; ++row) later.rows.push_back(row);
  for (int64_t row = c.rows - 1; row >= c.rows / 3; --row) turned.rows.push_back(row);
  if (later.count() > 0) first = compare_part("other company changes a row", c, ops, later, y);
  return first.empty() ? compare_part("another order changes a row", c, ops, turned, y) : first;
}

std::string compare_splits(const Case& c, const Ops& ops, const Floats& y, bool quick) {
  for (int64_t cut = 0; c.splits && cut <= c.outs; cut += 1 + c.outs / (quick ? 4 : 9)) {
    for (auto [begin, end] : {std::pair{int64_t{0}, cut}, {cut, c.outs}, {cut / 2, cut}}) {
      Part part = whole(c);
      part.begin = begin;
      part.end = end;
      const std::string first = compare_part("a split differs", c, ops, part, y);
      if (!first.empty()) return first;
    }
  }
  return "";
}

}  // namespace

std::string text(std::initializer_list<std::pair<const char*, int64_t>> fields) {
  std::string all;
  for (const auto& [name, value] : fields) all += std::string(" ") + name + " " + std::to_string(value);
  return all;
}

const char* name_of(Dtype dtype) {
  return dtype == Dtype::kF32 ? "f32" : dtype == Dtype::kF16 ? "f16" : "bf16";
}

Floats expected_output(const Case& c, const Ops& reference) {
  return output(c, reference, whole(c), kRowStep);
}

std::string first_difference(const Case& c, const Ops& ops, const Floats& expected, bool quick) {
  const Floats y = output(c, ops, whole(c), kRowStep);
  std::string first = compare_with_reference(c, y, expected);
  if (first.empty()) first = compare_rows(c, ops, y, quick);
  if (first.empty()) first = compare_splits(c, ops, y, quick);
  return first;
}

}  // namespace lorikeet::test
