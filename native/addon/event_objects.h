// The engine's structs to JavaScript values.
#pragma once

#include <napi.h>

#include "engine/messages.h"

namespace lorikeet {

Napi::Object event_object(Napi::Env env, const Event& event);
Napi::Object snapshot_object(Napi::Env env, const Snapshot& snapshot);
Napi::Object info_object(Napi::Env env, const EngineInfo& info);
Napi::Object report_object(Napi::Env env, const StageReport& report);
Napi::Object switched_object(Napi::Env env, const Switched& switched);

}  // namespace lorikeet
