// The kernels that training on a GPU runs beside its products, by their parameters: device pointers, bfloat16 as uint16_t. Rounding is
// that of decoder_rows.h. Every sum over rows is taken in an order that the shapes alone determine: there are no atomics.
//   R rows, C columns; rows begin at multiples of 16 bytes and have a multiple of 8 columns
// layer_rows_kernel.h has the source. Plain C++17 without torch or Node: device code includes it.
#pragma once
#include <cstdint>
#include <variant>

namespace archer {

constexpr int kLayerThreads = 256;

// out_RC = round(x_RC * rstd_R) * weight_C; `out` may be x, rstd null.
struct RmsNormRows {
  const uint16_t *x, *weight;
  uint16_t* out;
  float* rstd;
  int64_t rows;
  int32_t columns;
  float eps;
};

// dx from dy; with sum: sum += dx, rounded = sum; without: rounded = dx.
struct RmsNormRowsBackward {
  const uint16_t *x, *weight;
  const float *rstd, *dy;
  float* sum;
  uint16_t* rounded;
  int64_t rows;
  int32_t columns;
};

// partial_BC[b] = sum over the b-th rows_per_block rows of dy_RC, which is `dy`, or else wide_dy * x * rstd_R: the
// gradients of a bias and of a norm's weight.
struct ColumnSums {
  const uint16_t* dy;
  const float* wide_dy;
  const uint16_t* x;
  const float* rstd;
  float* partial;
  int64_t rows;
  int32_t columns, rows_per_block;
};
constexpr int64_t kMaxColumnBlocks = 256;
constexpr int32_t rows_per_column_block(int64_t rows) {
  const int64_t share = (rows + kMaxColumnBlocks - 1) / kMaxColumnBlocks;
  return static_cast<int32_t>(share < 128 ? 128 : share);
}

// to_C += sum over b of partial_BC
struct AddPartialSums {
  const float* partial;
  float* to;
  int32_t blocks, columns;
};

// Rotary embedding of every head of x [R, heads * D], D a multiple of 16; `out` may be x. Tables [positions, D / 2].
struct RotateRows {
  const uint16_t *x, *cosine, *sine;
  const int32_t* positions;
  uint16_t* out;
  int64_t rows;
  int32_t heads, head_dim;
};

// The gradient before the rotation from that behind it, in place, and rounded.
struct RotateRowsBackward {
  float* grad;
  const uint16_t *cosine, *sine;
  const int32_t* positions;
  uint16_t* rounded;
  int64_t rows;
  int32_t heads, head_dim;
};

// out = silu(gate) * up
struct GatedProduct {
  const uint16_t *gate, *up;
  uint16_t* out;
  int64_t count;  // a multiple of 8
};

// gate and up become their gradients, y is computed once more.
struct GatedProductBackward {
  uint16_t *gate, *up;
  const uint16_t* dy;
  uint16_t* y;
  int64_t count;
};

// out_RC = bias_C + residual_RC, one of which may be null: what a product is then added to. `out` may be the residual.
struct StartRows {
  const uint16_t *bias, *residual;
  uint16_t* out;
  int64_t rows;
  int32_t columns;
};

// grad_VC[ids[i]] += sum of dx_RC[tokens[j]], j from begins[i] to begins[i + 1] - 1, in that order.
struct EmbeddingRowsBackward {
  const float* dx;
  const int32_t *ids, *begins, *tokens;
  float* grad;
  int32_t num_ids, columns;
};

// A piece of a tensor that the optimizer's kernels give to a block of threads. Pointers are multiples of 16 bytes.
struct WeightBlock {
  float *master, *exp_avg, *exp_avg_sq;
  const float* grad;
  uint16_t* compute;  // the weight as the forward reads it; null where that is the master
  int32_t size;
  int32_t decays;
};

// partial[b] = sum of the squares of block b's gradients, in float64.
struct SquareSums {
  const WeightBlock* blocks;
  double* partial;
  int32_t num_blocks;
};

// total = sum of the partial sums
struct AddSquareSums {
  const double* partial;
  double* total;
  int32_t count;
};

// kernels/adamw.h, which has the formula, on float32; and compute = round(master).
struct AdamwBlocks {
  const WeightBlock* blocks;
  int32_t num_blocks;
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float keep;               // 1 - lr weight_decay, for the blocks that decay
  float step_size;          // lr / bias_correction1
  float denominator_scale;  // 1 / bias_correction2_sqrt
  float eps, grad_scale;
};

using LayerWork = std::variant<RmsNormRows, RmsNormRowsBackward, ColumnSums, AddPartialSums, RotateRows, RotateRowsBackward,
                               GatedProduct, GatedProductBackward, StartRows, EmbeddingRowsBackward, SquareSums, AddSquareSums,
                               AdamwBlocks>;

// Blocks of `threads` threads that a kernel is started with.
constexpr int64_t blocks_for(int64_t items, int64_t per_block) { return (items + per_block - 1) / per_block; }
constexpr int64_t num_layer_blocks(const RmsNormRows& p, int threads) { return blocks_for(p.rows, threads / 32); }
constexpr int64_t num_layer_blocks(const RmsNormRowsBackward& p, int threads) { return blocks_for(p.rows, threads / 32); }
constexpr int64_t num_layer_blocks(const ColumnSums& p, int threads) {
  return blocks_for(p.rows, p.rows_per_block) * blocks_for(p.columns, threads);
}
constexpr int64_t num_layer_blocks(const AddPartialSums& p, int threads) { return blocks_for(p.columns, threads); }
constexpr int64_t num_layer_blocks(const RotateRows& p, int threads) {
  return blocks_for(p.rows * p.heads * (p.head_dim / 16), threads);
}
constexpr int64_t num_layer_blocks(const RotateRowsBackward& p, int threads) {
  return blocks_for(p.rows * p.heads * (p.head_dim / 16), threads);
}
constexpr int64_t num_layer_blocks(const GatedProduct& p, int threads) { return blocks_for(p.count / 8, threads); }
constexpr int64_t num_layer_blocks(const GatedProductBackward& p, int threads) { return blocks_for(p.count / 8, threads); }
constexpr int64_t num_layer_blocks(const StartRows& p, int threads) { return blocks_for(p.rows * (p.columns / 8), threads); }
constexpr int64_t num_layer_blocks(const EmbeddingRowsBackward& p, int) { return p.num_ids; }
constexpr int64_t num_layer_blocks(const SquareSums& p, int) { return p.num_blocks; }
constexpr int64_t num_layer_blocks(const AddSquareSums&, int) { return 1; }
constexpr int64_t num_layer_blocks(const AdamwBlocks& p, int) { return p.num_blocks; }

}  // namespace archer
