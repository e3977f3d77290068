// A case of the conformance table: one op with one set of shapes and data.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data.h"
#include "kernels/ops.h"

namespace lorikeet::test {

// What lies where no op may write: exact in bfloat16, and so small that whatever is added to it shows.
constexpr float kUntouched = -0x1.54p-30f;

// A value conforms when |value - reference| <= absolute + |reference| * relative.
struct Tolerance {
  float absolute;
  float relative;
};

// The types of a table decide a case's data: numbers are rounded to what the table reads before the reference
// meets them, so that tolerances are those of float32 sums only.
struct Form {
  Dtype x;
  Dtype stored;
};

// Sums of some thousand float32 products of magnitude 1.
constexpr Tolerance kSums{2e-5f, 1e-5f};
// A few roundings, an exp among them.
constexpr Tolerance kElements{1e-30f, 1e-6f};

// For results stored as `dtype`: bfloat16 keeps 8 bits.
constexpr Tolerance stored_as(Dtype dtype, Tolerance t) {
  return dtype == Dtype::kBF16 ? Tolerance{t.absolute, t.relative + 0x1.01p-8f} : t;
}

struct Case {
  std::string name;
  int64_t rows = 1;
  // Outputs along the axis that may be split; `unit` elements belong to each.
  int64_t outs = 1;
  int64_t unit = 1;
  // False for ops without [begin, end).
  bool splits = true;
  // Elements from output row to output row, >= outs * unit; those beyond are nobody's.
  int64_t stride = 1;
  Tolerance tolerance{};
  // Writes the part's rows one after the other into y, each at its full-width place.
  std::function<void(const Ops& ops, const Part& part, Floats& y)> run{};
};

// The cases of one form go to `visit`, one after the other. `quick`: few, for a slow emulator.
struct Cases {
  Form form;
  bool quick;
  std::function<void(const Case&)> visit;
  Random random{};
};

void element_cases(Cases& cases);
void product_cases(Cases& cases);
void lora_cases(Cases& cases);
void attention_cases(Cases& cases);

// Takes the name of what was checked and its first difference, or "" if there is none.
using Record = std::function<void(const std::string& name, const std::string& difference)>;

std::string text(std::initializer_list<std::pair<const char*, int64_t>> fields);
const char* name_of(Dtype dtype);

// The reference's output for the whole case.
Floats expected_output(const Case& c, const Ops& reference);
// The first rule that the table breaks in this case, or "".
std::string first_difference(const Case& c, const Ops& ops, const Floats& expected, bool quick);

// Checks results that were worked out by hand.
void check_known_answers(const Ops& ops, const Record& record);
void check_pack(const Record& record);

}  // namespace lorikeet::test
