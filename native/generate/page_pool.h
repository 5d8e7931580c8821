// Which pages of a KV cache are in use, and by how many sequences: a page that several share is freed by the last. Integers
// alone, so that it serves a cache wherever that lies.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace archer {

class PagePool {
 public:
  explicit PagePool(int64_t num_pages);

  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_used() const { return static_cast<int64_t>(num_holders_.size() - free_.size()); }
  int64_t most_used() const { return most_used_; }

  // A page with one holder; there must be a free one. Those freed last come first, then the lowest: memory that was used
  // before is used again.
  int32_t take();
  // One more holder.
  void share(int32_t page);
  bool is_shared(int32_t page) const { return num_holders_[static_cast<size_t>(page)] > 1; }
  // One holder less; without any the page is free.
  void release(int32_t page);

 private:
  std::vector<int32_t> num_holders_;  // [pages], 0: free
  std::vector<int32_t> free_;         // the next one to be taken is the last
  int64_t most_used_ = 0;
};

}  // namespace archer
