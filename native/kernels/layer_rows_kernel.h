// The source of the kernels of layer_ops.h, written once for nvcc and for the emulation: include it after a header that
// defines the primitives of namespace archer::gpu. Rows are taken by warps or cut into 16-byte vectors of one thread each.
#pragma once
#include "kernels/gpu_rows.h"
#include "kernels/layer_ops.h"

namespace archer::gpu {

struct Values8 {
  float at[8];
};

ARCHER_DEVICE Values8 read_8(const uint16_t* from) {
  Values8 values;
  unpack(load_16(from), values.at);
  return values;
}
ARCHER_DEVICE Values8 read_8(const float* from) {
  float near[4], far[4];
  unpack(load_16(from), near);
  unpack(load_16(from + 4), far);
  return {{near[0], near[1], near[2], near[3], far[0], far[1], far[2], far[3]}};
}
ARCHER_DEVICE void write_8(uint16_t* to, const Values8& values) { store_16(to, pack(values.at)); }
ARCHER_DEVICE void write_8(float* to, const Values8& values) {
  const auto word = [&](int i) { return float_to_bits(values.at[i]); };
  store_16(to, {word(0), word(1), word(2), word(3)});
  store_16(to + 4, {word(4), word(5), word(6), word(7)});
}

// The same bits in every lane: a + b is b + a.
template <typename T>
ARCHER_DEVICE T sum_over_warp(T value) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

template <int kThreads>
ARCHER_DEVICE int64_t global_warp() {
  return static_cast<int64_t>(block_rank()) * (kThreads / 32) + thread_rank() / 32;
}
template <int kThreads>
ARCHER_DEVICE int64_t global_thread() {
  return static_cast<int64_t>(block_rank()) * kThreads + thread_rank();
}

// A warp per row.
template <int kThreads>
ARCHER_DEVICE void layer_kernel(const RmsNormRows& p) {
  const int64_t row = global_warp<kThreads>(), base = row * p.columns;
  if (row >= p.rows) return;
  const int first = thread_rank() % 32 * 8;
  float squares = 0.0f;
  for (int c = first; c < p.columns; c += 256) {
    const Values8 x = read_8(p.x + base + c);
    ARCHER_UNROLL
    for (int i = 0; i < 8; ++i) squares += x.at[i] * x.at[i];
  }
  const float scale = 1.0f / std::sqrt(sum_over_warp(squares) / static_cast<float>(p.columns) + p.eps);
  if (p.rstd != nullptr && first == 0) p.rstd[row] = scale;
  for (int c = first; c < p.columns; c += 256) {
    Values8 x = read_8(p.x + base + c);
    const Values8 weight = read_8(p.weight + c);
    ARCHER_UNROLL
    for (int i = 0; i < 8; ++i) x.at[i] = round_bf16(x.at[i] * scale) * weight.at[i];
    write_8(p.out + base + c, x);
  }
}

// With y = x rstd: dx = rstd (dy w - y mean(dy w y)). A warp per row.
template <int kThreads>
ARCHER_DEVICE void layer_kernel(const RmsNormRowsBackward& p) {
  const int64_t row = global_warp<kThreads>(), base = row * p.columns;
  if (row >= p.rows) return;
  const int first = thread_rank() % 32 * 8;
  const float scale = p.rstd[row];
  float dot = 0.0f;
  for (int c = first; c < p.columns; c += 256) {
    const Values8 x = read_8(p.x + base + c), dy = read_8(p.dy + base + c), weight = read_8(p.weight + c);
    ARCHER_UNROLL
    for (int i = 0; i < 8; ++i) dot += dy.at[i] * x.at[i] * scale * weight.at[i];
  }
  const float mean = sum_over_warp(dot) / static_cast<float>(p.columns) * scale;
  for (int c = first; c < p.columns; c += 256) {
    const Values8 x = read_8(p.x + base + c), dy = read_8(p.dy + base + c), weight = read_8(p.weight + c);
    Values8 dx;
    ARCHER_UNROLL
    for (int i = 0; i < 8; ++i) dx.at[i] = scale * (dy.at[i] * weight.at[i] - x.at[i] * mean);
    if (p.sum != nullptr) {
      const Values8 sum = read_8(p.sum + base + c);
      ARCHER_UNROLL
      for (int i = 0; i < 8; ++i) dx.at[i] += sum.at[i];
      write_8(p.sum + base + c, dx);
    }
    write_8(p.rounded + base + c, dx);
  }
}

// A thread per column and block of rows.
template <int kThreads>
ARCHER_DEVICE void layer_kernel(const ColumnSums& p) {
  const int tiles = (p.columns + kThreads - 1) / kThreads, block = block_rank() / tiles;
  const int c = block_rank() % tiles * kThreads + thread_rank();
  if (c >= p.columns) return;
  const int64_t first = static_cast<int64_t>(block) * p.rows_per_block;
  const int64_t past = first + p.rows_per_block < p.rows ? first + p.rows_per_block : p.rows;
  const auto widened = [](uint16_t bits) { return widen(Bf16{bits}); };
  float sum = 0.0f;
  for (int64_t row = first; row < past; ++row) {
    const int64_t at = row * p.columns + c;
    sum += p.dy != nullptr ? widened(p.dy[at]) : p.wide_dy[at] * widened(p.x[at]) * p.rstd[row];
  }
  p.partial[static_cast<int64_t>(block) * p.columns + c] = sum;
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const AddPartialSums& p) {
  const int64_t c = global_thread<kThreads>();
  if (c >= p.columns) return;
  float sum = 0.0f;
  for (int b = 0; b < p.blocks; ++b) sum += p.partial[static_cast<int64_t>(b) * p.columns + c];
  p.to[c] += sum;
}

// Where a thread's 8 pairs (j, j + D / 2) of a head stand.
struct Pairs {
  int64_t near, far, table;
};
template <int kThreads, typename Params>
ARCHER_DEVICE bool find_pairs(const Params& p, Pairs& pairs) {
  const int half = p.head_dim / 2, vectors = half / 8;
  const int64_t item = global_thread<kThreads>(), head = item / vectors, row = head / p.heads;
  if (row >= p.rows) return false;
  const int j = static_cast<int>(item % vectors) * 8;
  pairs.near = head * p.head_dim + j;
  pairs.far = pairs.near + half;
  pairs.table = static_cast<int64_t>(p.positions[row]) * half + j;
  return true;
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const RotateRows& p) {
  Pairs at;
  if (!find_pairs<kThreads>(p, at)) return;
  Values8 a = read_8(p.x + at.near), b = read_8(p.x + at.far);
  const Values8 cosine = read_8(p.cosine + at.table), sine = read_8(p.sine + at.table);
  ARCHER_UNROLL
  for (int i = 0; i < 8; ++i) {
    const float near = a.at[i] * cosine.at[i] - b.at[i] * sine.at[i];
    b.at[i] = b.at[i] * cosine.at[i] + a.at[i] * sine.at[i];
    a.at[i] = near;
  }
  write_8(p.out + at.near, a);
  write_8(p.out + at.far, b);
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const RotateRowsBackward& p) {
  Pairs at;
  if (!find_pairs<kThreads>(p, at)) return;
  Values8 a = read_8(p.grad + at.near), b = read_8(p.grad + at.far);
  const Values8 cosine = read_8(p.cosine + at.table), sine = read_8(p.sine + at.table);
  ARCHER_UNROLL
  for (int i = 0; i < 8; ++i) {
    const float near = a.at[i] * cosine.at[i] + b.at[i] * sine.at[i];
    b.at[i] = b.at[i] * cosine.at[i] - a.at[i] * sine.at[i];
    a.at[i] = near;
  }
  write_8(p.grad + at.near, a);
  write_8(p.grad + at.far, b);
  write_8(p.rounded + at.near, a);
  write_8(p.rounded + at.far, b);
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const GatedProduct& p) {
  const int64_t at = global_thread<kThreads>() * 8;
  if (at >= p.count) return;
  Values8 gate = read_8(p.gate + at);
  const Values8 up = read_8(p.up + at);
  ARCHER_UNROLL
  for (int i = 0; i < 8; ++i) gate.at[i] = gate.at[i] / (1.0f + std::exp(-gate.at[i])) * up.at[i];
  write_8(p.out + at, gate);
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const GatedProductBackward& p) {
  const int64_t at = global_thread<kThreads>() * 8;
  if (at >= p.count) return;
  Values8 gate = read_8(p.gate + at), up = read_8(p.up + at), y;
  const Values8 dy = read_8(p.dy + at);
  ARCHER_UNROLL
  for (int i = 0; i < 8; ++i) {
    const float g = gate.at[i], u = up.at[i], d = dy.at[i];
    const float sigmoid = 1.0f / (1.0f + std::exp(-g)), silu = g * sigmoid;
    y.at[i] = silu * u;
    up.at[i] = d * silu;
    gate.at[i] = d * u * sigmoid * (1.0f + g * (1.0f - sigmoid));
  }
  write_8(p.y + at, y);
  write_8(p.up + at, up);
  write_8(p.gate + at, gate);
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const StartRows& p) {
  const int64_t at = global_thread<kThreads>() * 8;
  if (at >= p.rows * p.columns) return;
  Values8 sum = read_8(p.residual != nullptr ? p.residual + at : p.bias + at % p.columns);
  if (p.residual != nullptr && p.bias != nullptr) {
    const Values8 bias = read_8(p.bias + at % p.columns);
    ARCHER_UNROLL
    for (int i = 0; i < 8; ++i) sum.at[i] += bias.at[i];
  }
  write_8(p.out + at, sum);
}

// A block per id: a thread's columns see the tokens one after the other.
template <int kThreads>
ARCHER_DEVICE void layer_kernel(const EmbeddingRowsBackward& p) {
  const int i = block_rank(), begin = p.begins[i], end = p.begins[i + 1];
  float* const grad = p.grad + static_cast<int64_t>(p.ids[i]) * p.columns;
  for (int c = thread_rank(); c < p.columns; c += kThreads) {
    float sum = grad[c];
    for (int j = begin; j < end; ++j) sum += p.dx[static_cast<int64_t>(p.tokens[j]) * p.columns + c];
    grad[c] = sum;
  }
}

// Every thread's share in an order of its own, then warps, then the block's warps; the result is thread 0's.
template <int kThreads>
ARCHER_DEVICE double sum_of_threads(double value) {
  double* const warps = reinterpret_cast<double*>(shared_memory());
  value = sum_over_warp(value);
  if (thread_rank() % 32 == 0) warps[thread_rank() / 32] = value;
  block_barrier();
  double sum = 0.0;
  for (int w = 0; w < kThreads / 32; ++w) sum += warps[w];
  return sum;
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const SquareSums& p) {
  const WeightBlock block = p.blocks[block_rank()];
  double sum = 0.0;
  for (int i = thread_rank(); i < block.size; i += kThreads) {
    const double value = static_cast<double>(block.grad[i]);
    sum += value * value;
  }
  sum = sum_of_threads<kThreads>(sum);
  if (thread_rank() == 0) p.partial[block_rank()] = sum;
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const AddSquareSums& p) {
  double sum = 0.0;
  for (int i = thread_rank(); i < p.count; i += kThreads) sum += p.partial[i];
  sum = sum_of_threads<kThreads>(sum);
  if (thread_rank() == 0) *p.total = sum;
}

template <int kThreads>
ARCHER_DEVICE void layer_kernel(const AdamwBlocks& p) {
  const WeightBlock block = p.blocks[block_rank()];
  const float keep = block.decays != 0 ? p.keep : 1.0f;
  for (int i = thread_rank(); i < block.size; i += kThreads) {
    const float grad = block.grad[i] * p.grad_scale;
    const float first = p.beta1 * block.exp_avg[i] + p.one_minus_beta1 * grad;
    const float second = p.beta2 * block.exp_avg_sq[i] + p.one_minus_beta2 * (grad * grad);
    const float master =
        keep * block.master[i] - p.step_size * first / (std::sqrt(second) * p.denominator_scale + p.eps);
    block.exp_avg[i] = first;
    block.exp_avg_sq[i] = second;
    block.master[i] = master;
    if (block.compute != nullptr) block.compute[i] = to_bf16(master).bits;
  }
}

}  // namespace archer::gpu
