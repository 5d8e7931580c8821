// The fixed partition of a list of tensors that optimizer loops run over: blocks of kBlockSize elements, never crossing
// a tensor. It does not depend on the number of threads, therefore neither do results that are summed block by block.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace archer {

inline constexpr int64_t kBlockSize = 1 << 15;

struct Block {
  size_t tensor;
  int64_t begin;
  int64_t size;
};

inline std::vector<Block> partition(const std::vector<at::Tensor>& tensors) {
  std::vector<Block> blocks;
  for (size_t i = 0; i < tensors.size(); ++i) {
    for (int64_t begin = 0; begin < tensors[i].numel(); begin += kBlockSize) {
      blocks.push_back({i, begin, std::min(kBlockSize, tensors[i].numel() - begin)});
    }
  }
  return blocks;
}

}  // namespace archer
