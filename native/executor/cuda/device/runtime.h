// The few calls of CUDA's runtime that the backend makes: memory, streams, events, graphs, launches.
// simt/runtime.h has the same ones for the emulated device. Failures are thrown as DeviceError.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "../api.h"
#include "dialect.h"

namespace lorikeet::cuda {

class DeviceError : public std::runtime_error {
 public:
  DeviceError(FailureKind of_kind, const std::string& message) : std::runtime_error(message), kind(of_kind) {}
  FailureKind kind;
};

}  // namespace lorikeet::cuda

#ifdef __CUDACC__

namespace lorikeet::cuda {

inline void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  const FailureKind kind = result == cudaErrorMemoryAllocation ? FailureKind::kMemory : FailureKind::kDevice;
  throw DeviceError(kind, std::string(what) + ": " + cudaGetErrorString(result));
}

// Why no device can be used; empty where one can.
inline std::string missing_device() {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result != cudaSuccess) return cudaGetErrorString(result);
  if (count == 0) return "no CUDA device";
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "compute capability");
  if (major >= 8 && major <= 10) return {};
  return "compute capability 8.x, 9.0 or 10.x is needed, the device has " + std::to_string(major) + ".x";
}
inline std::string device_name() {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties.name;
}
inline int64_t free_memory() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}
// Grids may overlap the one before: what is loaded must be code that waits (NVIDIA/cccl issue 9134).
inline bool has_dependent_launch() {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "compute capability");
  return major >= 9;
}

class DeviceMemory {
 public:
  // Zero at first.
  explicit DeviceMemory(size_t bytes) {
    check(cudaMalloc(&data_, bytes), "cudaMalloc");
    check(cudaMemset(data_, 0, bytes), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaMemset");
  }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
};

// Of the host, which copies read and write beside streams.
class PinnedMemory {
 public:
  explicit PinnedMemory(size_t bytes) { check(cudaMallocHost(&data_, bytes), "cudaMallocHost"); }
  ~PinnedMemory() { cudaFreeHost(data_); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t handle() const { return stream_; }

  void copy_in(void* device, const void* pinned, size_t bytes) const {
    check(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream_), "copy to the device");
  }
  void copy_out(void* pinned, const void* device, size_t bytes) const {
    check(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, stream_), "copy from the device");
  }
  void copy_within(void* to, const void* from, size_t bytes) const {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copy on the device");
  }
  void synchronize() const { check(cudaStreamSynchronize(stream_), "the device's work"); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(const Stream& stream) { check(cudaEventRecord(event_, stream.handle()), "cudaEventRecord"); }
  // Returns when all is done that the stream had to do at the last record().
  void wait() const { check(cudaEventSynchronize(event_), "the device's work"); }

 private:
  cudaEvent_t event_ = nullptr;
};

// Launches that were made once and are repeated, arguments included.
class Graph {
 public:
  template <typename Launches>
  Graph(const Stream& stream, Launches&& launches) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal),
          "cudaStreamBeginCapture");
    launches();
    check(cudaStreamEndCapture(stream.handle(), &graph), "cudaStreamEndCapture");
    const cudaError_t result = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(result, "cudaGraphInstantiate");
  }
  ~Graph() { cudaGraphExecDestroy(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(const Stream& stream) const {
    check(cudaGraphLaunch(graph_, stream.handle()), "cudaGraphLaunch");
  }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

struct Launch {
  dim3 grid, block;
  size_t shared;
  const Stream& stream;
  bool overlaps;  // the grid before it: the kernel calls grid_wait() before it reads what that one writes
};
template <typename Arguments>
void launch(const Launch& l, void (*kernel)(Arguments), const Arguments& arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = l.grid;
  config.blockDim = l.block;
  config.dynamicSmemBytes = l.shared;
  config.stream = l.stream.handle();
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = l.overlaps ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, arguments), "a kernel's launch");
}
// Kernels that take more than 48 KiB of shared memory must be allowed to.
template <typename Arguments>
void allow_shared(void (*kernel)(Arguments), size_t bytes) {
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

}  // namespace lorikeet::cuda

#else
#include "../simt/runtime.h"
#endif
