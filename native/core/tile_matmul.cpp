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

constexpr int64_t kPieceElements = 1 << 19;  // 1 MiB of bfloat16: what is packed or passes by at once, half of an L2 cache
constexpr int64_t kTokensAtOnce = 1024;      // of a weight's gradient, which is read and written once for each of them

enum Buffer { kPacked, kBlocks, kScratch, kSums, kNumBuffers };

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

// Lines of `width` elements in a piece: whole blocks of 32, at least one.
int64_t lines_at_once(int64_t width) { return std::max<int64_t>(kTile, kPieceElements / width / kTile * kTile); }

// All rows of the job, in pieces.
void run(kernels::TileMatmul job) {
  const int64_t at_once = std::min(lines_at_once(job.inner), tile_blocks(job.rows) * kTile);
  uint16_t* scratch = kept_bits(kScratch, kernels::tile_matmul_scratch(job.inner));
  float* sums = kept<float>(kSums, kernels::tile_matmul_sums(at_once), at::kFloat);
  for (job.row_begin = 0; job.row_begin < job.rows; job.row_begin += at_once) {
    job.row_end = std::min(job.row_begin + at_once, job.rows);
    kernels::tile_kernels()->matmul(job, scratch, sums);
  }
}

// body(first column, number of columns), the columns of c shared out among threads and taken in pieces of packed b.
template <typename Body>
void for_columns(int64_t columns, int64_t inner, Body body) {
  const int64_t at_once = lines_at_once(inner);
  at::parallel_for(0, tile_blocks(columns), 1, [&](int64_t first, int64_t past) {
    const int64_t end = std::min(past * kTile, columns);
    for (int64_t n = first * kTile; n < end; n += at_once) body(n, std::min(at_once, end - n));
  });
}

}  // namespace

void tile_grad_input(const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK) {
  const int64_t outputs = weight_NK.size(0), inputs = weight_NK.size(1), rows = dy_RN.size(0);
  const bool rounds = dx_RK.scalar_type() == at::kBFloat16;
  float* wide = rounds ? nullptr : dx_RK.data_ptr<float>();
  uint16_t* rounded = rounds ? static_cast<uint16_t*>(dx_RK.data_ptr()) : nullptr;
  for_columns(inputs, outputs, [&](int64_t k, int64_t count) {
    uint16_t* packed = kept_bits(kPacked, tile_blocks(count) * tile_blocks(outputs) * kBlockElements);
    kernels::tile_kernels()->pack_pairs({bits(weight_NK) + k, outputs, count, inputs}, 0, tile_blocks(outputs), packed);
    run({bits(dy_RN), false, rows, outputs, 0, 0, packed, count, rounds ? nullptr : wide + k, add, rounds ? rounded + k : nullptr,
         inputs});
  });
}

void tile_grad_weight(const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK) {
  const int64_t tokens = dy_RN.size(0), outputs = dy_RN.size(1), inputs = x_RK.size(1);
  const kernels::TileKernels& tiles = *kernels::tile_kernels();
  float* grad = grad_weight_NK.data_ptr<float>();
  for (int64_t t = 0; t < tokens; t += kTokensAtOnce) {
    const int64_t count = std::min(kTokensAtOnce, tokens - t), blocks = tile_blocks(count);
    uint16_t* packed = kept_bits(kPacked, blocks * tile_blocks(inputs) * kBlockElements);
    at::parallel_for(0, blocks, 4, [&](int64_t first, int64_t past) {
      tiles.pack_pairs({bits(x_RK) + t * inputs, count, inputs, inputs}, first, past, packed);
    });
    for_columns(outputs, 2 * count, [&](int64_t n, int64_t rows) {  // half a piece: packed rows stand beside it
      uint16_t* transposed = kept_bits(kBlocks, tile_blocks(rows) * blocks * kBlockElements);
      tiles.transpose({bits(dy_RN) + t * outputs + n, count, rows, outputs}, 0, blocks, transposed);
      run({transposed, true, rows, count, 0, 0, packed, inputs, grad + n * inputs, true, nullptr, inputs});
    });
  }
}

}  // namespace archer
