// Sharing out the outputs among threads; see linear.h.
#include "core/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "core/batch_invariance.h"
#include "core/tile_matmul.h"
#include "kernels/row_linear.h"
#include "kernels/tile_head.h"

namespace archer {
namespace {

using kernels::kBlockElements;
using kernels::kTile;
using kernels::tile_blocks;

constexpr int64_t kRowsOfTiles = 96;            // up to which packing them is less work than packing the weight
constexpr int64_t kGrainElements = 1 << 15;     // of the weight: fewer are not worth a second thread
constexpr int64_t kFewRows = 16;                // up to which our own kernel is faster than BLAS, two and a half times at 8
constexpr int64_t kRowBytes = 1 << 20;          // of rows as they lie, likewise beside the weight in the L2 cache

// Per calling thread, kept: packing is a small part of a small product, mapping memory is not.
uint16_t* kept_buffer(int which, int64_t elements) {
  thread_local at::Tensor buffers[2];
  at::Tensor& buffer = buffers[which];
  if (!buffer.defined() || buffer.numel() < elements) {
    buffer = at::Tensor();
    buffer = at::empty({elements}, at::TensorOptions().dtype(at::kBFloat16));
  }
  return static_cast<uint16_t*>(buffer.data_ptr());
}

const uint16_t* bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }

// Few rows: the weight passes by as it lies, and the rows are packed.
void multiply_few(const at::Tensor& x, const at::Tensor& weight_NK, const at::Tensor& bias_N, const at::Tensor& out_RN) {
  const kernels::TileKernels& tiles = *kernels::tile_kernels();
  const int64_t inputs = weight_NK.size(1), outputs = weight_NK.size(0), rows = x.numel() / inputs;
  const int64_t scratch_elements = kTile * tile_blocks(inputs) * kTile;
  const bool rounds = out_RN.scalar_type() == at::kBFloat16;
  uint16_t* scratch = kept_buffer(0, at::get_num_threads() * scratch_elements);
  uint16_t* packed = kept_buffer(1, tile_blocks(rows) * tile_blocks(inputs) * kBlockElements);
  tiles.pack_hidden({bits(x), nullptr, rows, inputs}, packed);
  const int64_t grain = std::max<int64_t>(1, kGrainElements / (kTile * inputs * tile_blocks(rows)));
  at::parallel_for(0, tile_blocks(outputs), grain, [&](int64_t first, int64_t past) {
    tiles.linear({bits(weight_NK), outputs, inputs, rows, first * kTile, std::min(past * kTile, outputs), packed,
                  bias_N.defined() ? bits(bias_N) : nullptr, rounds ? static_cast<uint16_t*>(out_RN.data_ptr()) : nullptr,
                  rounds ? nullptr : out_RN.data_ptr<float>()},
                 scratch + at::get_thread_num() * scratch_elements);
  });
}

void multiply(const at::Tensor& x, const at::Tensor& weight_NK, const at::Tensor& bias_N, const at::Tensor& out_RN) {
  (x.numel() <= kRowsOfTiles * x.size(-1) ? multiply_few : tile_product)(x, weight_NK, bias_N, out_RN);
}

bool tiles_fit(const at::Tensor& x, const at::Tensor& weight_NK) {
  return x.scalar_type() == at::kBFloat16 && kernels::tile_kernels() && x.is_contiguous() && weight_NK.is_contiguous();
}

bool row_by_row(const at::Tensor& x_RK) {
  return BatchInvariantScope::active() || x_RK.numel() <= kFewRows * x_RK.size(-1);
}

// bfloat16 as float32; contiguous.
at::Tensor widened(const at::Tensor& x) {
  return x.to(x.scalar_type() == at::kBFloat16 ? at::kFloat : x.scalar_type()).contiguous();
}

// x_RK and out of the accumulator's type.
template <typename T>
void multiply_rows(const at::Tensor& x, const at::Tensor& weight_NK, const at::Tensor& bias_N, at::Tensor& out) {
  using A = kernels::Accumulator<T>;
  const int64_t inputs = weight_NK.size(1), outputs = weight_NK.size(0), rows = x.numel() / inputs;
  const A* xp = x.const_data_ptr<A>();
  const T* weight = static_cast<const T*>(weight_NK.const_data_ptr());
  const T* bias = bias_N.defined() ? static_cast<const T*>(bias_N.const_data_ptr()) : nullptr;
  A* to = out.data_ptr<A>();
  const int64_t at_once = std::max<int64_t>(kTile, kRowBytes / (inputs * static_cast<int64_t>(sizeof(A))));
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t count = std::min(at_once, rows - row);
    const int64_t grain = std::max<int64_t>(1, kGrainElements / (inputs * count));
    at::parallel_for(0, outputs, grain, [&](int64_t begin, int64_t end) {
      kernels::row_linear<T>({xp + row * inputs, weight, bias, to + row * outputs, count, inputs, outputs, begin, end});
    });
  }
}

void multiply_rows(const at::Tensor& x, const at::Tensor& weight_NK, const at::Tensor& bias_N, at::Tensor& out) {
  switch (weight_NK.scalar_type()) {
    case at::kDouble: return multiply_rows<double>(x, weight_NK, bias_N, out);
    case at::kBFloat16: return multiply_rows<uint16_t>(x, weight_NK, bias_N, out);
    default: return multiply_rows<float>(x, weight_NK, bias_N, out);
  }
}

}  // namespace

bool linear_is_row_exact(at::ScalarType dtype) {
  return BatchInvariantScope::active() || (dtype == at::kBFloat16 && kernels::tile_kernels());
}

at::Tensor linear_product(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& bias_N) {
  auto sizes = x_RK.sizes().vec();
  sizes.back() = weight_NK.size(0);
  at::Tensor out = at::empty(sizes, x_RK.options());
  linear_product_into(x_RK, weight_NK, bias_N, out);
  return out;
}

void linear_product_into(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& bias_N, const at::Tensor& out_RN) {
  if (tiles_fit(x_RK, weight_NK)) return multiply(x_RK, weight_NK, bias_N, out_RN);
  if (row_by_row(x_RK)) {
    const at::Tensor x = widened(x_RK);
    at::Tensor out = x.scalar_type() == out_RN.scalar_type() ? out_RN : at::empty(out_RN.sizes(), x.options());
    multiply_rows(x, weight_NK, bias_N, out);
    if (!out.is_same(out_RN)) out_RN.copy_(out);
    return;
  }
  const at::Tensor x = x_RK.reshape({-1, weight_NK.size(1)});
  at::Tensor out = out_RN.view({-1, weight_NK.size(0)});
  if (bias_N.defined()) {
    at::addmm_out(out, bias_N, x, weight_NK.t());
  } else {
    at::mm_out(out, x, weight_NK.t());
  }
}

bool own_logits(const at::Tensor& x_RK, const at::Tensor& weight_NK, at::Tensor& out_RN) {
  if (tiles_fit(x_RK, weight_NK)) {
    multiply(x_RK, weight_NK, {}, out_RN);
    return true;
  }
  if (!row_by_row(x_RK)) return false;
  multiply_rows(widened(x_RK), weight_NK, {}, out_RN);
  return true;
}

}  // namespace archer
