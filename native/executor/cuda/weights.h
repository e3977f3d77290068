// The base model's weights on their way to the device: bf16 matrices, float32 vectors.
#pragma once

#include <functional>

#include "../model_files.h"
#include "api.h"

namespace lorikeet::cuda {

// True where embedding and head are one tensor.
bool has_tied_head(const ModelDescriptor& descriptor);

// `progress`, if any, is called with bytes done and in all.
void upload_weights(const ModelDescriptor& descriptor, const ModelFiles& files, const Api& api, void* device,
                    const std::function<void(int64_t, int64_t)>& progress);

// Rows [begin, end) of a matrix as bf16, `cols` of each, zeros beyond its own. True where all values came
// through exactly.
bool write_bf16(std::byte* to, const Matrix& from, int64_t begin, int64_t end, int64_t cols);

}  // namespace lorikeet::cuda
