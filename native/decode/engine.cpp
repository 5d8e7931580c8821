// Planning the memory, the step as the device gets it, and the visit around it; see engine.h.
#include "decode/engine.h"

#include <algorithm>
#include <string>
#include <type_traits>

#include "core/error.h"
#include "core/philox.h"

namespace archer {
namespace {

constexpr int32_t kMaxRows = 256;

int32_t ceil_div(int64_t value, int64_t by) { return static_cast<int32_t>((value + by - 1) / by); }

// The next power of two: batch and context buckets.
int32_t bucket(int32_t value) {
  int32_t size = 1;
  while (size < value) size *= 2;
  return size;
}

void check_model(const ModelConfig& config, const DecodeWeights& weights) {
  const auto refuse_unless = [](bool holds, const std::string& text) {
    require(holds, kModel, "GPU decoding: " + text);
  };
  refuse_unless(config.head_dim == 64 || config.head_dim == 128,
                "head_dim is " + std::to_string(config.head_dim) + "; it must be 64 or 128");
  refuse_unless(config.num_heads <= config.num_kv_heads * kMaxGroup,
                std::to_string(config.num_heads) + " heads share " + std::to_string(config.num_kv_heads) +
                    " key-value heads; at most " + std::to_string(kMaxGroup) + " may share one");
  refuse_unless(config.hidden_size % 8 == 0 && config.intermediate_size % 8 == 0,
                "hidden_size " + std::to_string(config.hidden_size) + " and intermediate_size " +
                    std::to_string(config.intermediate_size) + " must be multiples of 8");
  refuse_unless(static_cast<int64_t>(weights.layers.size()) == config.num_layers,
                std::to_string(weights.layers.size()) + " layers of weights for " + std::to_string(config.num_layers));
}

void check_limits(const DecodeLimits& limits) {
  const auto in_range = [](const char* name, int64_t value, int64_t least, int64_t most) {
    require(value >= least && value <= most, kConfig,
            std::string(name) + " is " + std::to_string(value) + "; it must lie between " + std::to_string(least) +
                " and " + std::to_string(most));
  };
  in_range("max_rows", limits.max_rows, 1, kMaxRows);
  in_range("max_positions", limits.max_positions, 1, int64_t{1} << 24);
  in_range("num_pages", limits.num_pages, 1, INT32_MAX);
  in_range("tokens_per_visit", limits.tokens_per_visit, 1, 1024);
}

}  // namespace

DecodeEngine::DecodeEngine(DecodeDevice& device, const ModelConfig& config, const DecodeWeights& weights,
                           const DecodeLimits& limits)
    : device_(device), config_(config), weights_(weights), limits_(limits) {
  check_model(config, weights);
  check_limits(limits);
  pages_per_row_ = ceil_div(limits.max_positions, kPagePositions);
  max_splits_ = bucket(ceil_div(limits.max_positions, kSplitPositions));
  workspace_bytes_ = lay_out(nullptr);
  const size_t free = device.free_bytes();
  require(cache_bytes() + workspace_bytes_ <= free, kOom,
          "GPU decoding needs " + std::to_string(cache_bytes()) + " bytes for " + std::to_string(limits.num_pages) +
              " pages of keys and values and " + std::to_string(workspace_bytes_) + " bytes for " +
              std::to_string(limits.max_rows) + " rows; " + std::to_string(free) +
              " bytes are free: lower the KV budget, max_rows or max_positions");
  workspace_ = static_cast<char*>(device.allocate(workspace_bytes_));
  try {
    cache_ = static_cast<uint16_t*>(device.allocate(cache_bytes()));
  } catch (...) {
    device.release(workspace_);
    throw;
  }
  lay_out(workspace_);
  device.upload(stop_ids_, limits.stop_ids.data(), limits.stop_ids.size() * sizeof(int32_t));
  set_sampling({});
}

DecodeEngine::~DecodeEngine() {
  device_.release(cache_);
  device_.release(workspace_);
}

size_t DecodeEngine::cache_bytes() const {
  return static_cast<size_t>(config_.num_layers * 2 * limits_.num_pages * config_.num_kv_heads * kPagePositions *
                             config_.head_dim) *
         sizeof(uint16_t);
}

int64_t DecodeEngine::logits_stride() const { return (config_.vocab_size + 3) / 4 * 4; }

// Points every part of the workspace behind `base` and returns its size.
size_t DecodeEngine::lay_out(char* base) {
  size_t bytes = 0;
  const auto take = [&](auto*& part, int64_t count) {
    part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(reinterpret_cast<uintptr_t>(base) + bytes);
    bytes += (static_cast<size_t>(count) * sizeof(*part) + 255) / 256 * 256;
  };
  const int64_t B = bucket(limits_.max_rows), T = limits_.tokens_per_visit, H = config_.hidden_size;
  const int64_t F = config_.intermediate_size, N = config_.num_heads, D = config_.head_dim;
  take(x_BH_, B * H);
  take(normed_BH_, B * H);
  take(qkv_BX_, B * (N + 2 * config_.num_kv_heads) * D);
  take(queries_BND_, B * N * D);
  take(mixed_BND_, B * N * D);
  take(delta_BH_, B * H);
  take(gate_up_B2F_, B * 2 * F);
  take(inner_BF_, B * F);
  take(split_sums_, B * N * max_splits_ * D);
  take(split_scales_, B * N * max_splits_ * 2);
  take(logits_, B * logits_stride());
  take(parts_, B * num_sample_parts(config_.vocab_size) * 4);
  take(settings_, 1);
  take(rows_, B);
  take(table_BP_, B * pages_per_row_);
  take(stop_ids_, static_cast<int64_t>(limits_.stop_ids.size()));
  take(uniforms_BT_, B * T);
  take(ids_BT_, B * T);
  take(log_probs_BT_, B * T);
  take(entropies_BT_, B * T);
  return bytes;
}

PagedKeys DecodeEngine::layer_cache(int64_t layer) const {
  const int64_t size = limits_.num_pages * config_.num_kv_heads * kPagePositions * config_.head_dim;
  return {cache_ + 2 * layer * size, cache_ + (2 * layer + 1) * size, table_BP_, pages_per_row_};
}

int64_t DecodeEngine::positions_after_visit(const DecodeSequence& sequence) const {
  return int64_t{sequence.position} + std::min(sequence.budget, limits_.tokens_per_visit);
}

void DecodeEngine::set_sampling(const SampleSettings& settings) {
  device_.upload(settings_, &settings, sizeof settings);
}

void DecodeEngine::queue_step(int32_t num_rows, int32_t num_splits) {
  const auto H = static_cast<int32_t>(config_.hidden_size), F = static_cast<int32_t>(config_.intermediate_size);
  const auto N = static_cast<int32_t>(config_.num_heads), K = static_cast<int32_t>(config_.num_kv_heads);
  const auto D = static_cast<int32_t>(config_.head_dim);
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const auto linear = [&](const uint16_t* x, const uint16_t* weight, uint16_t* out, int64_t inputs, int64_t outputs) {
    device_.linear(x, weight, out, false, outputs, num_rows, inputs, outputs);
  };
  const auto norm = [&](const uint16_t* table, const uint16_t* bias, const uint16_t* weight) {
    device_.norm_rows({x_BH_, table, delta_BH_, bias, weight, normed_BH_, rows_, num_rows, H, eps});
  };
  norm(weights_.embedding_VH, nullptr, weights_.layers.front().input_norm_H);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const DecodeLayer& layer = weights_.layers[i];
    const PagedKeys cache = layer_cache(static_cast<int64_t>(i));
    linear(normed_BH_, layer.qkv_XH, qkv_BX_, H, (N + 2 * K) * D);
    device_.append_keys({qkv_BX_, layer.qkv_bias_X, layer.q_norm_D, layer.k_norm_D, weights_.cosine, weights_.sine,
                         queries_BND_, cache, rows_, num_rows, N, K, D, eps});
    device_.attend({queries_BND_, cache, split_sums_, split_scales_, mixed_BND_, rows_, num_rows, N, K, D, num_splits});
    linear(mixed_BND_, layer.output_HO, delta_BH_, N * D, H);
    norm(nullptr, layer.output_bias_H, layer.post_norm_H);
    linear(normed_BH_, layer.gate_up_2FH, gate_up_B2F_, H, 2 * F);
    device_.swiglu({gate_up_B2F_, layer.gate_up_bias_2F, inner_BF_, num_rows, F});
    linear(inner_BF_, layer.down_HF, delta_BH_, F, H);
    const bool is_last = i + 1 == weights_.layers.size();
    norm(nullptr, layer.down_bias_H, is_last ? weights_.final_norm_H : weights_.layers[i + 1].input_norm_H);
  }
  const auto V = static_cast<int32_t>(config_.vocab_size);
  device_.linear(normed_BH_, weights_.head_VH, logits_, true, logits_stride(), num_rows, H, V);
  device_.sample({logits_, logits_stride(), num_rows, V, settings_, static_cast<int32_t>(num_sample_parts(V)), parts_,
                  uniforms_BT_, stop_ids_, static_cast<int32_t>(limits_.stop_ids.size()), limits_.tokens_per_visit,
                  rows_, ids_BT_, log_probs_BT_, entropies_BT_});
}

int DecodeEngine::captured_step(int32_t num_rows, int32_t num_splits) {
  const auto [found, is_new] = captured_.try_emplace({num_rows, num_splits}, -1);
  if (is_new) found->second = device_.capture([&] { queue_step(num_rows, num_splits); });
  return found->second;
}

void DecodeEngine::upload(const std::vector<DecodeSequence*>& sequences, uint64_t seed, uint32_t step) {
  const auto B = static_cast<size_t>(bucket(static_cast<int32_t>(sequences.size())));
  const auto T = static_cast<size_t>(limits_.tokens_per_visit), P = static_cast<size_t>(pages_per_row_);
  std::vector<DecodeRow> rows(B);
  std::vector<int32_t> table(B * P, 0);
  std::vector<double> uniforms(B * T, 0.0);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const DecodeSequence& sequence = *sequences[i];
    const std::string name = "sequence " + std::to_string(i);
    require(sequence.token >= 0 && sequence.token < config_.vocab_size, kShape,
            name + " has token id " + std::to_string(sequence.token) + ", outside the vocabulary of " +
                std::to_string(config_.vocab_size));
    require(sequence.state == RowState::running && sequence.budget >= 1, kShape, name + " has already ended");
    const int64_t positions = positions_after_visit(sequence);
    require(sequence.position >= 0 && positions <= limits_.max_positions, kShape,
            name + " would reach position " + std::to_string(positions) + " of at most " +
                std::to_string(limits_.max_positions));
    const size_t num_pages = static_cast<size_t>(ceil_div(positions, kPagePositions));
    require(sequence.pages.size() >= num_pages, kShape,
            name + " has " + std::to_string(sequence.pages.size()) + " pages; its visit needs " +
                std::to_string(num_pages));
    for (size_t page = 0; page < num_pages; ++page) {
      const int32_t entry = sequence.pages[page];
      require(entry >= 0 && entry < limits_.num_pages, kShape,
              name + " names page " + std::to_string(entry) + " of " + std::to_string(limits_.num_pages));
      table[i * P + page] = entry;
    }
    rows[i] = {sequence.token, sequence.position, sequence.budget, 0, RowState::running, {}};
    for (uint32_t t = 0; t < T; ++t) {
      uniforms[i * T + t] =
          sample_uniform(seed, step, sequence.prompt_key, sequence.sample_index, sequence.num_generated + t);
    }
  }
  device_.upload(rows_, rows.data(), rows.size() * sizeof rows[0]);
  device_.upload(table_BP_, table.data(), table.size() * sizeof table[0]);
  device_.upload(uniforms_BT_, uniforms.data(), uniforms.size() * sizeof uniforms[0]);
}

void DecodeEngine::visit(const std::vector<DecodeSequence*>& sequences, uint64_t seed, uint32_t step) {
  if (sequences.empty()) return;
  require(static_cast<int64_t>(sequences.size()) <= limits_.max_rows, kShape,
          std::to_string(sequences.size()) + " sequences for " + std::to_string(limits_.max_rows) + " rows");
  upload(sequences, seed, step);
  int64_t longest = 0;
  int32_t num_steps = 0;
  for (const DecodeSequence* sequence : sequences) {
    longest = std::max(longest, positions_after_visit(*sequence));
    num_steps = std::max(num_steps, std::min(sequence->budget, limits_.tokens_per_visit));
  }
  const size_t count = sequences.size(), T = static_cast<size_t>(limits_.tokens_per_visit);
  const int captured =
      captured_step(bucket(static_cast<int32_t>(count)), bucket(ceil_div(longest, kSplitPositions)));
  for (int32_t t = 0; t < num_steps; ++t) device_.replay(captured);

  std::vector<DecodeRow> rows(count);
  std::vector<int32_t> ids(count * T);
  std::vector<float> log_probs(count * T), entropies(count * T);
  device_.download(rows.data(), rows_, count * sizeof rows[0]);
  device_.download(ids.data(), ids_BT_, ids.size() * sizeof ids[0]);
  device_.download(log_probs.data(), log_probs_BT_, log_probs.size() * sizeof log_probs[0]);
  device_.download(entropies.data(), entropies_BT_, entropies.size() * sizeof entropies[0]);
  device_.synchronize();
  for (size_t i = 0; i < count; ++i) {
    DecodeSequence& sequence = *sequences[i];
    const DecodeRow& row = rows[i];
    const auto first = static_cast<std::ptrdiff_t>(i * T), past = first + row.drawn;
    sequence.token = row.token;
    sequence.position = row.position;
    sequence.budget = row.budget;
    sequence.num_generated += static_cast<uint32_t>(row.drawn);
    sequence.state = row.state;
    sequence.ids.assign(ids.begin() + first, ids.begin() + past);
    sequence.log_probs.assign(log_probs.begin() + first, log_probs.begin() + past);
    sequence.entropies.assign(entropies.begin() + first, entropies.begin() + past);
  }
  for (const DecodeSequence* sequence : sequences) {
    require(sequence->state != RowState::faulty, kNumeric,
            "the logits of generated token " + std::to_string(sequence->num_generated) + " of sample " +
                std::to_string(sequence->sample_index) + " (prompt key " + std::to_string(sequence->prompt_key) +
                ") hold NaN or infinity, so there is nothing to sample from");
  }
}

}  // namespace archer
