// The pages of the cache that a sequence has its keys and values in, as numbers. Without torch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_page.h"

namespace archer {

using kernels::kKvPage;

// The pages of a sequence: position t is line t % kKvPage of page t / kKvPage.
using PageTable = std::vector<int32_t>;
using Pages = std::span<const int32_t>;

// The number of pages that hold `length` positions.
inline int64_t pages_for(int64_t length) { return (length + kKvPage - 1) / kKvPage; }

// Where a prefill writes the keys and values of a sequence: its pages, but for the positions before `first`, which are in
// the cache already (pages that it shares).
struct PrefillTarget {
  Pages pages;
  int64_t first = 0;
};

}  // namespace archer
