// The addon's exports: NativeAddon of native/types.ts.
#include <napi.h>

#include "body_memory.h"
#include "engine_handle.h"
#include "executor/backends.h"
#include "executor/cpu/cpu_executor.h"

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

Napi::Value list_backends(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Array list = Napi::Array::New(env);
  for (const Backend& backend : backends()) {
    const std::string missing = backend.missing();
    const Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", backend.name);
    entry.Set("available", missing.empty());
    entry.Set("reason", missing);
    list.Set(list.Length(), entry);
  }
  return list;
}

// The C++ side of the names that native/types.ts lists.
Napi::Value names(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Array errors = Napi::Array::New(env), modules = Napi::Array::New(env);
  for (const char* name : kErrorNames) errors.Set(errors.Length(), name);
  for (const ModuleInfo& module : kModuleTable) modules.Set(modules.Length(), module.name);
  const Napi::Array instruction_sets = Napi::Array::New(env);
  for (const std::string& name : cpu::instruction_set_names())
    instruction_sets.Set(instruction_sets.Length(), name);
  const Napi::Object object = Napi::Object::New(env);
  object.Set("errors", errors);
  object.Set("modules", modules);
  object.Set("instructionSets", instruction_sets);
  return object;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData{Napi::Persistent(EngineHandle::define(env))};
  env.SetInstanceData(data);  // deleted with the environment
  exports.Set("createEngine", Napi::Function::New(env, create_engine, "createEngine"));
  exports.Set("allocateBody", Napi::Function::New(env, allocate_body, "allocateBody"));
  exports.Set("backends", Napi::Function::New(env, list_backends, "backends"));
  exports.Set("names", Napi::Function::New(env, names, "names"));
  return exports;
}

}  // namespace
}  // namespace lorikeet

static Napi::Object init_module(Napi::Env env, Napi::Object exports) { return lorikeet::init(env, exports); }
NODE_API_MODULE(lorikeet, init_module)
