// One model on one device. One thread calls step, choose, logits and poison; one other may call the rest.
#pragma once

#include <memory>

#include "uploads.h"

namespace lorikeet::cuda {

class Device {
 public:
  // Takes all memory. Throws kMemory with what is needed and what is there.
  static std::unique_ptr<Device> open(const OpenRequest& request);
  virtual ~Device() = default;

  virtual Opened describe() const = 0;
  virtual Uploads& uploads() = 0;
  virtual void copy_weight(WeightKind kind, int32_t layer, int64_t offset, int64_t bytes) = 0;
  virtual void copy_page(int64_t offset, int64_t bytes) = 0;
  virtual void copy_slot(int32_t slot, const StagedPage* pages, const int32_t* ranks,
                         const float* scales) = 0;

  virtual void step(const StepRequest& request) = 0;
  virtual void choose(const ChooseRequest& request, Chosen* chosen) = 0;
  virtual void logits(int32_t i, float* to) = 0;
  virtual void poison(int32_t slot) = 0;
  // Seconds.
  virtual double measure(Measured what, int32_t rows, int32_t count) = 0;
};

}  // namespace lorikeet::cuda
