// The keys and values of generation, in pages that sequences may share. Which page is whose the caller decides
// (generate/page_pool.h): here are the tensors and what is written into them.
//   keys, values: per layer [pages, K, kKvPage, D] in the compute dtype; a page number means the same page in every layer. All layers'
//   share of a page lies in one piece, so that memory is taken page by page.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/pages.h"

namespace archer {

struct KvCache {
  // The memory is taken from the system as pages are first written. ARCHER_E_OOM where even the addresses are refused.
  KvCache(const ModelConfig& config, at::ScalarType dtype, int64_t num_pages);

  std::vector<at::Tensor> keys;
  std::vector<at::Tensor> values;

  int64_t num_pages() const { return keys[0].size(0); }
  // ARCHER_E_SHAPE unless the cache has these pages and they hold `length` positions.
  void check(Pages pages, int64_t length) const;
  // Copies the first `count` positions of a page, in every layer.
  void copy_page(int32_t from, int32_t to, int64_t count);

  // Of one page, in every layer.
  static int64_t page_bytes(const ModelConfig& config, at::ScalarType dtype);
};

// states [count, K * D], the keys or values of one layer -> positions first .. first + count - 1 of a sequence.
void write_lines(at::Tensor& cached, const void* states, Pages pages, int64_t first, int64_t count);

}  // namespace archer
