#include "scheduler.h"

#include <algorithm>
#include <array>
#include <bit>

namespace lorikeet {

std::string root_of(const GenerateRequest& request, const std::string& revision) {
  const bool is_base = revision.empty() || request.lora_scale == 0;
  const auto scale = std::bit_cast<std::array<char, sizeof(float)>>(is_base ? 0.0f : request.lora_scale);
  std::string root = is_base ? "" : revision;
  root.push_back('\0');
  root.append(scale.data(), scale.size());
  return root + request.cache_salt;
}

bool Scheduler::is_full() const {
  const int64_t seats = limits_.max_batch - static_cast<int64_t>(running_.size());
  return static_cast<int64_t>(waiting_.size()) >= limits_.max_waiting + seats;
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  sequence->arrival = ++arrivals_;
  int64_t last = turn_;
  for (const auto& other : waiting_) {
    if (other->request.group == sequence->request.group) last = std::max(last, other->turn);
  }
  sequence->turn = last + 1;
  const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), sequence->turn,
                                      [](int64_t turn, const auto& s) { return turn < s->turn; });
  waiting_.insert(place, std::move(sequence));
}

std::unique_ptr<Sequence> Scheduler::take_out(int64_t id) {
  const auto take = [&](auto& list) -> std::unique_ptr<Sequence> {
    const auto found =
        std::find_if(list.begin(), list.end(), [id](const auto& s) { return s->request.id == id; });
    if (found == list.end()) return nullptr;
    std::unique_ptr<Sequence> sequence = std::move(*found);
    list.erase(found);
    kv_.give_back(sequence->table);
    return sequence;
  };
  std::unique_ptr<Sequence> sequence = take(running_);
  return sequence ? std::move(sequence) : take(waiting_);
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> youngest = std::move(running_.back());
  running_.pop_back();
  kv_.give_back(youngest->table);
  youngest->computed = 0;
  youngest->is_mixed = false;
  ++preemptions_;
  waiting_.push_front(std::move(youngest));
}

// False where the sequence itself had to go. The oldest never does: each fits the cache alone.
bool Scheduler::make_room_for(size_t index) {
  while (!kv_.grow(running_[index]->table, running_[index]->length())) {
    preempt_youngest();
    if (index >= running_.size()) return false;
  }
  return true;
}

// Gives the sequence the blocks of all its tokens; false where too few are available. What others computed of
// them is used, but for rows that this sequence wants logits of.
bool Scheduler::fit(Sequence& sequence) {
  const int64_t found = kv_.find(sequence.root, sequence.shareable(), sequence.table);
  if (!kv_.grow(sequence.table, sequence.length())) {
    kv_.give_back(sequence.table);
    return false;
  }
  sequence.computed = found;
  if (!sequence.cached_tokens) {
    sequence.cached_tokens = found;
    prefixes_.queried += sequence.length();
    prefixes_.hit += found;
  }
  return true;
}

// Whether another is about to compute tokens that this one begins with too, and which nobody has computed
// yet. It takes no longer than this one would, and the choices of one response compute their prompt once.
bool Scheduler::finds_more_soon(const Sequence& sequence) const {
  if (!kv_.shares()) return false;
  const std::span<const int32_t> tokens = sequence.shareable();
  return std::any_of(running_.begin(), running_.end(), [&](const auto& other) {
    if (other->is_mixed || other->computed >= other->prompt_length() || other->root != sequence.root)
      return false;
    const auto length = std::min(std::ssize(tokens), other->prompt_length());
    const auto differs = std::mismatch(tokens.begin(), tokens.begin() + length, other->tokens.begin()).first;
    return (differs - tokens.begin()) / kBlockTokens * kBlockTokens > other->computed;
  });
}

// A sequence is admitted with the blocks of all its tokens, so only generation can run out of blocks later.
void Scheduler::admit() {
  for (size_t place = 0;
       place < waiting_.size() && static_cast<int64_t>(running_.size()) < limits_.max_batch;) {
    Sequence& next = *waiting_[place];
    if (finds_more_soon(next)) {
      ++place;
      continue;
    }
    if (!fit(next)) return;
    turn_ = std::max(turn_, next.turn);
    const auto seat = std::upper_bound(running_.begin(), running_.end(), next.arrival,
                                       [](int64_t arrival, const auto& s) { return arrival < s->arrival; });
    running_.insert(seat, std::move(waiting_[place]));
    waiting_.erase(waiting_.begin() + static_cast<int64_t>(place));
  }
}

std::vector<Chunk> Scheduler::schedule() {
  const int64_t preempted_before = preemptions_;
  for (size_t i = 0; i < running_.size(); ++i) {
    if (!make_room_for(i)) break;
  }
  if (preemptions_ == preempted_before) admit();

  // Sequences that only need their next token come first: a long prompt must not hold them up.
  std::vector<Chunk> chunks;
  int64_t budget = limits_.max_batch_tokens;
  for (const bool decoding : {true, false}) {
    if (!decoding && !chunks.empty())
      budget = std::min(budget, pacer_.prompt_rows(static_cast<int64_t>(chunks.size())));
    for (const auto& sequence : running_) {
      const int64_t missing = sequence->length() - sequence->computed;
      if ((missing == 1) != decoding || budget == 0) continue;
      const int64_t count = std::min(missing, budget);
      chunks.push_back({sequence.get(), sequence->computed, count});
      budget -= count;
    }
  }
  return chunks;
}

void Scheduler::computed(const Chunk& chunk) {
  Sequence& sequence = *chunk.sequence;
  sequence.computed += chunk.count;
  if (!sequence.is_mixed) kv_.keep(sequence.root, sequence.tokens, sequence.computed, sequence.table);
}

void Scheduler::took(const std::vector<Chunk>& chunks, double ms) {
  int64_t rows = 0;
  for (const Chunk& chunk : chunks) rows += chunk.count;
  if (rows > static_cast<int64_t>(chunks.size())) pacer_.took(rows, ms);
}

}  // namespace lorikeet
