#include "model/kv_cache.h"

#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "core/error.h"

namespace archer {

namespace {

// Addresses alone: the system gives memory, in huge pages where it can, as it is first written. In 4 KiB pages
// attention would wait for address translation too: it reads two of them for every head and page of the cache.
at::Tensor reserve(int64_t bytes) {
  void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(memory != MAP_FAILED, kOom,
          std::to_string(bytes) + " bytes of keys and values could not be allocated: lower max_slots or set kv_budget_bytes");
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return at::from_blob(memory, {bytes}, [bytes](void* begin) { munmap(begin, static_cast<size_t>(bytes)); },
                       at::TensorOptions().dtype(at::kByte));
}

struct Lines {
  explicit Lines(at::Tensor& cached)
      : base(static_cast<char*>(cached.mutable_data_ptr())),
        bytes(static_cast<size_t>(cached.size(3) * cached.element_size())),
        page_bytes(cached.stride(0) * cached.element_size()) {}

  char* at(int64_t page, int64_t head, int64_t line) const {
    return base + page * page_bytes + (head * kKvPage + line) * static_cast<int64_t>(bytes);
  }

  char* base;
  size_t bytes;  // of a line
  int64_t page_bytes;
};

}  // namespace

KvCache::KvCache(const ModelConfig& config, at::ScalarType dtype, int64_t num_pages) {
  const at::Tensor memory = reserve(std::max<int64_t>(1, num_pages) * page_bytes(config, dtype)).view(dtype);
  const at::Tensor pages = memory.view({-1, config.num_layers, 2, config.num_kv_heads, kKvPage, config.head_dim});
  for (int64_t i = 0; i < config.num_layers; ++i) {
    keys.push_back(pages.select(1, i).select(1, 0));
    values.push_back(pages.select(1, i).select(1, 1));
  }
}

int64_t KvCache::page_bytes(const ModelConfig& config, at::ScalarType dtype) {
  return 2 * config.num_layers * config.num_kv_heads * kKvPage * config.head_dim *
         static_cast<int64_t>(c10::elementSize(dtype));
}

void KvCache::check(Pages pages, int64_t length) const {
  require(pages_for(length) <= static_cast<int64_t>(pages.size()), kShape,
          std::to_string(length) + " positions do not fit " + std::to_string(pages.size()) + " pages of " +
              std::to_string(kKvPage));
  for (const int32_t page : pages) {
    if (page >= 0 && page < num_pages()) continue;
    throw ArcherError(kShape, "page " + std::to_string(page) + " is outside a cache of " + std::to_string(num_pages()));
  }
}

void KvCache::copy_page(int32_t from, int32_t to, int64_t count) {
  for (auto* tensors : {&keys, &values}) {
    for (at::Tensor& cached : *tensors) {
      const Lines lines(cached);
      for (int64_t head = 0; head < cached.size(1); ++head) {
        std::memcpy(lines.at(to, head, 0), lines.at(from, head, 0), static_cast<size_t>(count) * lines.bytes);
      }
    }
  }
}

void write_lines(at::Tensor& cached, const void* states, Pages pages, int64_t first, int64_t count) {
  const Lines lines(cached);
  const char* source = static_cast<const char*>(states);
  for (int64_t t = first; t < first + count; ++t) {
    for (int64_t head = 0; head < cached.size(1); ++head, source += lines.bytes) {
      std::memcpy(lines.at(pages[t / kKvPage], head, t % kKvPage), source, lines.bytes);
    }
  }
}

}  // namespace archer
