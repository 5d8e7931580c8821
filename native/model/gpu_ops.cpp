#include "model/gpu_ops.h"

#include <algorithm>
#include <numeric>

#include "core/gpu_linear.h"

namespace archer {
namespace {

void copy_rows(Gpu& gpu, const at::Tensor& from, const at::Tensor& to, const std::vector<int32_t>& rows, bool scatters) {
  const at::Tensor rows_on_gpu = upload(from.device(), rows);
  CopyRowsParams copy;
  copy.from = from.const_data_ptr();
  copy.to = to.mutable_data_ptr();
  copy.row_bytes = copy.from_pitch = copy.to_pitch = from.size(1) * from.element_size();
  (scatters ? copy.to_rows : copy.from_rows) = pointer<int32_t>(rows_on_gpu);
  copy.num_rows = static_cast<int32_t>(rows.size());
  gpu.head->copy_rows(copy);
}

template <typename Rotate>
Rotate rotation_of(const at::Tensor& x, const Rotation& rotation) {
  Rotate params{};
  params.cosine = bf16(rotation.cosine);
  params.sine = bf16(rotation.sine);
  params.positions = pointer<int32_t>(rotation.positions_T);
  params.rows = x.size(0);
  params.head_dim = static_cast<int32_t>(2 * rotation.cosine.size(1));
  params.heads = static_cast<int32_t>(x.size(1) / params.head_dim);
  return params;
}

}  // namespace

void gpu_rms_norm(Gpu& gpu, const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& out,
                  const at::Tensor& rstd) {
  const int64_t columns = weight.numel();
  gpu.layers->run(RmsNormRows{bf16(x), bf16(weight), bf16(out), pointer<float>(rstd), x.numel() / columns,
                              static_cast<int32_t>(columns), static_cast<float>(eps)});
}

void gpu_rms_norm_backward(Gpu& gpu, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                           const at::Tensor& wide_dy, const at::Tensor& wide_sum, const at::Tensor& rounded,
                           const at::Tensor& grad_weight) {
  const int64_t columns = weight.numel(), rows = x.numel() / columns;
  if (grad_weight.defined()) {  // first: `rounded` may be x
    ColumnSums sums{};
    sums.wide_dy = pointer<float>(wide_dy);
    sums.x = bf16(x);
    sums.rstd = pointer<float>(rstd);
    sums.rows = rows;
    gpu_add_column_sums(gpu, sums, grad_weight);
  }
  gpu.layers->run(RmsNormRowsBackward{bf16(x), bf16(weight), pointer<float>(rstd), pointer<float>(wide_dy),
                                      pointer<float>(wide_sum), bf16(rounded), rows, static_cast<int32_t>(columns)});
}

void gpu_swiglu(Gpu& gpu, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& out) {
  gpu.layers->run(GatedProduct{bf16(gate), bf16(up), bf16(out), out.numel()});
}

void gpu_swiglu_backward(Gpu& gpu, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy, const at::Tensor& y) {
  gpu.layers->run(GatedProductBackward{bf16(gate), bf16(up), bf16(dy), bf16(y), y.numel()});
}

void gpu_rotate(Gpu& gpu, const at::Tensor& x, const Rotation& rotation, const at::Tensor& out) {
  auto params = rotation_of<RotateRows>(x, rotation);
  params.x = bf16(x);
  params.out = bf16(out);
  gpu.layers->run(params);
}

void gpu_rotate_backward(Gpu& gpu, const at::Tensor& wide_grad, const Rotation& rotation, const at::Tensor& rounded) {
  auto params = rotation_of<RotateRowsBackward>(rounded, rotation);
  params.grad = pointer<float>(wide_grad);
  params.rounded = bf16(rounded);
  gpu.layers->run(params);
}

void gpu_gather(Gpu& gpu, const at::Tensor& rows, const std::vector<int32_t>& ids, const at::Tensor& out) {
  copy_rows(gpu, rows, out, ids, false);
}

void gpu_scatter(Gpu& gpu, const at::Tensor& rows, const std::vector<int32_t>& ids, const at::Tensor& out) {
  copy_rows(gpu, rows, out, ids, true);
}

void gpu_embedding_backward(Gpu& gpu, const at::Tensor& ids_T, const at::Tensor& wide_dx_TH, const at::Tensor& grad_VH) {
  const int64_t* of_token = ids_T.const_data_ptr<int64_t>();
  std::vector<int32_t> tokens(static_cast<size_t>(ids_T.numel())), ids, begins;
  std::iota(tokens.begin(), tokens.end(), 0);
  std::ranges::stable_sort(tokens, {}, [&](int32_t t) { return of_token[t]; });
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(of_token[tokens[i]]);
    if (!ids.empty() && ids.back() == id) continue;
    ids.push_back(id);
    begins.push_back(static_cast<int32_t>(i));
  }
  begins.push_back(static_cast<int32_t>(tokens.size()));
  const at::Device device = grad_VH.device();
  const at::Tensor ids_there = upload(device, ids), begins_there = upload(device, begins), tokens_there = upload(device, tokens);
  gpu.layers->run(EmbeddingRowsBackward{pointer<float>(wide_dx_TH), pointer<int32_t>(ids_there), pointer<int32_t>(begins_there),
                                        pointer<int32_t>(tokens_there), pointer<float>(grad_VH), static_cast<int32_t>(ids.size()),
                                        static_cast<int32_t>(grad_VH.size(1))});
}

}  // namespace archer
