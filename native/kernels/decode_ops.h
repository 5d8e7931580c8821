// The kernels of generation on a GPU, by their parameters: every entry point takes device pointers and queues its work;
// nothing waits. A decode step takes one token of each of B rows through the model; a row is idle or running, and its
// whole state lies on the device, so that many steps can be queued before the host looks. In a prefill a row is a token
// of a prompt, and the kernels are the same ones but for attention.
//   B rows, H hidden, F intermediate, V vocabulary, N heads, K kv heads, G = N / K, D head_dim (64 or 128)
// Tensors are bfloat16 (uint16_t) with float32 arithmetic, rounded where the CPU's decode rounds
// (kernels/decoder_rows.h). Plain C++17 without torch or Node: device code includes it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kv_page.h"

namespace archer {

// stopped: by a stop token; full: the budget is used up; faulty: logits that define no distribution.
enum class RowState : int32_t { idle, running, stopped, full, faulty };

struct alignas(16) DecodeRow {
  int32_t token = 0;     // the newest, not yet in the cache; a running row's lies within the vocabulary
  int32_t position = 0;  // where its keys and values belong
  int32_t budget = 0;    // tokens that may still be drawn
  int32_t drawn = 0;     // tokens drawn since the host's visit
  RowState state = RowState::idle;
  int32_t sequence = 0;  // its row of the table of pages, and of the logits
  int32_t first = 0;     // keys and values before it are there already and stay as they are
  int32_t unused = 0;
};

constexpr int kPagePositions = kernels::kKvPage;  // in the device's index arithmetic 32 bits are enough
constexpr int kPagesPerSplit = 4;  // fixed, so that a row's sums do not depend on the rows around it
constexpr int kSplitPositions = kPagePositions * kPagesPerSplit;
constexpr int kMaxGroup = 8;       // query heads per kv head that attention takes

// Threads per block.
constexpr int kRowThreads = 256, kAppendThreads = 128, kPartThreads = 256, kChooseThreads = 512;

// Keys and values of one layer, [pages, K, 64, D] each (kernels/kv_page.h), page_stride elements from page to page. A
// row's position p lies in page table_BP[row.sequence][p / 64].
struct PagedKeys {
  uint16_t* keys = nullptr;
  uint16_t* values = nullptr;
  const int32_t* table_BP = nullptr;
  int32_t pages_per_row = 0;
  int64_t page_stride = 0;
};

// x = table[token] where there is a table, else x + (delta + bias); out = rms_norm(x) * weight. H is a multiple of 8.
struct NormRowsParams {
  uint16_t* x_BH = nullptr;
  const uint16_t* table_VH = nullptr;
  const uint16_t* delta_BH = nullptr;
  const uint16_t* bias_H = nullptr;    // or null
  const uint16_t* weight_H = nullptr;
  uint16_t* out_BH = nullptr;
  const DecodeRow* rows = nullptr;
  int32_t num_rows = 0, hidden_size = 0;
  float eps = 0.0f;
};

// qkv + bias, normalised per head and rotated by the row's position where it is a query or key; queries go to
// queries_BND, keys and values of running rows into their page.
struct AppendParams {
  const uint16_t* qkv_BX = nullptr;    // X = (N + 2 K) D: queries, keys, values
  const uint16_t* bias_X = nullptr;    // or null
  const uint16_t* q_norm_D = nullptr;  // or null, then k_norm_D too
  const uint16_t* k_norm_D = nullptr;
  const uint16_t* cosine = nullptr;    // [positions, D / 2]
  const uint16_t* sine = nullptr;
  uint16_t* queries_BND = nullptr;
  PagedKeys cache;
  const DecodeRow* rows = nullptr;
  int32_t num_rows = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  float eps = 0.0f;
};

// softmax(q k^T / sqrt(D)) v over positions 0 .. the row's own. Two kernels: one block per row, kv head and split of
// 256 positions leaves sums relative to the split's maximum; the second one merges the splits. Rows that do not run
// get zeros.
struct AttentionParams {
  const uint16_t* queries_BND = nullptr;
  PagedKeys cache;
  float* split_sums = nullptr;    // [B, N, splits, D]
  float* split_scales = nullptr;  // [B, N, splits, 2]: maximum (of scores in base 2) and sum of the weights
  uint16_t* out_BND = nullptr;
  const DecodeRow* rows = nullptr;
  int32_t num_rows = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int32_t num_splits = 0;         // enough for every running row's position
};

constexpr int kPrefillTile = 64;  // tokens of one block

// Rows that lie side by side and are neighbouring positions of one sequence.
struct PrefillTile {
  int32_t first_row = 0, num_rows = 0;  // at most kPrefillTile
};

// As attention, for the tokens of prompts, whose keys and values up to their own are in their pages.
struct PrefillParams {
  const uint16_t* queries_TND = nullptr;
  PagedKeys cache;
  uint16_t* out_TND = nullptr;
  const DecodeRow* rows = nullptr;
  const PrefillTile* tiles = nullptr;
  int32_t num_tiles = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
};

// out = silu(gate + bias) * (up + bias). F is a multiple of 8.
struct SwigluParams {
  const uint16_t* gate_up_B2F = nullptr;  // F of gate, then F of up
  const uint16_t* bias_2F = nullptr;      // or null
  uint16_t* out_BF = nullptr;
  int32_t num_rows = 0, intermediate_size = 0;
};

// As kernels/sample_row.h; it lies on the device, so that a captured step need not be captured anew for another one.
struct SampleSettings {
  double temperature = 1.0;  // 0: greedy
  double top_p = 1.0, min_p = 0.0;
  int64_t top_k = -1;
};

constexpr int kSamplePart = 4096;  // logits that one block reduces

constexpr int64_t num_sample_parts(int64_t vocabulary) { return (vocabulary + kSamplePart - 1) / kSamplePart; }

// One token per running row from logits[row.sequence], by the inverse CDF of kernels/sample_row.h, and the row's next
// state: its token and position, `stopped` at a stop token, `full` when its budget is used up, `faulty` (and no token)
// without a distribution.
struct SampleParams {
  const float* logits = nullptr;       // [sequences, stride], 16-byte aligned rows
  int64_t stride = 0;                  // >= V, a multiple of 4
  int32_t num_rows = 0, vocabulary = 0;
  const SampleSettings* settings = nullptr;
  int32_t num_parts = 0;               // num_sample_parts(V)
  float* parts = nullptr;              // [B, parts, 4]: sums of the parts of a row (row_math.h)
  const double* uniforms_BT = nullptr; // the draw of a row's next tokens, by DecodeRow::drawn
  const int32_t* stop_ids = nullptr;
  int32_t num_stop_ids = 0;
  int32_t tokens_per_visit = 0;        // T
  DecodeRow* rows = nullptr;
  int32_t* ids_BT = nullptr;           // out, by DecodeRow::drawn
  float* log_probs_BT = nullptr;
  float* entropies_BT = nullptr;
};

}  // namespace archer
