// What the library exports: the table, and exceptions as failures.
#include <cstdio>

#include "device.h"

namespace lorikeet::cuda {
namespace {

template <typename Fn>
int guarded(Failure* failure, Fn&& fn) {
  try {
    fn();
    return 0;
  } catch (const DeviceError& error) {
    failure->kind = error.kind;
    std::snprintf(failure->message, sizeof failure->message, "%s", error.what());
  } catch (const std::exception& error) {
    failure->kind = FailureKind::kDevice;
    std::snprintf(failure->message, sizeof failure->message, "%s", error.what());
  }
  return -1;
}

Device& of(void* device) { return *static_cast<Device*>(device); }

constexpr Api kApi = {
    .version = kApiVersion,
    .probe =
        [](Failure* failure) {
          return guarded(failure, [] {
            if (const std::string why = missing_device(); !why.empty())
              throw DeviceError(FailureKind::kDevice, why);
          });
        },
    .open =
        [](const OpenRequest* request, Opened* opened, Failure* failure) {
          return guarded(failure, [&] {
            std::unique_ptr<Device> device = Device::open(*request);
            *opened = device->describe();
            opened->device = device.release();
          });
        },
    .close = [](void* device) { delete static_cast<Device*>(device); },
    .reserve =
        [](void* device, int64_t* bytes, void** memory, Failure* failure) {
          return guarded(failure, [&] { *memory = of(device).uploads().reserve(*bytes); });
        },
    .copy_weight =
        [](void* device, WeightKind kind, int32_t layer, int64_t offset, int64_t bytes, Failure* failure) {
          return guarded(failure, [&] { of(device).copy_weight(kind, layer, offset, bytes); });
        },
    .copy_page =
        [](void* device, int64_t offset, int64_t bytes, Failure* failure) {
          return guarded(failure, [&] { of(device).copy_page(offset, bytes); });
        },
    .copy_slot =
        [](void* device, int32_t slot, const StagedPage* pages, const int32_t* ranks, const float* scales,
           Failure* failure) {
          return guarded(failure, [&] { of(device).copy_slot(slot, pages, ranks, scales); });
        },
    .finish = [](void* device,
                 Failure* failure) { return guarded(failure, [&] { of(device).uploads().finish(); }); },
    .step = [](void* device, const StepRequest* request,
               Failure* failure) { return guarded(failure, [&] { of(device).step(*request); }); },
    .choose = [](void* device, const ChooseRequest* request, Chosen* chosen,
                 Failure* failure) { return guarded(failure, [&] { of(device).choose(*request, chosen); }); },
    .logits = [](void* device, int32_t i, float* to,
                 Failure* failure) { return guarded(failure, [&] { of(device).logits(i, to); }); },
    .poison = [](void* device, int32_t slot,
                 Failure* failure) { return guarded(failure, [&] { of(device).poison(slot); }); },
    .measure =
        [](void* device, Measured what, int32_t rows, int32_t count, double* seconds, Failure* failure) {
          return guarded(failure, [&] { *seconds = of(device).measure(what, rows, count); });
        },
};

}  // namespace
}  // namespace lorikeet::cuda

extern "C" __attribute__((visibility("default"))) const lorikeet::cuda::Api* lorikeet_cuda_api() {
  return &lorikeet::cuda::kApi;
}
