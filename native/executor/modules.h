// The one table of the modules that an adapter may adapt.
#pragma once

#include <array>
#include <cstdint>

#include "model.h"

namespace lorikeet {

// In the order of kModuleTable and of LORA_MODULES (native/types.ts).
enum class Module : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown, kEmbed, kHead };

// Modules that share their input and their pages.
enum class Group : uint8_t { kQkv, kO, kGateUp, kDown, kEmbed, kHead };
constexpr int kGroups = 6;

// The embedding and the head stand beside the layers: in tables by layer their place is that of layer 0.
constexpr bool is_in_layers(Group group) { return group != Group::kEmbed && group != Group::kHead; }
constexpr int64_t layers_of(Group group, int64_t layers) { return is_in_layers(group) ? layers : 1; }

struct ModuleInfo {
  const char* name;  // in adapters' tensor names
  Group group;
  int64_t (*in)(const ModelConfig&);
  int64_t (*out)(const ModelConfig&);
};

namespace sizes {
inline int64_t hidden(const ModelConfig& c) { return c.hidden; }
inline int64_t q_dim(const ModelConfig& c) { return c.q_dim(); }
inline int64_t kv_dim(const ModelConfig& c) { return c.kv_dim(); }
inline int64_t ffn(const ModelConfig& c) { return c.ffn; }
inline int64_t vocab(const ModelConfig& c) { return c.vocab; }
}  // namespace sizes

constexpr std::array kModuleTable = {
    ModuleInfo{"q_proj", Group::kQkv, sizes::hidden, sizes::q_dim},
    ModuleInfo{"k_proj", Group::kQkv, sizes::hidden, sizes::kv_dim},
    ModuleInfo{"v_proj", Group::kQkv, sizes::hidden, sizes::kv_dim},
    ModuleInfo{"o_proj", Group::kO, sizes::q_dim, sizes::hidden},
    ModuleInfo{"gate_proj", Group::kGateUp, sizes::hidden, sizes::ffn},
    ModuleInfo{"up_proj", Group::kGateUp, sizes::hidden, sizes::ffn},
    ModuleInfo{"down_proj", Group::kDown, sizes::ffn, sizes::hidden},
    ModuleInfo{"embed_tokens", Group::kEmbed, sizes::vocab, sizes::hidden},
    ModuleInfo{"lm_head", Group::kHead, sizes::hidden, sizes::vocab},
};
constexpr int kModules = static_cast<int>(kModuleTable.size());

constexpr const ModuleInfo& info_of(Module module) { return kModuleTable[static_cast<size_t>(module)]; }
inline int64_t module_in(const ModelConfig& c, Module module) { return info_of(module).in(c); }
inline int64_t module_out(const ModelConfig& c, Module module) { return info_of(module).out(c); }
constexpr Group group_of(Module module) { return info_of(module).group; }

// Index into tables of [layers, kModules] and [layers, kGroups].
constexpr size_t place_of(int64_t layer, Module module) {
  return static_cast<size_t>(layer * kModules + static_cast<int64_t>(module));
}
constexpr size_t place_of(int64_t layer, Group group) {
  return static_cast<size_t>(layer * kGroups + static_cast<int64_t>(group));
}

}  // namespace lorikeet
