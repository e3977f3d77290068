// Memory for the bodies of adapters. New pages cost ten times the copy into them (84 MB: 68 ms and 7), so
// what a collected body had serves the next one.
#pragma once

#include <napi.h>

namespace lorikeet {

// allocate_body(bytes) → ArrayBuffer of that length, its content undefined. Nobody but the collector gives
// its memory back, so no body is written while anything can still read it. Throws a RangeError where there is
// no memory.
Napi::Value allocate_body(const Napi::CallbackInfo& info);

}  // namespace lorikeet
