// The addon's exports: NativeAddon of native/types.ts.
#include <napi.h>

#include "engine_handle.h"

namespace lorikeet {
namespace {

// Per environment, so that workers and reloads never share a constructor.
struct AddonData {
  Napi::FunctionReference engine;
};

Napi::Value create_engine(const Napi::CallbackInfo& info) {
  const auto* data = info.Env().GetInstanceData<AddonData>();
  return data->engine.New({info[0], info[1]});
}

Napi::Value backends(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Array list = Napi::Array::New(env);
  const auto add = [&](const char* name, Backend backend) {
    const bool available = ops_of(backend) != nullptr;
    const Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", name);
    entry.Set("available", available);
    entry.Set("reason", available ? "" : "not in this processor or build");
    list.Set(list.Length(), entry);
  };
  add("reference", Backend::kReference);
  add("avx2", Backend::kAvx2);
  add("avx512", Backend::kAvx512);
  return list;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData{Napi::Persistent(EngineHandle::define(env))};
  env.SetInstanceData(data);  // deleted with the environment
  exports.Set("createEngine", Napi::Function::New(env, create_engine, "createEngine"));
  exports.Set("backends", Napi::Function::New(env, backends, "backends"));
  return exports;
}

}  // namespace
}  // namespace lorikeet

static Napi::Object init_module(Napi::Env env, Napi::Object exports) { return lorikeet::init(env, exports); }
NODE_API_MODULE(lorikeet, init_module)
