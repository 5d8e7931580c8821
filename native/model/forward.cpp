// The packed forward: hidden states of sequences laid end to end. Every linear layer sees all T tokens at once; only
// attention knows where a sequence ends.
//   x [T, H] the residual stream; q [T, heads * D]; k, v [T, kv_heads * D]
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <numeric>

#include "core/attention.h"
#include "core/profile.h"
#include "model/ops.h"
#include "model/packed_attention.h"
#include "model/transformer.h"

namespace archer {
namespace {

void check_offsets(const PackedSequences& sequences) {
  const std::vector<int32_t>& offsets = sequences.offsets;
  require(offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == sequences.num_tokens(), kShape,
          "offsets must run from 0 to the number of tokens, " + std::to_string(sequences.num_tokens()));
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    require(offsets[i] < offsets[i + 1], kShape, "sequence " + std::to_string(i) + " is empty");
  }
}

void check_parents(const PackedSequences& sequences) {
  const std::vector<int32_t>& parents = sequences.parents;
  require(parents.empty() || parents.size() + 1 == sequences.offsets.size(), kShape, "parents needs one entry per sequence");
  int32_t last = -1;
  for (size_t i = 0; i < parents.size(); ++i) {
    const int32_t parent = parents[i];
    if (parent < 0) continue;
    require(parent < static_cast<int32_t>(i) && parents[parent] < 0, kShape,
            "sequence " + std::to_string(i) + " continues " + std::to_string(parent) + ", which must stand before it and continue nothing");
    require(parent >= last && (parent > last || parents[i - 1] == parent), kShape,
            "the sequences that continue " + std::to_string(parent) + " must stand together, in the order of what they continue");
    last = parent;
  }
}

int64_t longest(const PackedSequences& sequences) {
  int64_t length = 0;
  for (int64_t i = 0; i < sequences.num_sequences(); ++i) {
    length = std::max(length, sequences.first_position(i) + sequences.length(i));
  }
  return length;
}

at::Tensor positions_of(const PackedSequences& sequences) {
  at::Tensor positions_T = at::empty({sequences.num_tokens()}, at::kInt);
  int32_t* target = positions_T.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < sequences.num_sequences(); ++i) {
    const int32_t begin = sequences.offsets[i];
    std::iota(target + begin, target + sequences.offsets[i + 1], static_cast<int32_t>(sequences.first_position(i)));
  }
  return positions_T;
}

// states [T, K * D] of the packed sequences into their pages.
void fill_cache(const at::Tensor& states, const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N,
                at::Tensor& cached) {
  const size_t token = states.size(1) * states.element_size();
  const char* source = static_cast<const char*>(states.const_data_ptr());
  at::parallel_for(0, sequences.num_sequences(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto [pages, first] = targets_N[i];
      const int64_t length = sequences.offsets[i + 1] - sequences.offsets[i];
      write_lines(cached, source + (sequences.offsets[i] + first) * token, pages, first, length - first);
    }
  });
}

}  // namespace

at::Tensor ids_tensor(const std::vector<int32_t>& ids) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(ids.size())}, at::kLong);
  std::copy(ids.begin(), ids.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

Rotation Transformer::rotation_of(const PackedSequences& sequences) const {
  check_offsets(sequences);
  check_parents(sequences);
  check_ids(sequences.ids);
  rope_.reserve(longest(sequences));
  return {rope_.cosine(), rope_.sine(), positions_of(sequences).to(device_)};
}

at::Tensor Transformer::forward(const PackedSequences& sequences, const JobControl* control,
                                const Destination* destination) const {
  const at::NoGradGuard no_grad;
  const Rotation rotation = rotation_of(sequences);
  const std::vector<at::Tensor> w = weights();
  const int64_t tokens = sequences.num_tokens(), head_dim = config_.head_dim;
  const int64_t q_size = config_.num_heads * head_dim, kv_size = config_.num_kv_heads * head_dim;
  const auto buffer = [&](int64_t columns) { return at::empty({tokens, columns}, at::TensorOptions(compute_dtype_).device(device_)); };
  const AttentionPlan plan(sequences);
  const double eps = config_.rms_norm_eps;

  const at::Tensor x = buffer(config_.hidden_size), y = buffer(config_.hidden_size);
  embedding_into(w[embedding_], ids_tensor(sequences.ids), x);
  const at::Tensor q = buffer(q_size), k = buffer(kv_size), v = buffer(kv_size), mixed = buffer(q_size);
  const at::Tensor inner = buffer(config_.intermediate_size);
  // Without tiles, gate and up would be allocated layer by layer: an allocator keeps several times of what is freed in that way.
  const bool tiles = device_.is_cpu() && attention_is_row_exact(compute_dtype_);
  const at::Tensor gate = tiles ? at::Tensor() : buffer(config_.intermediate_size);
  const at::Tensor up = tiles ? at::Tensor() : buffer(config_.intermediate_size);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (control) control->check();
    const ProfileSpan span("layer", static_cast<int64_t>(i));
    const Layer& layer = layers_[i];
    rms_norm_into(x, w[layer.input_norm], eps, y, {});
    linear_products(y, {projection(layer.q, layer.q_bias, q), projection(layer.k, layer.k_bias, k),
                        projection(layer.v, layer.v_bias, v)});
    if (config_.qk_norm) {
      rms_norm_into(q, w[layer.q_norm], eps, q, {});
      rms_norm_into(k, w[layer.k_norm], eps, k, {});
    }
    rotate_into(q, rotation, q);
    rotate_into(k, rotation, k);
    if (destination) {
      fill_cache(k, sequences, destination->targets_N, destination->cache.keys[i]);
      fill_cache(v, sequences, destination->targets_N, destination->cache.values[i]);
    }
    packed_attention_into(q, k, v, plan, head_dim, control, mixed, {});
    linear_products(mixed, {projection(layer.o, layer.o_bias, x, x)});
    rms_norm_into(x, w[layer.post_norm], eps, y, {});
    gated_product_into(y, projection(layer.gate, layer.gate_bias, gate), projection(layer.up, layer.up_bias, up), inner);
    linear_products(inner, {projection(layer.down, layer.down_bias, x, x)});
  }
  return rms_norm(x, w[final_norm_], eps);
}

at::Tensor Transformer::hidden_states(const PackedSequences& sequences, const JobControl* control) const {
  const ProfileSpan span("forward");
  return forward(sequences, control, nullptr);
}

int64_t Transformer::forward_bytes(int64_t tokens) const {
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const int64_t q = config_.num_heads * config_.head_dim, kv = 2 * config_.num_kv_heads * config_.head_dim;
  const int64_t buffers = 2 * hidden + 2 * q + kv + (attention_is_row_exact(compute_dtype_) && adapters().empty() ? 1 : 3) * inner;  // those of forward()
  // Beside them: attention's copies, or the hidden states at the end.
  const int64_t beside = std::max(attention_copies(compute_dtype_, q, kv).forward, hidden);
  return tokens * (buffers + beside) * static_cast<int64_t>(c10::elementSize(compute_dtype_));
}

at::Tensor Transformer::prefill(const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N,
                                KvCache& cache, const JobControl* control) const {
  check_offsets(sequences);
  require(static_cast<int64_t>(targets_N.size()) == sequences.num_sequences(), kShape,
          "prefill needs one page table per sequence");
  for (size_t i = 0; i < targets_N.size(); ++i) {
    cache.check(targets_N[i].pages, sequences.offsets[i + 1] - sequences.offsets[i]);
  }
  const ProfileSpan span("prefill");
  const Destination destination{targets_N, cache};
  const at::Tensor hidden_TH = forward(sequences, control, &destination);
  std::vector<int32_t> last;
  for (size_t i = 1; i < sequences.offsets.size(); ++i) last.push_back(sequences.offsets[i] - 1);
  return hidden_TH.index_select(0, ids_tensor(last));
}

}  // namespace archer
