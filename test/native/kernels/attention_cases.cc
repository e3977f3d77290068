#include <cmath>

#include "case.h"

namespace lorikeet::test {
namespace {

struct Shape {
  int64_t heads, head_dim, rows, context;
  // Scale of the queries: how unequal the weights are.
  float sharpness = 1;
};

// [context, head_dim]
struct Tokens {
  Floats keys, values;
};

// A cache of which a sequence has seen `context` tokens: its blocks lie scrambled among others, which are
// NaN, and so is what lies between blocks; the rest of its last block is large.
class Cache {
 public:
  Cache(Dtype dtype, int64_t head_dim, const Tokens& tokens, int64_t context)
      : dtype_(dtype),
        head_dim_(head_dim),
        key_cols_(round_up(head_dim, kColumnStep)),
        key_elements_(kBlockTokens * key_cols_),
        value_elements_(kBlockTokens * round_up(head_dim, kPanelOuts)),
        blocks_(blocks_for(context)),
        elements_(dtype, (blocks_.size() + 2) * block_elements(), NAN) {
    Random random;
    const Indices order = random.permutation(blocks_.size() + 2);
    for (int64_t b = 0; b < blocks_.size(); ++b) {
      blocks_[b] = order[b];
      const int64_t first = blocks_[b] * block_elements();
      for (int64_t i = 0; i < key_elements_ + value_elements_; ++i) elements_.set(first + i, 0);
    }
    for (int64_t t = 0; t < blocks_.size() * kBlockTokens; ++t) {
      for (int64_t d = 0; d < head_dim; ++d) {
        const bool seen = t < context;
        set(t, d, seen ? tokens.keys[t * head_dim + d] : 3e38f * random.number(),
            seen ? tokens.values[t * head_dim + d] : 3e38f * random.number());
      }
    }
  }

  void describe(Attention& a) {
    a.blocks = blocks_.data();
    a.keys = elements_.data();
    a.values = elements_.data(key_elements_);
    a.block_elements = block_elements();
  }

 private:
  int64_t block_elements() const { return key_elements_ + value_elements_ + 3; }
  void set(int64_t token, int64_t d, float key, float value) {
    const int64_t first = blocks_[token / kBlockTokens] * block_elements(), at = token % kBlockTokens;
    elements_.set(first + panel_index(dtype_, key_cols_, at, d), key);
    elements_.set(first + key_elements_ + panel_index(dtype_, kBlockTokens, d, at), value);
  }

  Dtype dtype_;
  int64_t head_dim_, key_cols_, key_elements_, value_elements_;
  Indices blocks_;
  Elements elements_;
};

// Rows `first` .. `first + rows - 1` of the part in one call: they are consecutive positions.
void attend(const Ops& ops, const Shape& s, const Tokens& tokens, const Floats& q, const Part& part,
            int64_t first, int64_t rows, Elements& out, int64_t out_stride) {
  const int64_t width = s.heads * s.head_dim;
  Part call{{}, 0, 0};
  for (int64_t i = 0; i < rows; ++i) call.rows.push_back(part.row(first + i));
  Elements queries = lay_out(Dtype::kF32, q, call, {width, width, width + 7, rows});
  Floats scratch(attention_scratch(s.head_dim), NAN);
  Attention a;
  a.position = s.context - s.rows + call.row(0);
  Cache cache(ops.stored, s.head_dim, tokens, a.position + rows);
  cache.describe(a);
  a.q = static_cast<const float*>(queries.data(part.begin * s.head_dim));
  a.q_stride = width + 7;
  a.rows = rows;
  a.heads = part.end - part.begin;
  a.head_dim = s.head_dim;
  a.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  a.out = out.data(first * out_stride + part.begin * s.head_dim);
  a.out_stride = out_stride;
  a.scratch = scratch.data();
  ops.attention(a);
}

void attention_case(Cases& cases, const Shape& s) {
  const Tokens tokens = {cases.random.numbers(s.context * s.head_dim, 1, cases.form.stored),
                         cases.random.numbers(s.context * s.head_dim, 1, cases.form.stored)};
  Floats q = cases.random.numbers(s.rows * s.heads * s.head_dim, s.sharpness, cases.form.x);
  for (int64_t k = 0; s.rows >= 3 && k < s.head_dim; ++k) q[s.heads * s.head_dim + k] = NAN;
  Case c{.name = "attention" + text({{"heads", s.heads},
                                     {"head_dim", s.head_dim},
                                     {"rows", s.rows},
                                     {"context", s.context},
                                     {"sharpness", static_cast<int64_t>(s.sharpness)}}),
         .rows = s.rows,
         .outs = s.heads,
         .unit = s.head_dim};
  c.stride = s.heads * s.head_dim + 5;
  c.tolerance = stored_as(cases.form.x, s.sharpness > 1 ? Tolerance{1e-4f, 1e-5f} : kSums);
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    Elements out(ops.x, y);
    for (int64_t first = 0, end = 0; part.begin < part.end && first < part.count(); first = end) {
      for (end = first + 1; end < part.count() && part.row(end) == part.row(end - 1) + 1;) ++end;
      attend(ops, s, tokens, q, part, first, end - first, out, c.stride);
    }
    out.copy_to(y);
  };
  cases.visit(c);
}

}  // namespace

// Rows of a case are the last positions of its context.
void attention_cases(Cases& cases) {
  std::vector<int64_t> contexts = {1, 2, 8, 9, 15, 16, 17, 33, 100};
  if (cases.quick) contexts = {1, 9, 17, 35};
  for (int64_t head_dim : {16, 32, 64, 80, 128}) {
    size_t turn = 0;
    for (int64_t context : contexts) {
      for (auto [rows, heads] : {std::pair{1, 1}, {1, 4}, {2, 8}, {3, 5}, {7, 1}, {16, 4}, {8, 8}, {12, 5}}) {
        if (rows > context || (cases.quick && (turn++ + static_cast<size_t>(head_dim) / 16) % 3 != 0))
          continue;
        attention_case(cases, {heads, head_dim, rows, context});
      }
    }
    attention_case(cases, {4, head_dim, cases.quick ? 3 : 16, cases.quick ? 50 : 700, 50});
  }
  attention_case(cases, {8, 64, 1, cases.quick ? 70 : 700});
  // Heads that fill no vector and no panel.
  for (int64_t head_dim : {4, 20}) attention_case(cases, {3, head_dim, 4, 21});
}

}  // namespace lorikeet::test
