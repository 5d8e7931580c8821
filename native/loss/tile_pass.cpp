// Statistics and coefficients around the tile kernels; see tile_pass.h.
#include "loss/tile_pass.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <numbers>

#include "kernels/tile_score.h"

namespace archer {
namespace {

using kernels::kBlockElements;
using kernels::kLargestSum;
using kernels::kTile;
using kernels::kVocabularyShares;
using kernels::kVocabularyStep;
using kernels::tile_blocks;

constexpr int64_t kExponentialBytes = int64_t{100} << 20;
constexpr int64_t kFewestRows = 256, kMostRows = 1024;

uint16_t* bits(const at::Tensor& tensor) { return static_cast<uint16_t*>(tensor.data_ptr()); }
const uint16_t* const_bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }
uint16_t to_bf16(double value) { return c10::BFloat16(static_cast<float>(value)).x; }

int64_t automatic_chunk(int64_t vocabulary) {
  const int64_t fit = kExponentialBytes / (2 * tile_blocks(vocabulary) * kTile);
  return std::clamp(fit / kTile * kTile, kFewestRows, kMostRows);
}

}  // namespace

TilePass::TilePass(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T,
                   double temperature, int64_t chunk_tokens, const JobControl* control, LossWorkspace& workspace)
    : HeadPass<float>(hidden_TH, head_VH, ids_T, control, workspace), kernels_(*kernels::tile_kernels()),
      temperature_(static_cast<float>(temperature)), hidden_(hidden_TH.size(1)),
      chunk_(chunk_tokens > 0 ? chunk_tokens : automatic_chunk(vocabulary_)),
      share_(kernels::vocabulary_share(vocabulary_)) {}

int64_t TilePass::workspace_bytes(int64_t vocabulary, int64_t hidden, at::ScalarType, int64_t rows, int threads, bool gradients) {
  const int64_t row_blocks = tile_blocks(std::min(rows, automatic_chunk(vocabulary)));
  const int64_t packed = row_blocks * tile_blocks(hidden) * kBlockElements;
  const int64_t forward = 2 * (packed + threads * kernels::tile_scratch_elements(hidden));
  if (!gradients) return forward;
  return forward + 2 * (tile_blocks(vocabulary) * row_blocks * kBlockElements + packed) + 4 * threads * packed;
}

kernels::TileRows TilePass::tile_rows(Rows rows) const {
  return {const_bits(hidden_TH_), rows.data(), static_cast<int64_t>(rows.size()), hidden_};
}

uint16_t* TilePass::scratch_of_threads() {
  return bits(buffer_of(workspace_.scratch, at::get_num_threads() * kernels::tile_scratch_elements(hidden_), at::kBFloat16));
}

// body(first id, past the last, share, scratch of the thread)
template <class Body>
void TilePass::for_each_share(Body body) {
  uint16_t* scratch = scratch_of_threads();
  at::parallel_for(0, kVocabularyShares, 1, [&](int64_t first, int64_t past) {
    uint16_t* own = scratch + at::get_thread_num() * kernels::tile_scratch_elements(hidden_);
    for (int64_t share = first; share < past; ++share) {
      const int64_t begin = std::min(share * share_, vocabulary_), end = std::min(begin + share_, vocabulary_);
      if (begin < end) body(begin, end, share, own);
    }
  });
}

void TilePass::sum_exponentials(bool keep) {
  const int64_t row_blocks = tile_blocks(static_cast<int64_t>(rows_.size())), padded = row_blocks * kTile;
  std::vector<double> sums(static_cast<size_t>(kVocabularyShares * padded)), weighted(sums.size());
  const float scale = kernels::exponent_scale(temperature_);
  for_each_share([&](int64_t begin, int64_t end, int64_t share, uint16_t* scratch) {
    kernels_.forward({const_bits(head_VH_), vocabulary_, hidden_, row_blocks, begin, end,
                      const_bits(workspace_.packed_hidden), shifts_.data(), scale,
                      keep ? bits(workspace_.exponentials) : nullptr, sums.data() + share * padded,
                      weighted.data() + share * padded},
                     scratch);
  });
  for (size_t r = 0; r < rows_.size(); ++r) {
    stats_[r].sum = stats_[r].weighted = 0;
    for (int64_t share = 0; share < kVocabularyShares; ++share) {
      stats_[r].sum += sums[static_cast<size_t>(share * padded) + r];
      stats_[r].weighted += weighted[static_cast<size_t>(share * padded) + r];
    }
  }
}

// For the rare rows whose sampled id is no fit origin: too improbable, or not finite.
void TilePass::shift_to_largest() {
  const int64_t row_blocks = tile_blocks(static_cast<int64_t>(rows_.size())), padded = row_blocks * kTile;
  std::vector<float> largest(static_cast<size_t>(kVocabularyShares * padded), -INFINITY);
  for_each_share([&](int64_t begin, int64_t end, int64_t share, uint16_t* scratch) {
    kernels_.largest_logits({const_bits(head_VH_), vocabulary_, hidden_, row_blocks, begin, end,
                             const_bits(workspace_.packed_hidden), nullptr, 0, nullptr, nullptr, nullptr},
                            scratch, largest.data() + share * padded);
  });
  for (size_t r = 0; r < rows_.size(); ++r) {
    if (stats_[r].sum < kLargestSum) continue;
    float most = -INFINITY;
    for (int64_t share = 0; share < kVocabularyShares; ++share) {
      const float one = largest[static_cast<size_t>(share * padded) + r];
      if (std::isnan(one) || one > most) most = one;
      if (std::isnan(most)) break;
    }
    stats_[r].excess = (stats_[r].shift - most) / temperature_;  // NaN or infinite where a logit is: reported as such
    stats_[r].shift = shifts_[r] = most;
  }
}

void TilePass::forward(Rows rows, bool keep) {
  check_control();
  rows_.assign(rows.begin(), rows.end());
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t row_blocks = tile_blocks(count), hidden_blocks = tile_blocks(hidden_);
  uint16_t* packed = bits(buffer_of(workspace_.packed_hidden, row_blocks * hidden_blocks * kBlockElements, at::kBFloat16));
  if (keep) buffer_of(workspace_.exponentials, tile_blocks(vocabulary_) * row_blocks * kBlockElements, at::kBFloat16);
  std::vector<int32_t> ids(rows.size());
  for (size_t r = 0; r < rows.size(); ++r) ids[r] = ids_T_[static_cast<size_t>(rows_[r])];
  shifts_.assign(static_cast<size_t>(row_blocks * kTile), 0.0f);
  uint16_t* scratch = scratch_of_threads();
  at::parallel_for(0, row_blocks, 1, [&](int64_t first, int64_t past) {
    const int64_t begin = first * kTile, end = std::min(past * kTile, count);
    const kernels::TileRows own = tile_rows(Rows(rows_).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
    uint16_t* own_packed = packed + first * hidden_blocks * kBlockElements;
    kernels_.pack_hidden(own, own_packed);
    kernels_.sampled_logits(own, const_bits(head_VH_), ids.data() + begin, own_packed,
                            scratch + at::get_thread_num() * kernels::tile_scratch_elements(hidden_),
                            shifts_.data() + begin);
  });
  stats_.assign(rows.size(), {});
  for (size_t r = 0; r < rows.size(); ++r) stats_[r].shift = shifts_[r];

  sum_exponentials(keep);
  if (std::any_of(stats_.begin(), stats_.end(), [](const RowStats& row) { return !(row.sum < kLargestSum); })) {
    check_control();
    shift_to_largest();
    sum_exponentials(keep);
  }
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto t = static_cast<size_t>(rows_[r]);
    const kernels::TokenScore score = kernels::token_score(stats_[r].sum, stats_[r].weighted, stats_[r].excess);
    log_probs_[t] = score.log_prob;
    entropies_[t] = score.entropy;
  }
  require_finite(rows);
}

void TilePass::multiply_back(const kernels::TileRows& rows, const std::vector<float>& coefficients, const uint32_t* keep,
                             at::Tensor& grad_head_VH) {
  const int64_t active_blocks = tile_blocks(rows.rows), hidden_blocks = tile_blocks(hidden_);
  const int64_t grad_elements = active_blocks * hidden_blocks * kBlockElements;
  uint16_t* packed = bits(buffer_of(workspace_.packed_scaled, grad_elements, at::kBFloat16));
  const bool frozen_head = !grad_head_VH.defined();
  if (!frozen_head) kernels_.pack_scaled_hidden(rows, coefficients.data(), packed);

  const int64_t threads = at::get_num_threads(), steps = (vocabulary_ + kVocabularyStep - 1) / kVocabularyStep;
  at::Tensor grad_blocks = buffer_of(workspace_.grad_blocks, threads * grad_elements, at::kFloat);
  float* blocks = grad_blocks.data_ptr<float>();
  uint16_t* scratch = scratch_of_threads();
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t past) {
    for (int64_t thread = first; thread < past; ++thread) {
      float* own = blocks + thread * grad_elements;
      std::fill_n(own, grad_elements, 0.0f);
      const int64_t begin = thread * steps / threads * kVocabularyStep;
      const int64_t end = std::min((thread + 1) * steps / threads * kVocabularyStep, vocabulary_);
      if (begin >= end) continue;
      const kernels::TileBackward job{const_bits(head_VH_), vocabulary_, hidden_,
                                      tile_blocks(static_cast<int64_t>(rows_.size())), active_blocks, keep, begin, end,
                                      bits(workspace_.exponentials), packed, frozen_head ? nullptr : grad_head_VH.data_ptr<float>(), own};
      kernels_.grad_hidden(job, scratch + thread * kernels::tile_scratch_elements(hidden_));
      if (!frozen_head) kernels_.grad_head(job);
    }
  });
  // Thread 0's blocks become the sum, in a fixed order.
  at::parallel_for(0, grad_elements, 1 << 16, [&](int64_t first, int64_t past) {
    for (int64_t thread = 1; thread < threads; ++thread) {
      const float* other = blocks + thread * grad_elements;
      for (int64_t i = first; i < past; ++i) blocks[i] += other[i];
    }
  });
}

// rows: where each active token stands in the blocks; empty: 0, 1, 2, ...
void TilePass::write_grad_hidden(Rows active, Rows rows, const std::vector<float>& coefficients,
                                 at::Tensor& grad_hidden_TH) {
  const bool narrow = grad_hidden_TH.scalar_type() == at::kBFloat16;
  const kernels::TileGradRows job{workspace_.grad_blocks.const_data_ptr<float>(), coefficients.data(),
                                  rows.empty() ? nullptr : rows.data(), active.data(),
                                  static_cast<int64_t>(active.size()), hidden_,
                                  narrow ? bits(grad_hidden_TH) : nullptr,
                                  narrow ? nullptr : grad_hidden_TH.data_ptr<float>()};
  at::parallel_for(0, tile_blocks(hidden_), 4,
                   [&](int64_t first, int64_t past) { kernels_.grad_rows(job, first, past); });
}

void TilePass::backward(Rows active, Rows active_rows, const std::vector<float>& grad_log_prob,
                        const std::vector<float>& grad_entropy, at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH) {
  if (active.empty()) return;
  check_control();
  const int64_t row_blocks = tile_blocks(static_cast<int64_t>(rows_.size())), padded = row_blocks * kTile;
  const bool bonus = !grad_entropy.empty();
  std::vector<float> alpha, beta;
  if (bonus) {
    alpha.assign(static_cast<size_t>(padded), 0.0f);
    beta = alpha;
  }
  std::vector<float> coefficients(rows_.size(), 0.0f);
  std::vector<uint16_t> patches(active.size());
  std::vector<uint32_t> keep(static_cast<size_t>(row_blocks), 0u);
  for (size_t j = 0; j < active.size(); ++j) {
    const auto t = static_cast<size_t>(active[j]), r = static_cast<size_t>(active_rows[j]);
    const RowStats& row = stats_[r];
    keep[r / kTile] |= 1u << (r % kTile);
    const double g = grad_log_prob[t], scale = 1.0 / (static_cast<double>(temperature_) * row.sum);
    const double sampled = std::exp(static_cast<double>(row.excess));
    // The sampled id's gradient from unrounded values: near p = 1 its two parts nearly cancel.
    if (bonus) {
      const double b = -static_cast<double>(grad_entropy[t]);
      alpha[r] = static_cast<float>(b * (static_cast<double>(entropies_[t]) - std::log(row.sum)) - g);
      beta[r] = static_cast<float>(b * std::numbers::ln2);
      coefficients[r] = static_cast<float>(scale);
      const double slope = b * (static_cast<double>(log_probs_[t]) + static_cast<double>(entropies_[t])) - g;
      patches[j] = to_bf16(sampled * slope + g * row.sum);
    } else {
      coefficients[r] = static_cast<float>(-g * scale);
      patches[j] = to_bf16(sampled - row.sum);
    }
  }
  uint16_t* exponentials = bits(workspace_.exponentials);
  if (bonus) {
    at::parallel_for(0, (vocabulary_ + kVocabularyStep - 1) / kVocabularyStep, 1, [&](int64_t first, int64_t past) {
      kernels_.entropy_gradient({exponentials, row_blocks, first * kVocabularyStep,
                                 std::min(past * kVocabularyStep, vocabulary_), alpha.data(), beta.data()});
    });
  }
  for (size_t j = 0; j < active.size(); ++j) {
    const int64_t id = ids_T_[static_cast<size_t>(active[j])];
    exponentials[kernels::exponential_index(id, active_rows[j], row_blocks)] = patches[j];
  }

  // Rows without a gradient leave the products where that saves a whole block; else their coefficient is 0.
  const bool compact = tile_blocks(static_cast<int64_t>(active.size())) < row_blocks;
  if (compact) {
    for (size_t j = 0; j < active.size(); ++j) coefficients[j] = coefficients[static_cast<size_t>(active_rows[j])];
    coefficients.resize(active.size());
  }
  multiply_back(tile_rows(compact ? active : Rows(rows_)), coefficients, compact ? keep.data() : nullptr, grad_head_VH);

  write_grad_hidden(active, compact ? Rows() : active_rows, coefficients, grad_hidden_TH);
  backward_rows_ += static_cast<int64_t>(active.size());
}

}  // namespace archer
