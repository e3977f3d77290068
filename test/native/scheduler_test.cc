// How long prompts share steps with sequences that wait for their next token, and who gets a seat.
#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

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
  KvBlocks kv(1000);
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
  KvBlocks kv(1000);
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

}  // namespace

int main() {
  steps_come_to_take_what_they_may();
  one_slow_step_is_forgotten();
  long_prompts_make_room_for_next_tokens();
  groups_take_turns_for_seats();
  std::printf("4 passed\n");
  return 0;
}
