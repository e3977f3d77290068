// JavaScript values to the engine's structs. Everything is checked here; what is wrong throws
// invalid_argument with the field's name, the expectation and the actual value.
#pragma once

#include <napi.h>

#include "engine/messages.h"
#include "executor/executor.h"

namespace lorikeet {

struct OpenOptions {
  std::string backend;
  ExecutorOptions executor;
  EngineOptions engine;
};

OpenOptions read_open_options(const Napi::Value& value);
GenerateRequest read_generate_request(const Napi::Value& value);
// The span points into the array: the caller keeps it referenced.
StageRequest read_stage_request(const Napi::CallbackInfo& info);
std::string read_name(const Napi::Value& value, const char* field);
bool read_boolean(const Napi::Value& value, const char* field);
int64_t read_id(const Napi::Value& value);

Napi::Value error_object(Napi::Env env, const EngineError& error);

}  // namespace lorikeet
