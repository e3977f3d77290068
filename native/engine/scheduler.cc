#include "scheduler.h"

#include <algorithm>

namespace lorikeet {

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
    kv_.give_back(sequence->blocks);
    return sequence;
  };
  std::unique_ptr<Sequence> sequence = take(running_);
  return sequence ? std::move(sequence) : take(waiting_);
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> youngest = std::move(running_.back());
  running_.pop_back();
  kv_.give_back(youngest->blocks);
  youngest->computed = 0;
  ++preemptions_;
  waiting_.push_front(std::move(youngest));
}

// False where the sequence itself had to go. The oldest never does: each fits the cache alone.
bool Scheduler::make_room_for(size_t index) {
  while (!kv_.grow(running_[index]->blocks, running_[index]->length())) {
    preempt_youngest();
    if (index >= running_.size()) return false;
  }
  return true;
}

// A sequence is admitted with the blocks of all its tokens, so only generation can run out of blocks later.
void Scheduler::admit() {
  while (!waiting_.empty() && static_cast<int64_t>(running_.size()) < limits_.max_batch) {
    Sequence& next = *waiting_.front();
    if (!kv_.grow(next.blocks, next.length())) return;
    turn_ = std::max(turn_, next.turn);
    const auto place = std::upper_bound(running_.begin(), running_.end(), next.arrival,
                                        [](int64_t arrival, const auto& s) { return arrival < s->arrival; });
    running_.insert(place, std::move(waiting_.front()));
    waiting_.pop_front();
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

void Scheduler::took(const std::vector<Chunk>& chunks, double ms) {
  int64_t rows = 0;
  for (const Chunk& chunk : chunks) rows += chunk.count;
  if (rows > static_cast<int64_t>(chunks.size())) pacer_.took(rows, ms);
}

}  // namespace lorikeet
