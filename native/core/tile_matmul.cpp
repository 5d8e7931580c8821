#include "core/tile_matmul.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "kernels/tile_head.h"

namespace archer {
namespace {

using kernels::kBlockElements;
using kernels::kTile;
using kernels::tile_blocks;

constexpr int64_t kPieceElements = 1 << 19;  // 1 MiB of packed bfloat16, half of an L2 cache
constexpr int64_t kTokensAtOnce = 1024;      // of a weight's gradient, which is read and written once for each of them

enum Buffer { kPacked, kTransposed, kScratch, kSums, kNumBuffers };

// Per thread, kept: mapping memory anew costs more than packing into it.
template <typename T>
T* kept(Buffer which, int64_t elements, at::ScalarType dtype) {
  thread_local at::Tensor buffers[kNumBuffers];
  at::Tensor& buffer = buffers[which];
  if (!buffer.defined() || buffer.numel() < elements) {
    buffer = at::Tensor();
    buffer = at::empty({elements}, at::TensorOptions().dtype(dtype));
  }
  return static_cast<T*>(buffer.data_ptr());
}
uint16_t* kept_bits(Buffer which, int64_t elements) { return kept<uint16_t>(which, elements, at::kBFloat16); }

const uint16_t* bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }

// Whole blocks of columns of c, of about one size, for which b fits a piece.
int64_t columns_at_once(int64_t columns, int64_t inner) {
  const int64_t fit = std::max<int64_t>(1, kPieceElements / (tile_blocks(inner) * kBlockElements));
  const int64_t pieces = (tile_blocks(columns) + fit - 1) / fit;
  return (tile_blocks(columns) + pieces - 1) / pieces * kTile;
}

// The blocks of 32 rows of c from `first` to `past`.
void multiply_rows(kernels::TileMatmul job, int64_t first, int64_t past) {
  job.row_begin = first * kTile;
  job.row_end = std::min(past * kTile, job.rows);
  kernels::tile_kernels()->matmul(job, kept_bits(kScratch, kernels::tile_matmul_scratch(job.inner)),
                                  kept<float>(kSums, kernels::tile_matmul_sums(job.columns), at::kFloat));
}

// c = a b for a as it lies: piece by piece of its columns, b is packed by all threads, then all rows of c pass by.
// pack(first column, number, packed, first block, past block) packs blocks of 32 columns or, by_inner, of 32 rows of b.
template <typename Pack>
void multiply(kernels::TileMatmul job, bool by_inner, Pack pack) {
  const int64_t columns = job.columns, at_once = columns_at_once(columns, job.inner);
  const kernels::TileMatmul whole = job;
  for (int64_t n = 0; n < columns; n += at_once) {
    job.columns = std::min(at_once, columns - n);
    uint16_t* packed = kept_bits(kPacked, tile_blocks(job.columns) * tile_blocks(job.inner) * kBlockElements);
    at::parallel_for(0, tile_blocks(by_inner ? job.inner : job.columns), 4,
                     [&](int64_t first, int64_t past) { pack(n, job.columns, packed, first, past); });
    job.b = packed;
    if (job.wide) job.wide = whole.wide + n;
    if (job.rounded) job.rounded = whole.rounded + n;
    if (job.bias) job.bias = whole.bias + n;
    at::parallel_for(0, tile_blocks(job.rows), 1, [&](int64_t first, int64_t past) { multiply_rows(job, first, past); });
  }
}

}  // namespace

void tile_product(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& bias_N, const at::Tensor& out_RN) {
  const int64_t outputs = weight_NK.size(0), inputs = weight_NK.size(1), rows = x_RK.numel() / inputs;
  const bool rounds = out_RN.scalar_type() == at::kBFloat16;
  const auto pack = [&](int64_t n, int64_t count, uint16_t* packed, int64_t first, int64_t past) {
    const int64_t from = first * kTile, to = std::min(past * kTile, count);
    kernels::tile_kernels()->pack_hidden({bits(weight_NK) + (n + from) * inputs, nullptr, to - from, inputs},
                                         packed + from * tile_blocks(inputs) * kTile);
  };
  multiply({bits(x_RK), false, rows, inputs, 0, 0, nullptr, outputs, rounds ? nullptr : out_RN.data_ptr<float>(), false,
            rounds ? static_cast<uint16_t*>(out_RN.data_ptr()) : nullptr, bias_N.defined() ? bits(bias_N) : nullptr, outputs},
           false, pack);
}

void tile_grad_input(const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK) {
  const int64_t outputs = weight_NK.size(0), inputs = weight_NK.size(1), rows = dy_RN.size(0);
  const bool rounds = dx_RK.scalar_type() == at::kBFloat16;
  const auto pack = [&](int64_t k, int64_t count, uint16_t* packed, int64_t first, int64_t past) {
    kernels::tile_kernels()->pack_pairs({bits(weight_NK) + k, outputs, count, inputs}, first, past, packed);
  };
  multiply({bits(dy_RN), false, rows, outputs, 0, 0, nullptr, inputs, rounds ? nullptr : dx_RK.data_ptr<float>(), add,
            rounds ? static_cast<uint16_t*>(dx_RK.data_ptr()) : nullptr, nullptr, inputs},
           true, pack);
}

void tile_grad_weight(const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK) {
  const int64_t tokens = dy_RN.size(0), outputs = dy_RN.size(1), inputs = x_RK.size(1);
  const kernels::TileKernels& tiles = *kernels::tile_kernels();
  for (int64_t t = 0; t < tokens; t += kTokensAtOnce) {
    const int64_t count = std::min(kTokensAtOnce, tokens - t), blocks = tile_blocks(count);
    uint16_t* transposed = kept_bits(kTransposed, tile_blocks(outputs) * blocks * kBlockElements);
    at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t past) {
      tiles.transpose({bits(dy_RN) + t * outputs, count, outputs, outputs}, first, past, transposed);
    });
    const auto pack = [&](int64_t k, int64_t columns, uint16_t* packed, int64_t first, int64_t past) {
      tiles.pack_pairs({bits(x_RK) + t * inputs + k, count, columns, inputs}, first, past, packed);
    };
    multiply({transposed, true, outputs, count, 0, 0, nullptr, inputs, grad_weight_NK.data_ptr<float>(), true, nullptr, nullptr,
              inputs},
             true, pack);
  }
}

}  // namespace archer
