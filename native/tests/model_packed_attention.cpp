// Packed attention and its gradients against float64, per instruction set, where bfloat16 takes another way in each; and the
// same bits of a sequence in another pack, with one thread or two, kept for the backward or not.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <limits>

#include "core/attention.h"
#include "kernels/cpu_isa.h"
#include "model/packed_attention.h"

#include "check.h"

using namespace archer;

namespace {

constexpr int64_t kHeads = 6, kKvHeads = 2;

AttentionPlan plan_of(const std::vector<int>& lengths) {
  PackedSequences sequences{{}, {0}};
  for (const int length : lengths) sequences.offsets.push_back(sequences.offsets.back() + length);
  return AttentionPlan(sequences);
}

std::vector<at::Tensor> inputs(int64_t tokens, int64_t head_dim) {
  const auto random = [&](int64_t heads) { return at::randn({tokens, heads * head_dim}, at::kDouble).to(at::kBFloat16); };
  return {random(kHeads), random(kKvHeads), random(kKvHeads), random(kHeads)};  // q, k, v and the gradient of the result
}

at::Tensor reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int>& lengths,
                     int64_t head_dim) {
  std::vector<at::Tensor> parts;
  int64_t offset = 0;
  for (const int length : lengths) {
    const auto part = [&](const at::Tensor& x, int64_t heads) {
      return x.narrow(0, offset, length).view({length, heads, head_dim}).repeat_interleave(kHeads / heads, 1).transpose(0, 1);
    };
    const at::Tensor hidden = at::ones({length, length}, at::kBool).triu(1);
    const at::Tensor scores = at::matmul(part(q, kHeads), part(k, kKvHeads).transpose(1, 2)) / std::sqrt(static_cast<double>(head_dim));
    const at::Tensor weights = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
    parts.push_back(at::matmul(weights, part(v, kKvHeads)).transpose(0, 1).reshape({length, kHeads * head_dim}));
    offset += length;
  }
  return at::cat(parts);
}

// The result and the gradients of q, k and v.
std::vector<at::Tensor> expected_of(std::vector<at::Tensor> x, const std::vector<int>& lengths, int64_t head_dim) {
  for (at::Tensor& tensor : x) tensor = tensor.to(at::kDouble).detach().clone();
  for (int i = 0; i < 3; ++i) x[i].requires_grad_(true);
  const at::Tensor out = reference(x[0], x[1], x[2], lengths, head_dim);
  std::vector<at::Tensor> results = torch::autograd::grad({out}, {x[0], x[1], x[2]}, {x[3]});
  results.insert(results.begin(), out.detach());
  return results;
}

std::vector<at::Tensor> with_gradients(std::vector<at::Tensor> x, at::ScalarType dtype, const std::vector<int>& lengths,
                                       int64_t head_dim) {
  for (at::Tensor& tensor : x) tensor = tensor.to(dtype);
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const AttentionPlan plan = plan_of(lengths);
  const at::Tensor out = at::empty_like(x[0]), lse = at::empty({x[0].size(0), kHeads}, wide);
  packed_attention_into(x[0], x[1], x[2], plan, head_dim, nullptr, out, lse);
  const at::Tensor dq = at::full_like(x[0], NAN, wide), dk = at::full_like(x[1], NAN, wide), dv = at::full_like(x[2], NAN);
  packed_attention_backward(x[3], x[0], x[1], x[2], out, lse, plan, head_dim, nullptr, dq, dk, dv);
  return {out, dq, dk, dv};
}

void against_float64(const char* isa, int64_t head_dim) {
  const std::vector<int> lengths = {7, 130, 1, 64, 65, 120};
  const std::vector<at::Tensor> x = inputs(387, head_dim);
  const std::vector<at::Tensor> expected = expected_of(x, lengths, head_dim);
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 2e-6}, {at::kBFloat16, 8e-3}}) {
    const std::vector<at::Tensor> got = with_gradients(x, dtype, lengths, head_dim);
    std::printf("%s, D = %d, %s:", isa, static_cast<int>(head_dim), c10::toString(dtype));
    for (size_t i = 0; i < got.size(); ++i) {
      const double error = ((got[i].to(at::kDouble) - expected[i]).norm() / expected[i].norm()).item<double>();
      std::printf(" %.2g", error);
      CHECK_NEAR(error, 0, tolerance);
    }
    std::printf("\n");
  }
}

at::Tensor attention_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int>& lengths) {
  const at::Tensor out = at::empty_like(q);
  packed_attention_into(q, k, v, plan_of(lengths), 64, nullptr, out, {});
  return out;
}

void same_bits() {
  if (!attention_is_row_exact(at::kBFloat16)) return;
  const std::vector<int> lengths = {7, 200, 1, 64};
  const std::vector<at::Tensor> x = inputs(272, 64);
  const at::Tensor all = attention_of(x[0], x[1], x[2], lengths);
  int64_t offset = 0;
  for (const int length : lengths) {
    const auto part = [&](int i) { return x[i].narrow(0, offset, length).contiguous(); };
    CHECK(at::equal(attention_of(part(0), part(1), part(2), {length}), all.narrow(0, offset, length)));
    offset += length;
  }
  at::set_num_threads(1);
  CHECK(at::equal(attention_of(x[0], x[1], x[2], lengths), all));
  at::set_num_threads(2);
  const std::vector<at::Tensor> whole = with_gradients(x, at::kBFloat16, lengths, 64);
  CHECK(at::equal(whole[0], all));
  at::set_num_threads(1);
  const std::vector<at::Tensor> alone = with_gradients(x, at::kBFloat16, lengths, 64);
  for (size_t i = 0; i < whole.size(); ++i) CHECK(at::equal(alone[i], whole[i]));
  at::set_num_threads(2);
}

}  // namespace

int main() {
  at::manual_seed(1);
  for (const CpuIsa isa : {CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    for (const int64_t head_dim : {64, 10}) against_float64(cpu_isa_name(isa), head_dim);
    same_bits();
  }
  return check::finish();
}
