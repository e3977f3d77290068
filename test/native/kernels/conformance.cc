// Holds every table to ops.h: near the reference, and bit for bit the same whatever the batch, the split and
// the alignment. Prints one line per failed case; exits with 1 if there is one.
//   --quick      few cases, for a slow emulator
//   --only NAME  of the tables (and "pack") those whose names begin so
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "case.h"

namespace lorikeet::test {
namespace {

struct Arguments {
  bool quick = false;
  std::string only;
};

struct Tally {
  std::string name;
  const Ops* ops;  // nullptr for pack
  int64_t passed = 0;
  int64_t failed = 0;

  void record(const std::string& what, const std::string& difference) {
    ++(difference.empty() ? passed : failed);
    if (difference.empty()) return;
    std::printf("FAILED %s %s%s\n", name.c_str(), what.c_str(), difference.c_str());
    std::fflush(stdout);
  }
};

// Tables that instruction sets share are checked once, under the plainest's name. Prints and counts what is
// skipped.
std::vector<Tally> choose(const std::string& only, int64_t& skipped) {
  std::vector<Tally> chosen;
  std::vector<const Ops*> met;
  const auto add = [&](const std::string& name, const Ops* ops, bool available) {
    if (!name.starts_with(only) || std::find(met.begin(), met.end(), ops) != met.end()) return;
    met.push_back(ops);
    if (available) return chosen.push_back({name, ops});
    ++skipped;
    std::printf("%s: skipped: this processor lacks it\n", name.c_str());
  };
  add("pack", nullptr, true);
  for (const Isa& isa : instruction_sets()) {
    const bool available = isa.is_available();
    add(isa.name + std::string(" float32"), isa.float32, available);
    if (isa.bfloat16) add(isa.name + std::string(" bfloat16"), isa.bfloat16, available);
  }
  return chosen;
}

void check_form(const Form& form, std::vector<Tally>& tallies, bool quick) {
  std::vector<Tally*> tables;
  for (Tally& tally : tallies) {
    if (tally.ops && tally.ops->x == form.x && tally.ops->stored == form.stored) tables.push_back(&tally);
  }
  if (tables.empty()) return;
  Cases cases{form, quick, [&](const Case& c) {
                const Floats expected = expected_output(c, *instruction_sets().front().float32);
                for (Tally* table : tables)
                  table->record(c.name, first_difference(c, *table->ops, expected, quick));
              }};
  element_cases(cases);
  product_cases(cases);
  lora_cases(cases);
  attention_cases(cases);
}

int run(const Arguments& arguments) {
  int64_t passed = 0, failed = 0, skipped = 0;
  std::vector<Tally> tallies = choose(arguments.only, skipped);
  for (Tally& tally : tallies) {
    const Record record = [&](const auto& name, const auto& wrong) { tally.record(name, wrong); };
    tally.ops ? check_known_answers(*tally.ops, record) : check_pack(record);
  }
  check_form({Dtype::kF32, Dtype::kF32}, tallies, arguments.quick);
  check_form({Dtype::kF32, Dtype::kBF16}, tallies, arguments.quick);
  check_form({Dtype::kBF16, Dtype::kBF16}, tallies, arguments.quick);

  for (const Tally& tally : tallies) {
    std::printf("%s: %lld passed, %lld failed\n", tally.name.c_str(), static_cast<long long>(tally.passed),
                static_cast<long long>(tally.failed));
    passed += tally.passed;
    failed += tally.failed;
  }
  std::printf("%lld passed, %lld failed, %lld skipped\n", static_cast<long long>(passed),
              static_cast<long long>(failed), static_cast<long long>(skipped));
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace lorikeet::test

int main(int argc, char** argv) {
  lorikeet::test::Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      arguments.quick = true;
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      arguments.only = argv[++i];
    } else {
      std::fprintf(stderr, "usage: kernel_conformance [--quick] [--only NAME]\n");
      return 2;
    }
  }
  return lorikeet::test::run(arguments);
}
