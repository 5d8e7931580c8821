// The small kernels of a decode step, written once for nvcc and for the emulation: include it after a header that
// defines the primitives of namespace archer::gpu. Each thread owns 16-byte vectors from load to store.
#pragma once
#include "kernels/decode_ops.h"
#include "kernels/gpu_rows.h"

namespace archer::gpu {

ARCHER_DEVICE void load_8(const uint16_t* from, float (&values)[8]) { unpack(load_16(from), values); }

// values = bf16(values + bias), where there is a bias
ARCHER_DEVICE void add_bias(float (&values)[8], const uint16_t* bias) {
  if (bias == nullptr) return;
  float shift[8];
  load_8(bias, shift);
  ARCHER_UNROLL
  for (int i = 0; i < 8; ++i) values[i] = round_bf16(values[i] + shift[i]);
}

// Sum over the block, the same bits in every thread.
template <int kThreads>
ARCHER_DEVICE float sum_over_block(float value, float* warps) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  if (thread_rank() % 32 == 0) warps[thread_rank() / 32] = value;
  block_barrier();
  float sum = 0.0f;
  for (int w = 0; w < kThreads / 32; ++w) sum += warps[w];
  return sum;
}

// One block per row.
template <int kThreads>
ARCHER_DEVICE void norm_rows(const NormRowsParams& p) {
  const int row = block_rank();
  const int64_t base = static_cast<int64_t>(row) * p.hidden_size;
  uint16_t* const x = p.x_BH + base;
  const int num_vectors = p.hidden_size / 8;
  const uint16_t* const embedded =
      p.table_VH ? p.table_VH + static_cast<int64_t>(p.rows[row].token) * p.hidden_size : nullptr;
  float squares = 0.0f;
  for (int v = thread_rank(); v < num_vectors; v += kThreads) {
    float values[8];
    if (embedded) {
      load_8(embedded + v * 8, values);
    } else {
      float delta[8];
      load_8(x + v * 8, values);
      load_8(p.delta_BH + base + v * 8, delta);
      add_bias(delta, p.bias_H ? p.bias_H + v * 8 : nullptr);
      ARCHER_UNROLL
      for (int i = 0; i < 8; ++i) values[i] = round_bf16(values[i] + delta[i]);
    }
    ARCHER_UNROLL
    for (int i = 0; i < 8; ++i) squares += values[i] * values[i];
    store_16(x + v * 8, pack(values));
  }
  const float sum = sum_over_block<kThreads>(squares, reinterpret_cast<float*>(shared_memory()));
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(p.hidden_size) + p.eps);
  for (int v = thread_rank(); v < num_vectors; v += kThreads) {
    float values[8], weight[8];
    load_8(x + v * 8, values);  // what this thread has written
    load_8(p.weight_H + v * 8, weight);
    ARCHER_UNROLL
    for (int i = 0; i < 8; ++i) values[i] = round_bf16(values[i] * scale) * weight[i];
    store_16(p.out_BH + base + v * 8, pack(values));
  }
}

// One warp per head of qkv: lane l holds the pairs (2 l, 2 l + 1) and (D / 2 + 2 l, D / 2 + 2 l + 1), lanes from D /
// 4 on hold nothing.
template <int kHeadDim, int kThreads>
ARCHER_DEVICE void append_keys(const AppendParams& p) {
  constexpr int kHalf = kHeadDim / 2, kWarps = kThreads / 32;
  const int heads_per_row = p.num_heads + 2 * p.num_kv_heads;
  const int item = block_rank() * kWarps + thread_rank() / 32, lane = thread_rank() % 32;
  const int row = item / heads_per_row, head = item % heads_per_row;
  if (row >= p.num_rows) return;  // the whole warp
  const DecodeRow state = p.rows[row];
  if (state.state != RowState::running) return;
  const bool present = 2 * lane < kHalf;
  const int near = 2 * lane, far = kHalf + 2 * lane;

  const auto load_2 = [&](const uint16_t* from, float (&values)[2]) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
    values[0] = bits_to_float(word << 16);
    values[1] = bits_to_float(word & 0xFFFF0000u);
  };
  float a[2] = {0.0f, 0.0f}, b[2] = {0.0f, 0.0f};
  if (present) {
    const uint16_t* const from = p.qkv_BX + static_cast<int64_t>(item) * kHeadDim;
    load_2(from + near, a);
    load_2(from + far, b);
    if (p.bias_X) {
      float bias_a[2], bias_b[2];
      load_2(p.bias_X + head * kHeadDim + near, bias_a);
      load_2(p.bias_X + head * kHeadDim + far, bias_b);
      for (int i = 0; i < 2; ++i) {
        a[i] = round_bf16(a[i] + bias_a[i]);
        b[i] = round_bf16(b[i] + bias_b[i]);
      }
    }
  }
  const bool is_query = head < p.num_heads, is_value = head >= p.num_heads + p.num_kv_heads;
  if (!is_value) {
    if (p.q_norm_D) {
      float squares = a[0] * a[0] + a[1] * a[1] + b[0] * b[0] + b[1] * b[1];
      for (int mask = 16; mask > 0; mask /= 2) squares += shuffle_xor(squares, mask);
      const float scale = 1.0f / std::sqrt(squares / kHeadDim + p.eps);
      if (present) {
        const uint16_t* const weight = is_query ? p.q_norm_D : p.k_norm_D;
        float weight_a[2], weight_b[2];
        load_2(weight + near, weight_a);
        load_2(weight + far, weight_b);
        for (int i = 0; i < 2; ++i) {
          a[i] = round_bf16(round_bf16(a[i] * scale) * weight_a[i]);
          b[i] = round_bf16(round_bf16(b[i] * scale) * weight_b[i]);
        }
      }
    }
    if (present) {
      float cosine[2], sine[2];
      load_2(p.cosine + static_cast<int64_t>(state.position) * kHalf + near, cosine);
      load_2(p.sine + static_cast<int64_t>(state.position) * kHalf + near, sine);
      for (int i = 0; i < 2; ++i) {
        const float rotated = a[i] * cosine[i] - b[i] * sine[i];
        b[i] = b[i] * cosine[i] + a[i] * sine[i];
        a[i] = rotated;
      }
    }
  }
  if (!present) return;
  uint16_t* to;
  if (is_query) {
    to = p.queries_BND + (static_cast<int64_t>(row) * p.num_heads + head) * kHeadDim;
  } else {
    if (state.position < state.first) return;
    const int kv_head = (head - p.num_heads) % p.num_kv_heads;
    const int64_t page = p.cache.table_BP[static_cast<int64_t>(state.sequence) * p.cache.pages_per_row +
                                          state.position / kPagePositions];
    to = (is_value ? p.cache.values : p.cache.keys) +
         page * p.cache.page_stride + (kv_head * kPagePositions + state.position % kPagePositions) * kHeadDim;
  }
  *reinterpret_cast<uint32_t*>(to + near) = pack_bf16(a[0], a[1]);
  *reinterpret_cast<uint32_t*>(to + far) = pack_bf16(b[0], b[1]);
}

// One thread per vector of eight outputs.
template <int kThreads>
ARCHER_DEVICE void swiglu_rows(const SwigluParams& p) {
  const int num_vectors = p.intermediate_size / 8;
  const int64_t item = static_cast<int64_t>(block_rank()) * kThreads + thread_rank();
  const int64_t row = item / num_vectors;
  if (row >= p.num_rows) return;
  const int64_t j = item % num_vectors * 8;
  const uint16_t* const from = p.gate_up_B2F + row * 2 * p.intermediate_size;
  float gate[8], up[8];
  load_8(from + j, gate);
  load_8(from + p.intermediate_size + j, up);
  add_bias(gate, p.bias_2F ? p.bias_2F + j : nullptr);
  add_bias(up, p.bias_2F ? p.bias_2F + p.intermediate_size + j : nullptr);
  ARCHER_UNROLL
  for (int i = 0; i < 8; ++i) up[i] *= gate[i] / (1.0f + exp2_flushed(-gate[i] * kLog2E));
  store_16(p.out_BF + row * p.intermediate_size + j, pack(up));
}

}  // namespace archer::gpu
