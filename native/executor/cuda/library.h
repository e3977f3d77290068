// The library of the device's part, opened where it is: beside the addon, or where LORIKEET_CUDA_LIBRARY
// says.
#pragma once

#include <string>

#include "../error.h"
#include "api.h"

namespace lorikeet::cuda {

// Opened once and kept. Throws unsupported_backend with the reason where it cannot be opened or is another
// version.
const Api& library();

// Throws what the failure says: no_capacity for memory, engine_failed for a device that failed.
void check(int result, const Failure& failure);

}  // namespace lorikeet::cuda
