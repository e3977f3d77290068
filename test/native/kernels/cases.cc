#include <cmath>
#include <memory>

#include "case.h"

namespace lorikeet::test {
namespace {

// Sums of some thousand float32 products of magnitude 1.
constexpr Tolerance kSums{2e-5f, 1e-5f};
// A few roundings, an exp among them.
constexpr Tolerance kElements{1e-30f, 1e-6f};

using Visit = std::function<void(const Case&)>;

std::string text(std::initializer_list<std::pair<const char*, int64_t>> fields) {
  std::string all;
  for (const auto& [name, value] : fields) all += std::string(" ") + name + " " + std::to_string(value);
  return all;
}

const char* name_of(Dtype dtype) {
  return dtype == Dtype::kF32 ? "f32" : dtype == Dtype::kF16 ? "f16" : "bf16";
}

// The part's rows of x, tight, in the part's order.
Floats gather(const Floats& x, const Part& part, int64_t cols) {
  Floats chosen(static_cast<int64_t>(part.rows.size()) * cols);
  for (size_t i = 0; i < part.rows.size(); ++i) {
    std::memcpy(chosen.data() + static_cast<int64_t>(i) * cols, x.data() + part.rows[i] * cols,
                static_cast<size_t>(cols) * sizeof(float));
  }
  return chosen;
}

// Row 1 of three or more is NaN: a neighbour must not notice.
Floats rows_with_a_nan_row(Random& random, int64_t rows, int64_t cols) {
  Floats x = random.numbers(rows * cols);
  for (int64_t k = 0; rows >= 3 && k < cols; ++k) x[cols + k] = NAN;
  return x;
}

int64_t count(const Part& part) { return static_cast<int64_t>(part.rows.size()); }

void embed_cases(Random& random, const Visit& visit) {
  for (Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    for (int64_t cols : {1, 7, 8, 15, 16, 17, 33, 256}) {
      const Stored table(random, dtype, 11, cols);
      Case c{
          .name = std::string("embed ") + name_of(dtype) + text({{"cols", cols}}), .rows = 17, .outs = cols};
      c.splits = false;
      c.stride = cols;
      c.run = [&](const Ops& ops, const Part& part, float* y) {
        Indices tokens(count(part));
        for (int64_t i = 0; i < count(part); ++i) tokens[i] = static_cast<int32_t>(part.rows[i] * 7 % 11);
        ops.embed(y, table.matrix(), tokens.data(), count(part));
      };
      visit(c);
    }
  }
}

void rms_norm_cases(Random& random, const Visit& visit) {
  for (int64_t rows : {1, 3, 17}) {
    for (int64_t cols : {1, 7, 8, 15, 16, 17, 33, 100, 256, 1031}) {
      for (bool in_place : {false, true}) {
        const Floats x = rows_with_a_nan_row(random, rows, cols);
        const Floats weight = random.numbers(cols);
        Case c{.name = (in_place ? "rms_norm in place" : "rms_norm") + text({{"rows", rows}, {"cols", cols}}),
               .rows = rows,
               .outs = cols};
        c.splits = false;
        c.stride = cols;
        c.tolerance = {1e-6f, 1e-6f};
        c.run = [&](const Ops& ops, const Part& part, float* y) {
          const Floats from = gather(x, part, cols);
          if (in_place) std::memcpy(y, from.data(), static_cast<size_t>(from.size()) * sizeof(float));
          ops.rms_norm(y, in_place ? y : from.data(), weight.data(), 1e-5f, count(part), cols);
        };
        visit(c);
      }
    }
  }
}

void linear_cases(Random& random, const Visit& visit) {
  for (Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    for (int64_t rows : {1, 2, 3, 4, 5, 7, 16, 17, 33, 133}) {
      for (int64_t cols : {1, 7, 8, 15, 16, 17, 33, 64, 100, 256, 1031}) {
        for (int64_t outs : {1, 2, 3, 4, 5, 7, 9, 17, 133}) {
          const Floats x = rows_with_a_nan_row(random, rows, cols);
          const Stored w(random, dtype, outs, cols);
          Case c{.name = std::string("linear ") + name_of(dtype) +
                         text({{"rows", rows}, {"cols", cols}, {"outs", outs}}),
                 .rows = rows,
                 .outs = outs};
          c.stride = outs + 3;
          c.tolerance = kSums;
          c.run = [&](const Ops& ops, const Part& part, float* y) {
            const Floats from = gather(x, part, cols);
            ops.linear(y, c.stride, from.data(), w.matrix(), count(part), part.begin, part.end);
          };
          visit(c);
        }
      }
    }
  }
}

void add_bias_cases(Random& random, const Visit& visit) {
  for (int64_t cols : {1, 7, 16, 17, 133}) {
    const Floats x = random.numbers(5 * cols), bias = random.numbers(cols);
    Case c{.name = "add_bias" + text({{"cols", cols}}), .rows = 5, .outs = cols};
    c.splits = false;
    c.stride = cols;
    c.run = [&](const Ops& ops, const Part& part, float* y) {
      const Floats from = gather(x, part, cols);
      std::memcpy(y, from.data(), static_cast<size_t>(from.size()) * sizeof(float));
      ops.add_bias(y, bias.data(), count(part), cols);
    };
    visit(c);
  }
}

void rope_cases(Random& random, const Visit& visit) {
  for (int64_t head_dim : {2, 6, 16, 32, 64, 128}) {
    for (int64_t heads : {1, 3}) {
      const int64_t rows = 7, width = heads * head_dim, positions = 40;
      const Floats x = random.numbers(rows * width);
      const Floats cos = random.numbers(positions * head_dim / 2),
                   sin = random.numbers(positions * head_dim / 2);
      Case c{.name = "rope" + text({{"heads", heads}, {"head_dim", head_dim}}), .rows = rows, .outs = width};
      c.splits = false;
      c.stride = width + 5;
      c.tolerance = {1e-6f, 1e-6f};
      c.run = [&](const Ops& ops, const Part& part, float* y) {
        Indices at(count(part));
        for (int64_t i = 0; i < count(part); ++i) {
          at[i] = static_cast<int32_t>(positions - 1 - part.rows[i] * 5);
          std::memcpy(y + i * c.stride, x.data() + part.rows[i] * width,
                      static_cast<size_t>(width) * sizeof(float));
        }
        ops.rope(y, c.stride, at.data(), cos.data(), sin.data(), count(part), heads, head_dim);
      };
      visit(c);
    }
  }
}

struct AttentionShape {
  int64_t heads, kv_heads, head_dim, context;
};

// Where the keys or values of token t and one head lie.
int64_t cache_offset(const AttentionShape& s, const Indices& blocks, int64_t t, int64_t kv_head) {
  return ((blocks[t / kBlockTokens] * s.kv_heads + kv_head) * kBlockTokens + t % kBlockTokens) * s.head_dim;
}

// Keys or values of a cache with room for all of `blocks`; whatever the sequence does not own is NaN.
Floats cache(Random& random, const AttentionShape& s, const Indices& blocks) {
  Floats all(blocks.size() * s.kv_heads * kBlockTokens * s.head_dim, NAN);
  for (int64_t t = 0; t < s.context; ++t) {
    for (int64_t kv_head = 0; kv_head < s.kv_heads; ++kv_head) {
      float* at = all.data() + cache_offset(s, blocks, t, kv_head);
      for (int64_t d = 0; d < s.head_dim; ++d) at[d] = random.number();
    }
  }
  return all;
}

void attention_case(Random& random, const AttentionShape& s, float sharpness, const Visit& visit) {
  const int64_t used = (s.context + kBlockTokens - 1) / kBlockTokens;
  const Indices order = random.permutation(used + 2);
  Indices blocks(used);
  for (int64_t b = 0; b < used; ++b) blocks[b] = order[b];
  Floats keys = cache(random, s, order);
  const Floats values = cache(random, s, order);
  // One NaN key makes its head NaN; a score that is lost must not go unseen, nor reach other heads.
  if (s.kv_heads == 3) keys[cache_offset(s, order, s.context / 2, 1)] = NAN;
  const Floats q = random.numbers(s.heads * s.head_dim, sharpness);
  Case c{.name = "attention" + text({{"heads", s.heads},
                                     {"kv_heads", s.kv_heads},
                                     {"head_dim", s.head_dim},
                                     {"context", s.context},
                                     {"sharpness", static_cast<int64_t>(sharpness)}}),
         .outs = s.heads,
         .unit = s.head_dim};
  c.stride = s.heads * s.head_dim;
  c.tolerance = sharpness > 1 ? Tolerance{1e-4f, 1e-5f} : kSums;
  c.run = [&](const Ops& ops, const Part& part, float* y) {
    Floats scores(s.context);
    const float scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
    ops.attention(y, q.data(), keys.data(), values.data(), blocks.data(), s.context, s.heads, s.kv_heads,
                  s.head_dim, scale, part.begin, part.end, scores.data());
  };
  visit(c);
}

void attention_cases(Random& random, const Visit& visit) {
  for (int64_t head_dim : {4, 16, 20, 32, 64, 80, 128}) {
    for (int64_t context : {1, 2, 15, 16, 17, 31, 700}) {
      for (auto [heads, kv_heads] : {std::pair{1, 1}, {4, 2}, {6, 1}, {3, 3}}) {
        attention_case(random, {heads, kv_heads, head_dim, context}, 1, visit);
      }
      attention_case(random, {4, 2, head_dim, context}, 50, visit);
    }
  }
}

void silu_mul_cases(Random& random, const Visit& visit) {
  const float edges[] = {0, -0.0f, 1e-30f, 20, -20, 87, -87, 88, -88, 89, -89, 104, -104, 1000, -1000, NAN};
  for (int64_t n : {1, 7, 8, 15, 16, 17, 33, 133, 1000}) {
    for (bool in_place : {false, true}) {
      Floats gate = random.numbers(n, 10);
      for (int64_t i = 0; i < n; i += 3) gate[i] = edges[i / 3 % 16];
      const Floats up = random.numbers(n);
      Case c{.name = (in_place ? "silu_mul in place" : "silu_mul") + text({{"n", n}}), .outs = n};
      c.stride = n;
      c.tolerance = kElements;
      c.run = [&](const Ops& ops, const Part& part, float* y) {
        const int64_t from = part.begin, length = part.end - part.begin;
        if (in_place) std::memcpy(y + from, gate.data() + from, static_cast<size_t>(length) * sizeof(float));
        ops.silu_mul(y + from, in_place ? y + from : gate.data() + from, up.data() + from, length);
      };
      visit(c);
    }
  }
}

void add_cases(Random& random, const Visit& visit) {
  for (int64_t n : {1, 7, 16, 17, 133}) {
    const Floats before = random.numbers(n), x = random.numbers(n);
    Case c{.name = "add" + text({{"n", n}}), .outs = n};
    c.stride = n;
    c.run = [&](const Ops& ops, const Part& part, float* y) {
      for (int64_t i = part.begin; i < part.end; ++i) y[i] = before[i];
      ops.add(y + part.begin, x.data() + part.begin, part.end - part.begin);
    };
    visit(c);
  }
}

void lora_shrink_cases(Random& random, const Visit& visit) {
  for (int64_t ranks : {1, 2, 4, 8, 15, 16}) {
    for (int64_t rows : {1, 2, 3, 7, 16, 33}) {
      for (int64_t cols : {1, 7, 16, 17, 33, 256, 1031}) {
        const int64_t tokens = rows + 3;
        const Floats x = rows_with_a_nan_row(random, tokens, cols), a = random.numbers(ranks * cols);
        const Floats scales = random.numbers(rows, 4);
        const Indices index = random.permutation(tokens);
        Case c{.name = "lora_shrink" + text({{"ranks", ranks}, {"rows", rows}, {"cols", cols}}),
               .rows = rows,
               .outs = ranks};
        c.splits = false;
        c.stride = kPageRanks;
        c.tolerance = kSums;
        c.run = [&](const Ops& ops, const Part& part, float* y) {
          Indices chosen(count(part));
          Floats scale(count(part));
          for (int64_t i = 0; i < count(part); ++i) {
            chosen[i] = index[part.rows[i]];
            scale[i] = scales[part.rows[i]];
          }
          ops.lora_shrink(y, x.data(), chosen.data(), scale.data(), a.data(), ranks, count(part), cols);
        };
        visit(c);
      }
    }
  }
}

// Columns of h and b from `ranks` on are NaN: what another page left there must not count.
Floats page_rows(Random& random, int64_t rows, int64_t ranks) {
  Floats all(rows * kPageRanks, NAN);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < ranks; ++j) all[i * kPageRanks + j] = random.number();
  }
  return all;
}

void lora_expand_cases(Random& random, const Visit& visit) {
  for (int64_t ranks : {1, 2, 4, 8, 15, 16}) {
    for (int64_t rows : {1, 2, 3, 7, 16, 33}) {
      for (int64_t outs : {1, 7, 8, 15, 16, 17, 33, 133}) {
        const Floats before = random.numbers(rows * outs), b = page_rows(random, outs, ranks);
        const Floats h = page_rows(random, rows, ranks);
        Case c{.name = "lora_expand" + text({{"ranks", ranks}, {"rows", rows}, {"outs", outs}}),
               .rows = rows,
               .outs = outs};
        c.stride = outs + 3;
        c.tolerance = kSums;
        c.run = [&](const Ops& ops, const Part& part, float* y) {
          const Floats chosen = gather(h, part, kPageRanks);
          // The op's i-th row is the part's last but i, so that row_index is no identity.
          Floats turned(chosen.size());
          Indices index(count(part));
          for (int64_t i = 0; i < count(part); ++i) {
            const int64_t at = count(part) - 1 - i;
            index[i] = static_cast<int32_t>(at);
            std::memcpy(turned.data() + i * kPageRanks, chosen.data() + at * kPageRanks,
                        kPageRanks * sizeof(float));
            for (int64_t o = part.begin; o < part.end; ++o)
              y[i * c.stride + o] = before[part.rows[i] * outs + o];
          }
          ops.lora_expand(y, c.stride, turned.data(), index.data(), b.data(), ranks, count(part), part.begin,
                          part.end);
        };
        visit(c);
      }
    }
  }
}

}  // namespace

Stored::Stored(Random& random, Dtype dtype, int64_t rows, int64_t cols)
    : dtype_(dtype),
      rows_(rows),
      cols_(cols),
      floats_(dtype == Dtype::kF32 ? rows * cols : 0),
      halves_(dtype == Dtype::kF32 ? 0 : rows * cols) {
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (dtype == Dtype::kF32) floats_[i] = random.number();
    // Any sign and mantissa, and any exponent up to that of 1.
    if (dtype == Dtype::kF16)
      halves_[i] = static_cast<uint16_t>((random.bits() & 0x83ff) | random.below(16) << 10);
    if (dtype == Dtype::kBF16)
      halves_[i] = static_cast<uint16_t>((random.bits() & 0x807f) | (127 - random.below(16)) << 7);
  }
}

void for_each_case(const Visit& visit) {
  Random random;
  embed_cases(random, visit);
  rms_norm_cases(random, visit);
  linear_cases(random, visit);
  add_bias_cases(random, visit);
  rope_cases(random, visit);
  attention_cases(random, visit);
  silu_mul_cases(random, visit);
  add_cases(random, visit);
  lora_shrink_cases(random, visit);
  lora_expand_cases(random, visit);
}

}  // namespace lorikeet::test
