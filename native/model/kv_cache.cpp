#include "model/kv_cache.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <string>

#include "core/error.h"

namespace archer {

KvCache::KvCache(const ModelConfig& config, at::ScalarType dtype, int64_t num_pages) {
  for (int64_t i = 0; i < config.num_layers; ++i) {
    for (auto* tensors : {&keys, &values}) {
      tensors->push_back(at::empty({num_pages, config.num_kv_heads, kKvPage, config.head_dim}, dtype));
    }
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
      const int64_t num_kv_heads = cached.size(1);
      const size_t row = cached.size(3) * cached.element_size();
      char* base = static_cast<char*>(cached.mutable_data_ptr());
      for (int64_t head = 0; head < num_kv_heads; ++head) {
        std::memcpy(base + (to * num_kv_heads + head) * kKvPage * row,
                    base + (from * num_kv_heads + head) * kKvPage * row, count * row);
      }
    }
  }
}

void write_lines(at::Tensor& cached, const void* states, Pages pages, int64_t first, int64_t count) {
  const int64_t num_kv_heads = cached.size(1);
  const size_t row = cached.size(3) * cached.element_size();
  const char* source = static_cast<const char*>(states);
  char* base = static_cast<char*>(cached.mutable_data_ptr());
  for (int64_t t = first; t < first + count; ++t) {
    char* line = base + (pages[t / kKvPage] * num_kv_heads * kKvPage + t % kKvPage) * row;
    for (int64_t head = 0; head < num_kv_heads; ++head, source += row) {
      std::memcpy(line + head * kKvPage * row, source, row);
    }
  }
}

}  // namespace archer
