// The output head of a bfloat16 model over one chunk of rows, in tiles of 32 x 32: exponentials of the logits with their
// sums on the way, and both gradient products from them. Three matrix products and one pass (docs/fused-loss.md):
//   e_vr = exp((z_vr - k_r) / T), z = head_VH hidden_RHᵀ;   S_r = sum_v e_vr;   X_r = sum_v e_vr log2 e_vr
//   dL/dz_vr = c_r e_vr for every v but the sampled one, c_r = -(dL/dlogp_r) / (T S_r). Hence
//   grad_hidden_RH = diag(c) eᵀ head_VH;   grad_head_VH += e (diag(c) hidden_RH)
// e is stored once, in bfloat16: no second pass over it, whatever the coefficients turn out to be. k_r is the logit of the
// sampled id, which makes its e exactly 1 and S_r = 1 / p. All sums and products are float32 or wider.
// Everything runs transposed (v along tile rows, rows of the chunk along lanes), so that the head is read as it lies.
// Legend: R rows of the chunk, H hidden size, V vocabulary; x_blocks = ceil(x / 32). Neither torch nor Node; the callers
// share out V among threads.
#pragma once
#include <cstdint>

#include "kernels/tile_attention.h"
#include "kernels/tile_attention_backward.h"
#include "kernels/tile_linear.h"
#include "kernels/tile_matmul.h"

namespace archer::kernels {

constexpr int64_t kTile = 32;              // side of a block
constexpr int64_t kBlockElements = kTile * kTile;
constexpr int64_t kVocabularyStep = 256;   // ids whose weights stay in the L2 cache while all rows pass by

inline int64_t tile_blocks(int64_t n) { return (n + kTile - 1) / kTile; }

// Ids whose transposed weights stay in the L2 cache while grad_hidden's rows pass by: about 3/4 MB.
inline int64_t transposed_ids(int64_t hidden) {
  const int64_t fit = (int64_t{768} << 10) / (2 * tile_blocks(hidden) * kTile) / 128 * 128;
  return fit < 128 ? 128 : fit > 512 ? 512 : fit;
}

// Where rows of the chunk stand in the hidden states: row r is hidden_TH[tokens_R[r]], or hidden_TH[r] without tokens_R.
struct TileRows {
  const uint16_t* hidden_TH;
  const int64_t* tokens_R;
  int64_t rows, hidden;
};

struct TileForward {
  const uint16_t* head_VH;
  int64_t vocabulary, hidden, row_blocks;
  int64_t begin, end;               // ids of this call; begin is a multiple of 32, end too or the vocabulary
  const uint16_t* packed_hidden;    // of pack_hidden
  const float* shift_R;             // k_r, padded to whole blocks
  float scale;                      // log2(e) / T
  uint16_t* exponentials;           // [V / 32][R / 32][32 v][32 r], or null: sums alone
  double *sum_R, *weighted_R;       // written: this call's shares of S_r and X_r
  bool bare = false;                // the logits themselves instead: what the product alone costs (benchmarks)
};

struct TileBackward {
  const uint16_t* head_VH;
  int64_t vocabulary, hidden;
  int64_t row_blocks;               // as in the forward pass: the stride of `exponentials`
  int64_t active_blocks;            // of the rows that take part
  const uint32_t* keep;             // [row_blocks] bit r = row r takes part; null: all do, nothing moves
  int64_t begin, end;
  uint16_t* exponentials;
  const uint16_t* packed_scaled;    // of pack_scaled_hidden, for grad_head
  float* grad_head_VH;              // added to
  float* grad_hidden_blocks;        // [R / 32][H / 32][32 h][32 r], added to, for grad_hidden; without c_r
};

// For an entropy bonus: e <- e (alpha_r + beta_r log2 e), then the gradient is linear in e again.
struct TileEntropy {
  uint16_t* exponentials;
  int64_t row_blocks, begin, end;
  const float *alpha_R, *beta_R;
};

// grad_hidden_blocks -> rows of the gradient, times c_r.
struct TileGradRows {
  const float* grad_hidden_blocks;
  const float* coefficients_R;
  const int64_t* positions_R;  // row j of the result is row positions_R[j] of the blocks; null: row j
  const int64_t* tokens_R;     // and stands in grad_hidden_TH[tokens_R[j]]
  int64_t rows, hidden;
  uint16_t* grad_hidden_TH;    // one of the two
  float* wide_grad_hidden_TH;
};

struct TileKernels {
  // [R / 32][H / 32][2][16 h pairs][16 r][2]; rows and columns beyond the end are zeros. Both: blocks * 1024 elements.
  void (*pack_hidden)(const TileRows& rows, uint16_t* packed);
  // [H / 32][R / 32][2][16 r pairs][16 h][2] of c_r hidden_r, rounded to bfloat16.
  void (*pack_scaled_hidden)(const TileRows& rows, const float* coefficients_R, uint16_t* packed);
  // z of one id per row, to the last bit as forward computes it.
  void (*sampled_logits)(const TileRows& rows, const uint16_t* head_VH, const int32_t* ids_R, const uint16_t* packed_hidden,
                         uint16_t* scratch, float* logits_R);
  void (*forward)(const TileForward& job, uint16_t* scratch);
  // S and X of one row whose z lie one behind the other: the additions of forward() in its order, for a share of the ids.
  void (*sum_row)(const float* logits_V, int64_t ids, float shift, float scale, double* sum, double* weighted);
  // The largest z of each row; NaN where one is NaN. For rows whose k_r lies too far below it.
  void (*largest_logits)(const TileForward& job, uint16_t* scratch, float* largest_R);
  void (*entropy_gradient)(const TileEntropy& job);
  // grad_hidden first: it moves the rows of `keep` together, for grad_head too.
  void (*grad_hidden)(const TileBackward& job, uint16_t* scratch);
  void (*grad_head)(const TileBackward& job);
  void (*grad_rows)(const TileGradRows& job, int64_t begin, int64_t end);  // blocks of 32 columns of the hidden states
  void (*linear)(const TileLinear& job, uint16_t* scratch);
  void (*attention)(const TileAttention& job, float* scratch);
  void (*attention_backward)(const TileAttentionBackward& job, float* scratch);
  // Of x [R, C], the blocks of 32 rows from `begin` to `end`: [C / 32][R / 32][2][16 pairs of rows][16 columns][2].
  void (*pack_pairs)(const TileMatrix& x, int64_t begin, int64_t end, uint16_t* packed);
  // Of x [R, C], the blocks of 32 rows from `begin` to `end`: [C / 32][R / 32][32 columns][32 rows].
  void (*transpose)(const TileMatrix& x, int64_t begin, int64_t end, uint16_t* blocks);
  void (*matmul)(const TileMatmul& job, uint16_t* scratch, float* sums);
};

// bfloat16 elements of scratch for one thread, aligned to 64 bytes.
int64_t tile_scratch_elements(int64_t hidden);

// Those of cpu_isa(); null where it has neither AVX512-BF16 nor AMX.
const TileKernels* tile_kernels();

// Where element (v, row r) of the exponentials stands.
inline int64_t exponential_index(int64_t v, int64_t r, int64_t row_blocks) {
  return ((v / kTile) * row_blocks + r / kTile) * kBlockElements + (v % kTile) * kTile + r % kTile;
}

}  // namespace archer::kernels
