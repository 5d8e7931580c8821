#include "generate/page_pool.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "core/error.h"

namespace archer {

PagePool::PagePool(int64_t num_pages) : num_holders_(static_cast<size_t>(num_pages), 0), free_(static_cast<size_t>(num_pages)) {
  std::iota(free_.rbegin(), free_.rend(), 0);
}

int32_t PagePool::take() {
  require(!free_.empty(), kInternal, "no page is free");
  const int32_t page = free_.back();
  free_.pop_back();
  num_holders_[static_cast<size_t>(page)] = 1;
  most_used_ = std::max(most_used_, num_used());
  return page;
}

void PagePool::share(int32_t page) {
  require(num_holders_.at(static_cast<size_t>(page)) > 0, kInternal, "page " + std::to_string(page) + " is free");
  ++num_holders_[static_cast<size_t>(page)];
}

void PagePool::release(int32_t page) {
  int32_t& holders = num_holders_.at(static_cast<size_t>(page));
  require(holders > 0, kInternal, "page " + std::to_string(page) + " is free already");
  if (--holders == 0) free_.push_back(page);
}

}  // namespace archer
