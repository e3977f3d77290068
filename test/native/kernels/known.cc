// Answers worked out by hand: they hold the reference itself to the words of ops.h.
#include <cmath>
#include <cstdio>

#include "case.h"

namespace lorikeet::test {
namespace {

class Known {
 public:
  void expect(const std::string& what, float value, float answer) {
    const bool same = std::isnan(answer) ? std::isnan(value)
                                         : value == answer && std::signbit(value) == std::signbit(answer);
    if (same || !first_wrong_.empty()) return;
    char line[100];
    std::snprintf(line, sizeof line, ": %.9g expected, %.9g computed", answer, value);
    first_wrong_ = ": " + what + line;
  }
  const std::string& first_wrong() const { return first_wrong_; }

 private:
  std::string first_wrong_;
};

float widened(const Ops& ops, Dtype dtype, uint16_t bits) {
  const int32_t token = 0;
  float value = 0;
  ops.embed(&value, {&bits, dtype, 1, 1}, &token, 1);
  return value;
}

// Every f16 and bf16 there is, against ldexp of its fields.
void check_widening(const Ops& ops, Known& known) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float sign = bits >> 15 ? -1 : 1;
    const int exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
    float f16 =
        std::ldexp(static_cast<float>(exponent ? mantissa + 1024 : mantissa), exponent ? exponent - 25 : -24);
    if (exponent == 31) f16 = mantissa ? NAN : INFINITY;
    known.expect("f16 " + std::to_string(bits), widened(ops, Dtype::kF16, static_cast<uint16_t>(bits)),
                 sign * f16);

    const int wide_exponent = bits >> 7 & 0xff, short_mantissa = bits & 0x7f;
    float bf16 = std::ldexp(static_cast<float>(wide_exponent ? short_mantissa + 128 : short_mantissa),
                            wide_exponent ? wide_exponent - 134 : -133);
    if (wide_exponent == 255) bf16 = short_mantissa ? NAN : INFINITY;
    known.expect("bf16 " + std::to_string(bits), widened(ops, Dtype::kBF16, static_cast<uint16_t>(bits)),
                 sign * bf16);
  }
}

void check_products(const Ops& ops, Known& known) {
  const float x[] = {1, 2, 3, 4, 5, 6}, w[] = {1, 0, -1, 2, 2, 2};
  float y[4] = {};
  ops.linear(y, 2, x, {w, Dtype::kF32, 2, 3}, 2, 0, 2);
  const float answers[] = {-2, 12, -2, 30};
  for (int i = 0; i < 4; ++i) known.expect("linear " + std::to_string(i), y[i], answers[i]);

  // Rows 1 and 0 in that order, scales 2 and 0.5.
  const int32_t rows[] = {1, 0};
  const float scales[] = {2, 0.5f};
  float h[2 * kPageRanks] = {};
  ops.lora_shrink(h, x, rows, scales, w, 2, 2, 3);
  known.expect("lora_shrink 0 0", h[0], -4);
  known.expect("lora_shrink 0 1", h[1], 60);
  known.expect("lora_shrink 1 0", h[kPageRanks], -1);
  known.expect("lora_shrink 1 1", h[kPageRanks + 1], 6);

  const float b[kPageRanks] = {3, 1, 99};
  float sums[] = {100, 200};
  ops.lora_expand(sums, 1, h, rows, b, 2, 2, 0, 1);
  known.expect("lora_expand 0", sums[0], 103);
  known.expect("lora_expand 1", sums[1], 248);
}

void check_attention(const Ops& ops, Known& known) {
  // One block of one head of 2: equal keys give the mean of the values; a key far ahead gives its own.
  float keys[2 * kBlockTokens] = {}, values[2 * kBlockTokens] = {1, 10, 3, 30};
  const float q[] = {1, 1};
  const int32_t block = 0;
  float out[2], scores[2];
  ops.attention(out, q, keys, values, &block, 2, 1, 1, 2, 1, 0, 1, scores);
  known.expect("attention mean 0", out[0], 2);
  known.expect("attention mean 1", out[1], 20);
  keys[2] = 1000;
  ops.attention(out, q, keys, values, &block, 2, 1, 1, 2, 1, 0, 1, scores);
  known.expect("attention one 0", out[0], 3);
  known.expect("attention one 1", out[1], 30);
}

void check_elements(const Ops& ops, Known& known) {
  // A quarter turn at position 1, none at position 0.
  float x[] = {1, 2, 3, 4, 1, 2, 3, 4};
  const int32_t positions[] = {1, 0};
  const float cos[] = {1, 1, 0, 0}, sin[] = {0, 0, 1, 1};
  ops.rope(x, 4, positions, cos, sin, 2, 1, 4);
  const float turned[] = {-3, -4, 1, 2, 1, 2, 3, 4};
  for (int i = 0; i < 8; ++i) known.expect("rope " + std::to_string(i), x[i], turned[i]);

  const float row[] = {3, 4, 3, 4}, weight[] = {1, 2, 4, 8};
  float y[4];
  ops.rms_norm(y, row, weight, 12.5f, 1, 4);
  const float normal[] = {0.6f, 1.6f, 2.4f, 6.4f};
  for (int i = 0; i < 4; ++i)
    known.expect("rms_norm " + std::to_string(i), std::round(y[i] * 1e5f), std::round(normal[i] * 1e5f));

  const float gate[] = {0, 1000, -1000}, up[] = {5, 2, 2};
  ops.silu_mul(y, gate, up, 3);
  known.expect("silu_mul of 0", y[0], 0);
  known.expect("silu_mul of 1000", y[1], 2000);
  known.expect("silu_mul of -1000", y[2], -0.0f);

  ops.add(y, up, 2);
  ops.add_bias(y + 2, weight, 2, 1);
  known.expect("add", y[0], 5);
  known.expect("add_bias", y[2], 1);
}

}  // namespace

void check_known_answers(const Ops& ops, const Record& record) {
  struct Check {
    const char* name;
    void (*run)(const Ops&, Known&);
  };
  for (auto [name, run] :
       {Check{"known widening", check_widening}, Check{"known products", check_products},
        Check{"known attention", check_attention}, Check{"known elements", check_elements}}) {
    Known known;
    run(ops, known);
    record(name, known.first_wrong());
  }
}

}  // namespace lorikeet::test
