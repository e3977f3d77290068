// How long prompts share steps with sequences that wait for their next token, who gets a seat, and which
// blocks are shared.
#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace {

using namespace lorikeet;

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

// Milliseconds of a step.
struct Machine {
  double step, row;
  double ms(int64_t rows) const { return step + row * static_cast<double>(rows); }
};

// Rows of prompts beside four others, once steps have shown how fast the machine is.
int64_t settled(const Machine& machine) {
  StepPacer pacer(512);
  pacer.took(512, machine.ms(512));
  for (int step = 0; step < 100; ++step) {
    const int64_t rows = std::min<int64_t>(pacer.prompt_rows(4) + 4, 512);
    pacer.took(rows, machine.ms(rows));
  }
  return pacer.prompt_rows(4);
}

void steps_come_to_take_what_they_may() {
  require(std::abs(Machine{50, 2}.ms(settled({50, 2}) + 4) - StepPacer::kStepMs) < 10, "250 ms a step");
  require(settled({2, 0.05}) == 508, "a fast machine takes all at once");
  require(settled({600, 20}) == 16, "prompts go on by a block on a slow one");
}

void one_slow_step_is_forgotten() {
  StepPacer pacer(512);
  pacer.took(512, 1e6);
  require(pacer.prompt_rows(4) == 16, "it is taken for what it was");
  for (int step = 0; step < 20; ++step) pacer.took(pacer.prompt_rows(4) + 4, 20);
  require(pacer.prompt_rows(4) == 508, "the next ones are faster");
}

std::unique_ptr<Sequence> sequence(int64_t id, size_t prompt) {
  auto made = std::make_unique<Sequence>();
  made->request.id = id;
  made->request.prompt.resize(prompt);
  made->tokens.resize(prompt);
  return made;
}

void long_prompts_make_room_for_next_tokens() {
  KvBlocks kv(1000, false);
  Scheduler scheduler({8, 512, 8}, kv);
  scheduler.add(sequence(1, 2000));
  std::vector<Chunk> alone = scheduler.schedule();
  require(alone.size() == 1 && alone[0].count == 512, "a prompt alone takes whole steps");
  scheduler.took(alone, 9600);
  require(scheduler.schedule()[0].count == 512, "however long those take");

  scheduler.add(sequence(2, 1));
  const std::vector<Chunk> shared = scheduler.schedule();
  require(shared.size() == 2 && shared[0].sequence->request.id == 2, "a next token comes first");
  require(shared[1].count == 16, "the prompt takes no longer than it may");
  scheduler.took({shared[0]}, 1);
  require(scheduler.schedule()[1].count == 16, "steps without a prompt say nothing of prompts");
}

void groups_take_turns_for_seats() {
  KvBlocks kv(1000, false);
  Scheduler scheduler({2, 512, 8}, kv);
  const auto add = [&](int64_t id, int64_t group) {
    auto made = sequence(id, 4);
    made->request.group = group;
    scheduler.add(std::move(made));
  };
  for (const int64_t id : {1, 2, 3, 4, 5}) add(id, 1);
  scheduler.schedule();
  add(10, 2);
  add(11, 2);
  add(20, 3);
  std::vector<int64_t> admitted = {1, 2};
  for (size_t gone = 0; gone < admitted.size(); ++gone) {
    scheduler.take_out(admitted[gone]);
    scheduler.schedule();
    if (!scheduler.running().empty() && scheduler.running().size() == 2) {
      for (const auto& running : scheduler.running()) {
        const int64_t id = running->request.id;
        if (std::find(admitted.begin(), admitted.end(), id) == admitted.end()) admitted.push_back(id);
      }
    }
  }
  require(admitted == std::vector<int64_t>({1, 2, 3, 10, 20, 4, 11, 5}),
          "nobody waits for all of another's, and each group in the order of its own");
}

// Sequences over three tokens only, so that many begin alike.
void shared_blocks_hold_what_was_kept() {
  std::mt19937 random(1);
  constexpr int64_t kBlocks = 24;
  KvBlocks kv(kBlocks, true);
  std::vector<std::vector<int32_t>> contents(kBlocks);  // what was written last
  struct Held {
    std::string root;
    std::vector<int32_t> tokens;
    BlockTable table;
    int64_t computed;
  };
  std::vector<Held> held;
  int64_t found_in_all = 0;
  for (int round = 0; round < 20'000; ++round) {
    if (held.size() < 6 && random() % 2 == 0) {
      Held next{random() % 2 ? "a" : "b", std::vector<int32_t>(random() % 80 + 1), {}, 0};
      for (size_t i = 0; i < next.tokens.size(); ++i)
        next.tokens[i] = i % 16 == 0 ? static_cast<int32_t>(random() % 3) : 7;
      next.computed = kv.find(next.root, next.tokens, next.table);
      found_in_all += next.computed;
      for (int64_t i = 0; i < next.computed / kBlockTokens; ++i) {
        std::vector<int32_t> expected(next.root.begin(), next.root.end());
        expected.insert(expected.end(), next.tokens.begin(), next.tokens.begin() + (i + 1) * kBlockTokens);
        require(contents[static_cast<size_t>(next.table.blocks[static_cast<size_t>(i)])] == expected,
                "a block that is found holds these tokens after these, of this root");
      }
      if (kv.grow(next.table, static_cast<int64_t>(next.tokens.size()))) {
        for (auto i = static_cast<size_t>(next.computed / kBlockTokens); i < next.table.blocks.size(); ++i) {
          std::vector<int32_t>& content = contents[static_cast<size_t>(next.table.blocks[i])];
          content.assign(next.root.begin(), next.root.end());
          const size_t end = std::min(next.tokens.size(), (i + 1) * kBlockTokens);
          content.insert(content.end(), next.tokens.begin(), next.tokens.begin() + static_cast<int64_t>(end));
        }
        held.push_back(std::move(next));
      } else {
        kv.give_back(next.table);
      }
    } else if (!held.empty()) {
      Held& some = held[random() % held.size()];
      some.computed = static_cast<int64_t>(some.tokens.size());
      kv.keep(some.root, some.tokens, some.computed, some.table);
      if (random() % 2 == 0) {
        kv.give_back(some.table);
        std::swap(some, held.back());
        held.pop_back();
      }
    }
    std::set<int32_t> distinct;
    for (const Held& one : held) distinct.insert(one.table.blocks.begin(), one.table.blocks.end());
    require(kv.used() == std::ssize(distinct), "what is held by several is held once");
  }
  require(found_in_all > 1000, "much is found");
}

void what_a_prompt_began_with_outlives_its_end() {
  KvBlocks kv(6, true);
  const std::vector<int32_t> one(64, 1), other(48, 2);
  const auto computed = [&](const std::vector<int32_t>& tokens) {
    BlockTable table;
    const int64_t found = kv.find("", tokens, table);
    require(kv.grow(table, std::ssize(tokens)), "there is room");
    kv.keep("", tokens, std::ssize(tokens), table);
    kv.give_back(table);
    return found;
  };
  computed(one);
  require(computed(one) == 64, "all of it is found");
  computed(other);  // takes two that contain nothing, and the last of the four
  require(computed(one) == 48, "its first blocks are still there");
}

// A sequence that moved to another revision, and then had to go, computes all anew.
void what_is_computed_anew_is_of_one_revision() {
  KvBlocks kv(6, true);
  Scheduler scheduler({8, 512, 8}, kv);
  scheduler.add(sequence(1, 16));
  auto moved = sequence(2, 32);
  std::fill(moved->tokens.begin(), moved->tokens.end(), 5);
  moved->request.prompt = moved->tokens;
  Sequence& second = *moved;
  scheduler.add(std::move(moved));
  const auto step = [&] {
    for (const Chunk& chunk : scheduler.schedule()) scheduler.computed(chunk);
  };
  step();
  second.is_mixed = true;
  second.root = "newer";
  scheduler.running()[0]->tokens.resize(80, 1);  // the older one grows until there is no room for both
  step();
  require(scheduler.preemptions() == 1, "the younger one had to go");
  scheduler.take_out(1);
  step();
  BlockTable table;
  require(kv.find("newer", second.tokens, table) == 32, "what it computed anew is of use to others");
}

}  // namespace

int main() {
  steps_come_to_take_what_they_may();
  one_slow_step_is_forgotten();
  long_prompts_make_room_for_next_tokens();
  groups_take_turns_for_seats();
  shared_blocks_hold_what_was_kept();
  what_a_prompt_began_with_outlives_its_end();
  what_is_computed_anew_is_of_one_revision();
  std::printf("7 passed\n");
  return 0;
}
