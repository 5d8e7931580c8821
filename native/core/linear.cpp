// Sharing out the outputs among threads; see linear.h.
#include "core/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "core/batch_invariance.h"
#include "core/gpu_linear.h"
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

// A layer, or two of which one gates the other, in tiles.
struct TiledLayer {
  at::Tensor weight_NK, up_weight_NK;
  kernels::TileEpilogue to;
  int64_t outputs() const { return weight_NK.size(0); }
};

// The rows are packed once; the outputs of all layers, which lie end to end, are shared out among threads.
void multiply_few(const at::Tensor& x, const std::vector<TiledLayer>& layers) {
  const kernels::TileKernels& tiles = *kernels::tile_kernels();
  const int64_t inputs = x.size(-1), rows = x.numel() / inputs, scratch_elements = kernels::tile_matmul_scratch(inputs);
  uint16_t* scratch = kept_buffer(0, at::get_num_threads() * scratch_elements);
  uint16_t* packed = kept_buffer(1, tile_blocks(rows) * tile_blocks(inputs) * kBlockElements);
  tiles.pack_hidden({bits(x), nullptr, rows, inputs}, packed);
  int64_t blocks = 0;
  for (const TiledLayer& layer : layers) blocks += tile_blocks(layer.outputs());
  const int64_t grain = std::max<int64_t>(1, kGrainElements / (kTile * inputs * tile_blocks(rows)));
  at::parallel_for(0, blocks, grain, [&](int64_t first, int64_t past) {
    for (const TiledLayer& layer : layers) {
      const int64_t count = tile_blocks(layer.outputs()), begin = std::max<int64_t>(first, 0), end = std::min(past, count);
      if (begin < end) {
        tiles.linear({bits(layer.weight_NK), layer.up_weight_NK.defined() ? bits(layer.up_weight_NK) : nullptr, layer.outputs(),
                      inputs, rows, begin * kTile, std::min(end * kTile, layer.outputs()), packed, layer.to},
                     scratch + at::get_thread_num() * scratch_elements);
      }
      first -= count;
      past -= count;
    }
  });
}

void multiply(const at::Tensor& x, const std::vector<TiledLayer>& layers) {
  if (x.numel() <= kRowsOfTiles * x.size(-1)) return multiply_few(x, layers);
  for (const TiledLayer& layer : layers) tile_product(x, layer.weight_NK, layer.up_weight_NK, layer.to);
}

bool tiles_fit(const at::Tensor& x, const at::Tensor& weight_NK) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && kernels::tile_kernels() && x.is_contiguous() && weight_NK.is_contiguous();
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

// Rows one by one or ATen.
void multiply_without_tiles(const at::Tensor& x_RK, const Projection& to) {
  at::Tensor out_RN = to.out_RN.view({-1, to.weight_NK.size(0)});
  const at::Tensor sums = to.residual_RN.defined() ? at::empty_like(out_RN) : out_RN;
  if (row_by_row(x_RK)) {
    const at::Tensor x = widened(x_RK);
    at::Tensor product = x.scalar_type() == sums.scalar_type() ? sums : at::empty(sums.sizes(), x.options());
    multiply_rows(x, to.weight_NK, to.bias_N, product);
    if (!product.is_same(sums)) sums.copy_(product);
  } else {
    const at::Tensor x = x_RK.reshape({-1, to.weight_NK.size(1)});
    at::Tensor product = sums;
    if (to.bias_N.defined()) {
      at::addmm_out(product, to.bias_N, x, to.weight_NK.t());
    } else {
      at::mm_out(product, x, to.weight_NK.t());
    }
  }
  if (to.residual_RN.defined()) at::add_out(out_RN, to.residual_RN.view(out_RN.sizes()), sums);
}

uint16_t* bits_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<uint16_t*>(tensor.data_ptr()) : nullptr;
}

kernels::TileEpilogue epilogue(const at::Tensor& weight_NK) {
  kernels::TileEpilogue to;
  to.stride = weight_NK.size(0);
  return to;
}

void without_adapters(const at::Tensor& x_RK, const std::vector<Projection>& projections) {
  std::vector<TiledLayer> tiled;
  for (const Projection& one : projections) {
    if (!tiles_fit(x_RK, one.weight_NK)) {
      multiply_without_tiles(x_RK, one);
      continue;
    }
    kernels::TileEpilogue to = epilogue(one.weight_NK);
    to.bias_N = bits_or_null(one.bias_N);
    to.residual_RN = bits_or_null(one.residual_RN);
    to.out_RN = bits_or_null(one.out_RN);
    tiled.push_back({one.weight_NK, {}, to});
  }
  if (!tiled.empty()) multiply(x_RK, tiled);
}

}  // namespace

bool linear_is_row_exact(at::ScalarType dtype) {
  return BatchInvariantScope::active() || (dtype == at::kBFloat16 && kernels::tile_kernels());
}

at::Tensor linear_product(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& bias_N) {
  auto sizes = x_RK.sizes().vec();
  sizes.back() = weight_NK.size(0);
  at::Tensor out = at::empty(sizes, x_RK.options());
  linear_products(x_RK, {{weight_NK, bias_N, out, {}}});
  return out;
}

void linear_products(const at::Tensor& x_RK, const std::vector<Projection>& projections) {
  if (Gpu* gpu = gpu_of(x_RK)) return gpu_linear_products(*gpu, x_RK, projections);
  const auto is_adapted = [](const Projection& one) { return one.adapter.defined(); };
  if (std::ranges::none_of(projections, is_adapted)) return without_adapters(x_RK, projections);
  std::vector<Projection> products = projections;  // then x Aᵀ of each adapter: the same packed rows
  for (const Projection& one : projections) {
    if (is_adapted(one)) products.push_back({one.adapter.a_rK, {}, at::empty({one.out_RN.size(0), one.adapter.rank()}, x_RK.options()), {}});
  }
  without_adapters(x_RK, products);
  size_t next = projections.size();
  for (const Projection& one : projections) {
    if (!is_adapted(one)) continue;
    // s is a factor here, where little is rounded once more; alone, a product rounds alike in ATen's vectors and their tails.
    const at::Tensor u_Rr = products[next++].out_RN.mul_(one.adapter.scale);
    without_adapters(u_Rr, {{one.adapter.b_Nr, {}, one.out_RN, one.out_RN}});
  }
}

bool own_gated_product(const at::Tensor& x_RK, const Projection& gate, const Projection& up, const at::Tensor& out_RN) {
  if (!tiles_fit(x_RK, gate.weight_NK) || !tiles_fit(x_RK, up.weight_NK)) return false;
  if (gate.adapter.defined() || up.adapter.defined()) return false;
  kernels::TileEpilogue to = epilogue(gate.weight_NK);
  to.bias_N = bits_or_null(gate.bias_N);
  to.up_bias_N = bits_or_null(up.bias_N);
  to.gate_RN = bits_or_null(gate.out_RN);
  to.up_RN = bits_or_null(up.out_RN);
  to.out_RN = bits_or_null(out_RN);
  multiply(x_RK, {{gate.weight_NK, up.weight_NK, to}});
  return true;
}

bool own_logits(const at::Tensor& x_RK, const at::Tensor& weight_NK, at::Tensor& out_RN) {
  if (tiles_fit(x_RK, weight_NK)) {
    kernels::TileEpilogue to = epilogue(weight_NK);
    to.wide_out_RN = out_RN.data_ptr<float>();
    multiply(x_RK, {{weight_NK, {}, to}});
    return true;
  }
  if (!row_by_row(x_RK)) return false;
  multiply_rows(widened(x_RK), weight_NK, {}, out_RN);
  return true;
}

}  // namespace archer
