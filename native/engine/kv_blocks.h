// The KV cache's blocks, of kBlockTokens tokens each: who holds them, and which tokens full ones hold, so
// that sequences with the same beginning share it. Their memory is the executor's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/layout.h"

namespace lorikeet {

// A sequence's blocks, in order of its tokens. Each is held once.
struct BlockTable {
  std::vector<int32_t> blocks;
  size_t kept = 0;         // the first so many can be found by others, or equal ones can
  uint64_t last_kept = 0;  // names the tokens up to there; 0: none
};

class KvBlocks {
 public:
  // Where not `shares`, nothing is found again.
  KvBlocks(int64_t blocks, bool shares);

  bool shares() const { return shares_; }
  int64_t total() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t used() const { return total() - available(); }
  // Held by nobody. What some of them contain can be found until they are taken for something else.
  int64_t available() const { return available_; }

  // Fills an empty table with the longest known beginning of `tokens`, whole blocks only, and returns its
  // tokens. `root` says what else keys and values depend on.
  int64_t find(std::string_view root, std::span<const int32_t> tokens, BlockTable& table);
  // Makes the full blocks among the first `computed` tokens known.
  void keep(std::string_view root, std::span<const int32_t> tokens, int64_t computed, BlockTable& table);
  // Grows the table to hold `tokens`; false, with nothing taken, where too few blocks are available. Takes
  // those that contain nothing first, then those that were held the longest time ago.
  bool grow(BlockTable& table, int64_t tokens);
  // Ends the table, whose last blocks will be taken before its first.
  void give_back(BlockTable& table);
  // Finds nothing of what is known now ever again.
  void forget();

 private:
  // Tokens up to the end of a block: those up to the one before it (0: none, and then the root), and its own.
  struct Prefix {
    uint64_t parent = 0;
    std::string content;
    bool operator==(const Prefix&) const = default;
  };
  struct HashPrefix {
    size_t operator()(const Prefix& prefix) const;
  };
  struct Block {
    int64_t holders = 0;
    uint64_t name = 0;                // of the prefix that it ends; 0: not known
    const Prefix* prefix = nullptr;   // the key in known_
    int32_t before = -1, after = -1;  // in the order of being taken, while available
  };

  static Prefix prefix_of(std::string_view root, uint64_t parent, std::span<const int32_t> tokens);
  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  void hold(int32_t block);
  void let_go(int32_t block);
  void make_unknown(int32_t block);
  void link(int32_t block, int32_t after);
  void unlink(int32_t block);

  bool shares_;
  std::vector<Block> blocks_;
  std::unordered_map<Prefix, int32_t, HashPrefix> known_;
  int32_t first_ = -1, last_ = -1;  // of the available ones: taken next, taken last
  int64_t available_ = 0;
  uint64_t names_ = 0;
};

}  // namespace lorikeet
