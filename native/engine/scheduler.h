// Continuous batching: which tokens of which sequences run in the next step. Decides only; does no
// arithmetic.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kv_blocks.h"
#include "messages.h"
#include "step_pacer.h"

namespace lorikeet {

// One generation.
struct Sequence {
  GenerateRequest request;
  std::vector<int32_t> tokens;  // prompt, then what was generated
  int64_t computed = 0;         // tokens whose keys and values are in the cache
  BlockTable table;
  int slot = -1;                         // leased; -1 for the base
  std::string root;                      // what keys and values depend on beside the tokens
  bool is_mixed = false;                 // they are of several revisions, and of use to nobody else
  int64_t epoch = 0;                     // when the revision was chosen
  std::optional<int64_t> cached_tokens;  // of the prompt; none before the first admission
  std::vector<TokenLogprobs> prompt_scores;
  bool has_started = false;
  bool prompt_reported = false;
  int64_t arrival = 0;
  int64_t turn = 0;  // for a seat

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t prompt_length() const { return static_cast<int64_t>(request.prompt.size()); }
  int64_t generated() const { return length() - prompt_length(); }
  // Positions of the prompt whose next token is yet to be scored; none where begin >= end.
  int64_t score_begin() const {
    return request.prompt_logprobs_from - 1 + static_cast<int64_t>(prompt_scores.size());
  }
  int64_t score_end() const {
    return request.prompt_logprobs < 0 || prompt_reported ? 0 : prompt_length() - 1;
  }
  // The first tokens, whose rows need not be computed where their keys and values are there.
  std::span<const int32_t> shareable() const {
    const int64_t rows_from = score_begin() < score_end() ? score_begin() : length() - 1;
    return std::span(tokens).first(static_cast<size_t>(std::min(rows_from, length() - 1)));
  }
};

// What keys and values depend on beside the tokens: the revision (empty for the base), its scale, the salt.
std::string root_of(const GenerateRequest& request, const std::string& revision);

// Tokens [begin, begin + count) of a sequence, to run in this step.
struct Chunk {
  Sequence* sequence = nullptr;
  int64_t begin = 0;
  int64_t count = 0;

  // Whether the step computes the last token, so that a next one can be sampled.
  bool completes() const { return begin + count == sequence->length(); }
};

class Scheduler {
 public:
  struct Limits {
    int64_t max_batch = 0;
    int64_t max_batch_tokens = 0;
    int64_t max_waiting = 0;
  };

  Scheduler(Limits limits, KvBlocks& kv) : limits_(limits), kv_(kv), pacer_(limits.max_batch_tokens) {}

  // Seats that a burst would take at once do not count as waiting.
  bool is_full() const;
  // Waits for a seat; groups take turns (start-time fair queueing, Goyal, Vin and Cheng 1996), each with one
  // sequence.
  void add(std::unique_ptr<Sequence> sequence);
  // Takes the sequence out and gives its blocks back; null where it is not here.
  std::unique_ptr<Sequence> take_out(int64_t id);

  bool is_idle() const { return waiting_.empty() && running_.empty(); }
  // Not empty unless idle. Preempts the youngest sequences where blocks run out; admits while there is room.
  std::vector<Chunk> schedule();
  // The chunk's keys and values are in the cache.
  void computed(const Chunk& chunk);
  // What schedule() returned took so long.
  void took(const std::vector<Chunk>& chunks, double ms);

  const std::vector<std::unique_ptr<Sequence>>& running() const { return running_; }
  const std::deque<std::unique_ptr<Sequence>>& waiting() const { return waiting_; }
  int64_t preemptions() const { return preemptions_; }
  const PrefixCounts& prefixes() const { return prefixes_; }

 private:
  bool make_room_for(size_t index);
  void preempt_youngest();
  void admit();
  bool fit(Sequence& sequence);
  bool finds_more_soon(const Sequence& sequence) const;

  Limits limits_;
  KvBlocks& kv_;
  StepPacer pacer_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   // by turn
  std::vector<std::unique_ptr<Sequence>> running_;  // by arrival, the oldest first
  int64_t arrivals_ = 0;
  int64_t turn_ = 0;  // of the last sequence that was admitted
  int64_t preemptions_ = 0;
  PrefixCounts prefixes_;
};

}  // namespace lorikeet
