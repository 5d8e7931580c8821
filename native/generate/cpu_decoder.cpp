#include "generate/cpu_decoder.h"

#include <algorithm>

#include "generate/sampler.h"

namespace archer {
namespace {

constexpr int64_t kLogitsBytes = int64_t{64} << 20;  // logits that exist at once

int64_t logits_row_bytes(const Transformer& model) {
  return model.config().vocab_size * (model.compute_dtype() == at::kDouble ? 8 : 4);
}
int64_t logits_rows(const Transformer& model) { return std::max<int64_t>(1, kLogitsBytes / logits_row_bytes(model)); }

}  // namespace

CpuDecoder::CpuDecoder(const Transformer& model, const GenerateRequest& request, int64_t num_pages, JobControl* control)
    : model_(model),
      request_(request),
      control_(control),
      chunk_rows_(logits_rows(model)),
      cache_(model.config(), model.compute_dtype(), num_pages) {}

void CpuDecoder::set_hidden(const at::Tensor& hidden_MH) {
  hidden_MH_ = hidden_MH;
  chunk_ = at::Tensor();
  chunk_index_ = -1;
}

// The chunk that has this row, computed where it is not the last one asked for.
const at::Tensor& CpuDecoder::logits_of(int64_t row) {
  const int64_t index = row / chunk_rows_, first = index * chunk_rows_;
  if (index != chunk_index_) {
    if (control_) control_->check();
    chunk_ = at::Tensor();  // before there is another
    chunk_ = model_.logits(hidden_MH_.narrow(0, first, std::min(chunk_rows_, hidden_MH_.size(0) - first)));
    chunk_index_ = index;
  }
  return chunk_;
}

void CpuDecoder::prefill(const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N) {
  set_hidden({});
  set_hidden(model_.prefill(sequences, targets_N, cache_, control_));
}

std::vector<SampledToken> CpuDecoder::draw(const std::vector<Draw>& draws) {
  const auto chunk_of = [&](const Draw& draw) { return draw.row == kKeptRow ? kKeptRow : draw.row / chunk_rows_; };
  std::vector<SampledToken> tokens;
  for (auto draw = draws.begin(); draw != draws.end();) {
    const int64_t chunk = chunk_of(*draw);
    std::vector<Draw> of_chunk;
    for (; draw != draws.end() && chunk_of(*draw) == chunk; ++draw) {
      of_chunk.push_back(*draw);
      of_chunk.back().row = chunk == kKeptRow ? 0 : draw->row % chunk_rows_;
    }
    const at::Tensor& logits_MV = chunk == kKeptRow ? kept_1V_ : logits_of(chunk * chunk_rows_);
    const auto drawn = sample(logits_MV, request_.sampling, of_chunk, request_.seed, request_.step, model_.compute_dtype());
    tokens.insert(tokens.end(), drawn.begin(), drawn.end());
  }
  return tokens;
}

std::vector<SampledToken> CpuDecoder::decode(const std::vector<Continuation>& rows) {
  std::vector<int32_t> ids_B, positions_B;
  std::vector<Pages> pages_B;
  std::vector<Draw> draws;
  for (const Continuation& row : rows) {
    ids_B.push_back(row.token);
    positions_B.push_back(row.position);
    pages_B.push_back(row.pages);
    draws.push_back(row.next);
    draws.back().row = static_cast<int64_t>(draws.size()) - 1;
  }
  set_hidden({});
  set_hidden(model_.decode(ids_B, positions_B, pages_B, cache_, control_));
  return draw(draws);
}

int64_t CpuDecoder::peak_bytes(const Transformer& model, int64_t prefill_tokens, int64_t running) {
  const int64_t rows = std::min(running, logits_rows(model));
  return std::max(model.forward_bytes(prefill_tokens), model.forward_bytes(running) + rows * logits_row_bytes(model));
}

}  // namespace archer
