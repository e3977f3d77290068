// Holds every backend to ops.h: near the reference, and bit for bit the same
// whatever the batch, the split and the alignment. Prints one line per failed
// case; exits with 1 if there is one.
#include <bit>
#include <cmath>
#include <cstdio>

#include "case.h"

namespace lorikeet::test {
namespace {

// What lies where no op may write.
constexpr float kUntouched = -7.0625e8f;

struct Tally {
  const char *backend;
  const Ops *ops;
  int64_t passed = 0;
  int64_t failed = 0;

  void record(const std::string &name, const std::string &difference) {
    ++(difference.empty() ? passed : failed);
    if (!difference.empty()) std::printf("FAILED %s %s%s\n", backend, name.c_str(), difference.c_str());
  }
};

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

bool near(float value, float reference, Tolerance tolerance) {
  if (same_bits(value, reference)) return true;
  return std::fabs(value - reference) <= tolerance.absolute + std::fabs(reference) * tolerance.relative;
}

Part whole(const Case &c) {
  Part part{{}, 0, c.outs};
  for (int64_t i = 0; i < c.rows; ++i) part.rows.push_back(i);
  return part;
}

Floats output(const Case &c, const Ops &ops, const Part &part) {
  Floats y(static_cast<int64_t>(part.rows.size()) * c.stride, kUntouched);
  c.run(ops, part, y.data());
  return y;
}

std::string difference(const char *rule, int64_t row, int64_t at, float value, float expected) {
  char line[200];
  std::snprintf(line, sizeof line, ": %s: row %lld index %lld: %.9g expected, %.9g computed", rule,
                static_cast<long long>(row), static_cast<long long>(at), expected, value);
  return line;
}

// Each check returns the first difference, or "".

std::string compare_with_reference(const Case &c, const Floats &y, const Ops &reference) {
  const Floats expected = output(c, reference, whole(c));
  for (int64_t i = 0; i < y.size(); ++i) {
    if (!near(y[i], expected[i], c.tolerance)) {
      return difference("unlike the reference", i / c.stride, i % c.stride, y[i], expected[i]);
    }
  }
  return "";
}

// Computes a part anew and compares it bit by bit with the same part of the
// whole output y; elsewhere the part's own output must be untouched.
std::string compare_part(const char *rule, const Case &c, const Ops &ops, const Part &part, const Floats &y) {
  const Floats alone = output(c, ops, part);
  for (int64_t i = 0; i < alone.size(); ++i) {
    const int64_t row = part.rows[static_cast<size_t>(i / c.stride)], at = i % c.stride;
    const bool within = at >= part.begin * c.unit && at < part.end * c.unit;
    const float expected = within ? y[row * c.stride + at] : kUntouched;
    if (!same_bits(alone[i], expected)) return difference(rule, row, at, alone[i], expected);
  }
  return "";
}

std::string compare_rows(const Case &c, const Ops &ops, const Floats &y) {
  if (std::string first = compare_part("written outside", c, ops, whole(c), y); !first.empty()) return first;
  for (int64_t row = 0; row < c.rows; row += 1 + c.rows / 17) {
    const std::string first = compare_part("a row alone differs", c, ops, {{row}, 0, c.outs}, y);
    if (!first.empty()) return first;
  }
  Part turned{{}, 0, c.outs};
  for (int64_t row = c.rows - 1; row >= c.rows / 3; --row) turned.rows.push_back(row);
  return compare_part("other neighbours change a row", c, ops, turned, y);
}

std::string compare_splits(const Case &c, const Ops &ops, const Floats &y) {
  for (int64_t cut = 0; c.splits && cut <= c.outs; cut += 1 + c.outs / 9) {
    for (auto [begin, end] : {std::pair{int64_t{0}, cut}, {cut, c.outs}}) {
      Part part = whole(c);
      part.begin = begin;
      part.end = end;
      const std::string first = compare_part("a split differs", c, ops, part, y);
      if (!first.empty()) return first;
    }
  }
  return "";
}

void check(const Case &c, const Ops &reference, Tally &tally) {
  const Floats y = output(c, *tally.ops, whole(c));
  std::string first = compare_with_reference(c, y, reference);
  if (first.empty()) first = compare_rows(c, *tally.ops, y);
  if (first.empty()) first = compare_splits(c, *tally.ops, y);
  tally.record(c.name, first);
}

}  // namespace
}  // namespace lorikeet::test

int main() {
  using namespace lorikeet;
  using namespace lorikeet::test;

  std::vector<Tally> tallies;
  int64_t passed = 0, failed = 0, skipped = 0;
  for (const Isa &isa : instruction_sets()) {
    if (isa.is_available()) {
      tallies.push_back({isa.name, isa.ops});
    } else {
      ++skipped;
      std::printf("%s: skipped: this processor lacks it\n", isa.name);
    }
  }

  const Ops &reference = *instruction_sets().front().ops;
  for (Tally &tally : tallies) {
    check_known_answers(*tally.ops, [&](const auto &name, const auto &wrong) { tally.record(name, wrong); });
  }
  for_each_case([&](const Case &c) {
    for (Tally &tally : tallies) check(c, reference, tally);
  });

  for (const Tally &tally : tallies) {
    std::printf("%s: %lld passed, %lld failed\n", tally.backend, static_cast<long long>(tally.passed),
                static_cast<long long>(tally.failed));
    passed += tally.passed;
    failed += tally.failed;
  }
  std::printf("%lld passed, %lld failed, %lld skipped\n", static_cast<long long>(passed),
              static_cast<long long>(failed), static_cast<long long>(skipped));
  return failed ? 1 : 0;
}
