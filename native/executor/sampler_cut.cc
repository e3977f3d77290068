#include "sampler_cut.h"

#include <algorithm>
#include <bit>

namespace lorikeet {
namespace {

constexpr int kDigitBits = 13;
constexpr uint64_t kDigits = uint64_t{1} << kDigitBits;

// Numbers that are not negative are ordered as their bits are.
uint64_t bits_of(double weight) { return std::bit_cast<uint64_t>(weight); }
uint64_t digit_of(double weight, int shift) { return (bits_of(weight) >> shift) % kDigits; }

// Where the highest bit is that not all weights share; 0 where they are equal.
int differing_bits(std::span<const double> weights) {
  uint64_t differing = 0;
  for (const double weight : weights) differing |= bits_of(weight) ^ bits_of(weights.front());
  return std::bit_width(differing);
}

// Copies those that `stays` wants, in order; without a branch, which random weights would mispredict.
template <typename Stays>
std::span<const double> filter(std::span<const double> from, std::vector<double>& to, const Stays& stays) {
  size_t count = 0;
  for (const double weight : from) {
    to[count] = weight;
    count += stays(weight) ? 1 : 0;
  }
  return std::span(to).first(count);
}

}  // namespace

Cutter::Cutter(int64_t vocab) : rest_(static_cast<size_t>(vocab)), bins_(kDigits) {}

// Finds the weight at the end digit by digit, the highest first.
Cut Cutter::cut(std::span<const double> weights, int64_t count, double sum) {
  std::span<const double> rest = filter(weights, rest_, [](double weight) { return weight > 0; });
  Bin likelier;  // than all of the rest
  while (const int bits = differing_bits(rest)) {
    const int shift = std::max(bits - kDigitBits, 0);
    fill_bins(rest, shift);
    uint64_t end = 0;
    Bin until = likelier;
    for (uint64_t digit = kDigits; digit-- > 0;) {
      if (bins_[digit].count == 0) continue;
      end = digit;
      likelier = until;
      until.count += bins_[digit].count;
      until.sum += bins_[digit].sum;
      if (until.count >= count || until.sum >= sum) break;
    }
    rest = filter(rest, rest_, [&](double weight) { return digit_of(weight, shift) == end; });
  }
  Cut cut{rest.front(), 1};
  likelier.sum += cut.weight;
  while (cut.ties < std::ssize(rest) && likelier.count + cut.ties < count && likelier.sum < sum) {
    likelier.sum += cut.weight;
    ++cut.ties;
  }
  return cut;
}

void Cutter::fill_bins(std::span<const double> weights, int shift) {
  std::fill(bins_.begin(), bins_.end(), Bin{});
  for (const double weight : weights) {
    Bin& bin = bins_[digit_of(weight, shift)];
    bin.sum += weight;
    ++bin.count;
  }
}

}  // namespace lorikeet
