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

// The same epilogue for the columns from n on.
kernels::TileEpilogue from_column(const kernels::TileEpilogue& to, int64_t n) {
  const auto moved = [n](auto* pointer) { return pointer ? pointer + n : nullptr; };
  return {moved(to.bias_N), moved(to.up_bias_N), moved(to.residual_RN), moved(to.out_RN), moved(to.gate_RN), moved(to.up_RN),
          moved(to.wide_out_RN), to.stride};
}

// Piece by piece of the columns of c, b is packed by all threads, then all rows of c pass by.
// pack(first column, number of columns, packed, first block, past block) packs blocks of 32 columns of b or, by_inner, of 32 rows.
template <typename Pack>
void multiply(const kernels::TileMatmul& whole, bool by_inner, Pack pack) {
  const int64_t weights = whole.gated ? 2 : 1, at_once = columns_at_once(whole.columns, weights * whole.inner);
  for (int64_t n = 0; n < whole.columns; n += at_once) {
    kernels::TileMatmul job = whole;
    job.columns = std::min(at_once, whole.columns - n);
    job.to = from_column(whole.to, n);
    uint16_t* packed = kept_bits(kPacked, weights * tile_blocks(job.columns) * tile_blocks(job.inner) * kBlockElements);
    job.b = packed;
    at::parallel_for(0, tile_blocks(by_inner ? job.inner : job.columns), 4,
                     [&](int64_t first, int64_t past) { pack(n, job.columns, packed, first, past); });
    at::parallel_for(0, tile_blocks(job.rows), 1, [&](int64_t first, int64_t past) {
      kernels::TileMatmul share = job;
      share.row_begin = first * kTile;
      share.row_end = std::min(past * kTile, job.rows);
      kernels::tile_kernels()->matmul(share, kept_bits(kScratch, kernels::tile_matmul_scratch(job.inner)),
                                      kept<float>(kSums, kernels::tile_matmul_sums(job.columns, job.gated), at::kFloat));
    });
  }
}

}  // namespace

void tile_product(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& up_weight_NK, const kernels::TileEpilogue& to) {
  const int64_t outputs = weight_NK.size(0), inputs = weight_NK.size(1), rows = x_RK.numel() / inputs;
  const bool gated = up_weight_NK.defined();
  const int64_t block_elements = tile_blocks(inputs) * kBlockElements;
  const auto pack = [&](int64_t n, int64_t count, uint16_t* packed, int64_t first, int64_t past) {
    const auto pack_block = [&](const at::Tensor& weight, int64_t block, int64_t index) {
      const int64_t from = block * kTile;
      kernels::tile_kernels()->pack_hidden({bits(weight) + (n + from) * inputs, nullptr, std::min(kTile, count - from), inputs},
                                           packed + index * block_elements);
    };
    for (int64_t block = first; block < past; ++block) {
      pack_block(weight_NK, block, gated ? 2 * block : block);
      if (gated) pack_block(up_weight_NK, block, 2 * block + 1);
    }
  };
  multiply({bits(x_RK), false, rows, inputs, nullptr, gated, outputs, false, to}, false, pack);
}

void tile_grad_input(const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK) {
  const int64_t outputs = weight_NK.size(0), inputs = weight_NK.size(1), rows = dy_RN.size(0);
  kernels::TileEpilogue to;
  to.stride = inputs;
  if (dx_RK.scalar_type() == at::kBFloat16) to.out_RN = static_cast<uint16_t*>(dx_RK.data_ptr());
  else to.wide_out_RN = dx_RK.data_ptr<float>();
  multiply({bits(dy_RN), false, rows, outputs, nullptr, false, inputs, add, to}, true,
           [&](int64_t k, int64_t count, uint16_t* packed, int64_t first, int64_t past) {
             kernels::tile_kernels()->pack_pairs({bits(weight_NK) + k, outputs, count, inputs}, first, past, packed);
           });
}

void tile_grad_weight(const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK) {
  const int64_t tokens = dy_RN.size(0), outputs = dy_RN.size(1), inputs = x_RK.size(1);
  const kernels::TileKernels& tiles = *kernels::tile_kernels();
  kernels::TileEpilogue to;
  to.wide_out_RN = grad_weight_NK.data_ptr<float>();
  to.stride = inputs;
  for (int64_t t = 0; t < tokens; t += kTokensAtOnce) {
    const int64_t count = std::min(kTokensAtOnce, tokens - t), blocks = tile_blocks(count);
    uint16_t* transposed = kept_bits(kTransposed, tile_blocks(outputs) * blocks * kBlockElements);
    at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t past) {
      tiles.transpose({bits(dy_RN) + t * outputs, count, outputs, outputs}, first, past, transposed);
    });
    multiply({transposed, true, outputs, count, nullptr, false, inputs, true, to}, true,
             [&](int64_t k, int64_t columns, uint16_t* packed, int64_t first, int64_t past) {
               tiles.pack_pairs({bits(x_RK) + t * inputs + k, count, columns, inputs}, first, past, packed);
             });
  }
}

}  // namespace archer
