#include "mapped_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "error.h"

namespace lorikeet {

MappedMemory MappedMemory::file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw EngineError::invalid("files", "Cannot open " + path + ": " + std::strerror(errno));
  struct stat status{};
  MappedMemory memory;
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
    memory.bytes_ = static_cast<size_t>(status.st_size);
    memory.data_ = ::mmap(nullptr, memory.bytes_, PROT_READ, MAP_SHARED, fd, 0);
  } else {
    memory.data_ = MAP_FAILED;
  }
  ::close(fd);
  if (memory.data_ == MAP_FAILED) {
    memory.data_ = nullptr;
    throw EngineError::invalid("files", "Expected a non-empty regular file at " + path);
  }
  return memory;
}

MappedMemory MappedMemory::anonymous(size_t bytes) {
  MappedMemory memory;
  void* data =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    throw EngineError::invalid("options", "Cannot reserve " + std::to_string(bytes) +
                                              " bytes of address space: " + std::strerror(errno));
  }
  ::madvise(data, bytes, MADV_HUGEPAGE);  // where the system has no huge pages, small ones do
  memory.data_ = data;
  memory.bytes_ = bytes;
  return memory;
}

void MappedMemory::let_go() const { ::madvise(data_, bytes_, MADV_DONTNEED); }

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace lorikeet
