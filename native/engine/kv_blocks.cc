#include "kv_blocks.h"

#include <functional>

namespace lorikeet {

KvBlocks::KvBlocks(int64_t blocks, bool shares) : shares_(shares), blocks_(static_cast<size_t>(blocks)) {
  for (int64_t block = 0; block < blocks; ++block) link(static_cast<int32_t>(block), last_);
}

size_t KvBlocks::HashPrefix::operator()(const Prefix& prefix) const {
  return std::hash<std::string>()(prefix.content) ^ (prefix.parent * 0x9e3779b97f4a7c15u);
}

KvBlocks::Prefix KvBlocks::prefix_of(std::string_view root, uint64_t parent,
                                     std::span<const int32_t> tokens) {
  Prefix prefix{parent, {}};
  const std::span<const std::byte> bytes = std::as_bytes(tokens);
  prefix.content.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (parent == 0) prefix.content += root;
  return prefix;
}

int64_t KvBlocks::find(std::string_view root, std::span<const int32_t> tokens, BlockTable& table) {
  for (size_t begin = 0; begin + kBlockTokens <= tokens.size(); begin += kBlockTokens) {
    const auto found = known_.find(prefix_of(root, table.last_kept, tokens.subspan(begin, kBlockTokens)));
    if (found == known_.end()) break;
    hold(found->second);
    table.blocks.push_back(found->second);
    table.last_kept = at(found->second).name;
    ++table.kept;
  }
  return static_cast<int64_t>(table.kept) * kBlockTokens;
}

void KvBlocks::keep(std::string_view root, std::span<const int32_t> tokens, int64_t computed,
                    BlockTable& table) {
  if (!shares_) return;
  while (static_cast<int64_t>(table.kept + 1) * kBlockTokens <= computed) {
    const int32_t block = table.blocks[table.kept];
    const auto [known, is_new] = known_.emplace(
        prefix_of(root, table.last_kept, tokens.subspan(table.kept * kBlockTokens, kBlockTokens)), block);
    if (is_new) {
      at(block).name = ++names_;
      at(block).prefix = &known->first;
    }
    table.last_kept = at(known->second).name;
    ++table.kept;
  }
}

bool KvBlocks::grow(BlockTable& table, int64_t tokens) {
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(table.blocks.size());
  if (missing > available()) return false;
  for (int64_t i = 0; i < missing; ++i) {
    const int32_t block = first_;
    make_unknown(block);
    hold(block);
    table.blocks.push_back(block);
  }
  return true;
}

void KvBlocks::give_back(BlockTable& table) {
  while (!table.blocks.empty()) {
    let_go(table.blocks.back());
    table.blocks.pop_back();
  }
  table = {};
}

void KvBlocks::forget() {
  for (size_t block = 0; block < blocks_.size(); ++block) make_unknown(static_cast<int32_t>(block));
}

void KvBlocks::hold(int32_t block) {
  if (at(block).holders++ == 0) unlink(block);
}

void KvBlocks::let_go(int32_t block) {
  if (--at(block).holders > 0) return;
  link(block, at(block).name == 0 ? -1 : last_);
}

void KvBlocks::make_unknown(int32_t block) {
  if (at(block).name == 0) return;
  known_.erase(known_.find(*at(block).prefix));
  at(block).name = 0;
  at(block).prefix = nullptr;
}

// After `after`; first of all where that is -1.
void KvBlocks::link(int32_t block, int32_t after) {
  const int32_t next = after < 0 ? first_ : at(after).after;
  at(block).before = after;
  at(block).after = next;
  (after < 0 ? first_ : at(after).after) = block;
  (next < 0 ? last_ : at(next).before) = block;
  ++available_;
}

void KvBlocks::unlink(int32_t block) {
  const auto [before, after] = std::pair(at(block).before, at(block).after);
  (before < 0 ? first_ : at(before).after) = after;
  (after < 0 ? last_ : at(after).before) = before;
  --available_;
}

}  // namespace lorikeet
