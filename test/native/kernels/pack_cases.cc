// pack() against the layout of layout.h, element by element, and against values that fields spell out.
#include <cstring>

#include "case.h"
#include "known.h"

namespace lorikeet::test {
namespace {

struct Shape {
  int64_t rows, cols, padded;
};

// A row-major matrix at an odd address, with NaN between its columns and its stride.
class Source {
 public:
  Source(Dtype dtype, const Shape& s, int64_t stride)
      : dtype_(dtype),
        shape_(s),
        stride_(stride),
        bytes_(((s.rows - 1) * stride + s.cols) * dtype_bytes(dtype), 0xff) {}
  // Any bits of `dtype`.
  void set(int64_t row, int64_t col, uint32_t bits) {
    const int64_t at = (row * stride_ + col) * dtype_bytes(dtype_);
    if (dtype_ == Dtype::kF32) {
      std::memcpy(bytes_.data() + at, &bits, 4);
    } else {
      const auto half = static_cast<uint16_t>(bits);
      std::memcpy(bytes_.data() + at, &half, 2);
    }
  }
  Matrix matrix() const { return {bytes_.data(), dtype_, shape_.rows, shape_.cols, stride_}; }

 private:
  Dtype dtype_;
  Shape shape_;
  int64_t stride_;
  Tight<unsigned char> bytes_;
};

float value_of(Dtype dtype, uint32_t bits) {
  if (dtype == Dtype::kF32) return std::bit_cast<float>(bits);
  const auto half = static_cast<uint16_t>(bits);
  return dtype == Dtype::kF16 ? f16_by_fields(half) : bf16_by_fields(half);
}

float stored_value(Dtype to, float value) { return to == Dtype::kF32 ? value : bf16_by_distance(value); }

// Where an element lies, in the words of layout.h.
int64_t place(Dtype to, int64_t cols, int64_t out, int64_t col) {
  if (to == Dtype::kF32) return ((out / 16) * cols + col) * 16 + out % 16;
  return (((out / 16) * (cols / 2) + col / 2) * 16 + out % 16) * 2 + col % 2;
}

uint32_t random_bits(Random& random, Dtype dtype) {
  if (dtype == Dtype::kF32) return std::bit_cast<uint32_t>(random.number());
  if (dtype == Dtype::kF16) return (random.bits() & 0x83ff) | static_cast<uint32_t>(random.below(16)) << 10;
  return narrow_bf16(random.number());
}

// Packs panels [begin, end) and looks at all of them.
void check_shape(Random& random, Dtype from, Dtype to, const Shape& s, int64_t begin, int64_t end,
                 Known& known) {
  Source source(from, s, s.cols + 3);
  Floats values(s.rows * s.cols);
  bool exact = true;
  for (int64_t i = 0; i < values.size(); ++i) {
    const uint32_t bits = random_bits(random, from);
    source.set(i / s.cols, i % s.cols, bits);
    values[i] = value_of(from, bits);
    const int64_t panel = i / s.cols / kPanelOuts;
    exact &= panel < begin || panel >= end || stored_value(to, values[i]) == values[i];
  }
  const Panels panels = {nullptr, to, panels_for(s.rows), s.padded};
  Elements packed(to, panels.panels * kPanelOuts * s.padded, kUntouched);
  known.expect("exact", 0, pack(panels, packed.data(), source.matrix(), begin, end), exact);
  for (int64_t out = 0; out < panels.panels * kPanelOuts; ++out) {
    for (int64_t col = 0; col < s.padded; ++col) {
      float answer = 0;
      if (out < s.rows && col < s.cols) answer = stored_value(to, values[out * s.cols + col]);
      if (out / kPanelOuts < begin || out / kPanelOuts >= end) answer = kUntouched;
      known.expect("element of output", out, packed.get(place(to, s.padded, out, col)), answer);
    }
  }
}

void check_shapes(Dtype from, Dtype to, const Record& record) {
  Random random;
  for (const Shape& s : {Shape{1, 1, 32},
                         {15, 7, 32},
                         {16, 16, 16},
                         {16, 15, 16},
                         {17, 32, 32},
                         {33, 33, 64},
                         {48, 96, 96},
                         {40, 100, 128},
                         {5, 160, 160}}) {
    Known known;
    const int64_t all = panels_for(s.rows);
    check_shape(random, from, to, s, 0, all, known);
    check_shape(random, from, to, s, all / 2, all, known);
    check_shape(random, from, to, s, 0, all - 1, known);
    record(std::string("pack ") + name_of(from) + " to " + name_of(to) +
               text({{"rows", s.rows}, {"cols", s.cols}, {"padded", s.padded}}),
           known.first_wrong());
  }
}

// All values of 16 bits; of 32 those, and what lies around the middle between two.
void check_values(Dtype from, Dtype to, const Record& record) {
  // Whole panels take a path of their own.
  for (const Shape& s : {Shape{16, 4096, 4096}, {15, 4370, 4384}}) {
    Known known;
    for (uint32_t beyond : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      if (from != Dtype::kF32 && beyond != 0) break;
      Source source(from, s, s.cols);
      const auto bits_at = [&](int64_t i) {
        const auto half = static_cast<uint32_t>(i) & 0xffff;
        return from == Dtype::kF32 ? half << 16 | beyond : half;
      };
      for (int64_t i = 0; i < s.rows * s.cols; ++i) source.set(i / s.cols, i % s.cols, bits_at(i));
      Elements packed(to, kPanelOuts * s.padded, kUntouched);
      pack({nullptr, to, 1, s.padded}, packed.data(), source.matrix(), 0, 1);
      for (int64_t i = 0; i < s.rows * s.cols; ++i) {
        known.expect("bits", i, packed.get(place(to, s.padded, i / s.cols, i % s.cols)),
                     stored_value(to, value_of(from, bits_at(i))));
      }
    }
    record(std::string("pack all ") + name_of(from) + " to " + name_of(to) + text({{"rows", s.rows}}),
           known.first_wrong());
  }
}

// One value that needs rounding, in one panel.
void check_exact(const Record& record) {
  Known known;
  for (uint32_t bits : {0x3f800000u, 0x3f810000u, 0x80000000u, 0x7f800000u, 0x00010000u, 0x3f800001u,
                        0x3f808000u, 0x7f7fffffu, 0x00000001u}) {
    Source source(Dtype::kF32, {33, 32, 32}, 32);
    for (int64_t i = 0; i < 33 * 32; ++i) source.set(i / 32, i % 32, 0);
    source.set(20, 31, bits);
    const bool exact = (bits & 0xffff) == 0;
    const Panels panels = {nullptr, Dtype::kBF16, 3, 32};
    Halves packed(3 * kPanelOuts * 32);
    known.expect("exact", 0, pack(panels, packed.data(), source.matrix(), 0, 3), exact);
    known.expect("exact of panel", 0, pack(panels, packed.data(), source.matrix(), 0, 1), true);
    known.expect("exact of panel", 1, pack(panels, packed.data(), source.matrix(), 1, 2), exact);
    known.expect("exact of panel", 2, pack(panels, packed.data(), source.matrix(), 2, 3), true);
  }
  record("pack exact", known.first_wrong());
}

}  // namespace

void check_pack(const Record& record) {
  for (Dtype from : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    for (Dtype to : {Dtype::kF32, Dtype::kBF16}) {
      check_shapes(from, to, record);
      check_values(from, to, record);
    }
  }
  check_exact(record);
}

}  // namespace lorikeet::test
