// Planning the memory, the step as the device gets it, and the visit around it; see engine.h.
#include "decode/engine.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/philox.h"

namespace archer {
namespace {

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
  in_range("max_rows", limits.max_rows, 1, kMaxDecodeRows);
  in_range("max_positions", limits.max_positions, 1, int64_t{1} << 24);
  in_range("num_pages", limits.num_pages, 1, INT32_MAX);
  in_range("tokens_per_visit", limits.tokens_per_visit, 1, 1024);
  in_range("prefill_tokens", limits.prefill_tokens, 1, 1 << 20);
}

void check_finite(RowState state, uint32_t prompt_key, uint32_t sample_index, uint32_t num_generated) {
  require(state != RowState::faulty, kNumeric,
          "the logits of generated token " + std::to_string(num_generated) + " of sample " +
              std::to_string(sample_index) + " (prompt key " + std::to_string(prompt_key) +
              ") hold NaN or infinity, so there is nothing to sample from");
}

}  // namespace

DecodeEngine::DecodeEngine(DecodeDevice& device, const ModelConfig& config, const DecodeWeights& weights,
                           const DecodeLimits& limits)
    : device_(device), config_(config), weights_(weights), limits_(limits) {
  check_model(config, weights);
  check_limits(limits);
  const size_t work_bytes = work_.lay_out(nullptr, config, limits);
  const size_t free = device.free_bytes();
  require(cache_bytes() + work_bytes <= free, kOom,
          "GPU decoding needs " + std::to_string(cache_bytes()) + " bytes for " + std::to_string(limits.num_pages) +
              " pages of keys and values and " + std::to_string(work_bytes) + " bytes for " +
              std::to_string(limits.max_rows) + " rows; " + std::to_string(free) +
              " bytes are free: lower the KV budget, max_rows or max_positions");
  work_.lay_out(static_cast<char*>(device.allocate(work_bytes)), config, limits);
  try {
    cache_ = static_cast<uint16_t*>(device.allocate(cache_bytes()));
  } catch (...) {
    device.release(work_.base);
    throw;
  }
  device.upload(work_.stop_ids, limits.stop_ids.data(), limits.stop_ids.size() * sizeof(int32_t));
  set_sampling({});
}

DecodeEngine::~DecodeEngine() {
  device_.release(cache_);  // waits for what is still queued
  device_.release(work_.base);
  for (const auto& [buckets, captured] : captured_) device_.forget(captured);
}

size_t DecodeEngine::cache_bytes() const {
  return static_cast<size_t>(limits_.num_pages) * page_bytes(config_);
}

size_t DecodeEngine::page_bytes(const ModelConfig& config) {
  return static_cast<size_t>(config.num_layers * 2 * config.num_kv_heads * kPagePositions * config.head_dim) *
         sizeof(uint16_t);
}

PagedKeys DecodeEngine::layer_cache(int64_t layer) const {
  const int64_t size = config_.num_kv_heads * kPagePositions * config_.head_dim;
  uint16_t* const keys = cache_ + 2 * layer * size;
  return {keys, keys + size, work_.table_BP, work_.pages_per_row, 2 * config_.num_layers * size};
}

void DecodeEngine::copy_page(int32_t from, int32_t to) {
  const int64_t stride = layer_cache(0).page_stride;
  device_.copy(cache_ + to * stride, cache_ + from * stride, page_bytes(config_));
}

int64_t DecodeEngine::positions_after_visit(const DecodeSequence& sequence) const {
  return int64_t{sequence.position} + std::min(sequence.budget, limits_.tokens_per_visit);
}

void DecodeEngine::set_sampling(const SampleSettings& settings) {
  device_.upload(work_.settings, &settings, sizeof settings);
}

// Embedding and all layers of the rows in work_.rows; attend(cache) mixes a layer's values. Leaves work_.normed_TH.
template <typename Attend>
void DecodeEngine::queue_layers(int32_t num_rows, Attend attend) {
  const auto H = static_cast<int32_t>(config_.hidden_size), F = static_cast<int32_t>(config_.intermediate_size);
  const auto N = static_cast<int32_t>(config_.num_heads), K = static_cast<int32_t>(config_.num_kv_heads);
  const auto D = static_cast<int32_t>(config_.head_dim);
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const auto linear = [&](const uint16_t* x, const uint16_t* weight, uint16_t* out, int64_t inputs, int64_t outputs) {
    device_.linear(x, weight, out, false, outputs, num_rows, inputs, outputs);
  };
  const auto norm = [&](const uint16_t* table, const uint16_t* bias, const uint16_t* weight) {
    device_.norm_rows({work_.x_TH, table, work_.delta_TH, bias, weight, work_.normed_TH, work_.rows, num_rows, H, eps});
  };
  norm(weights_.embedding_VH, nullptr, weights_.layers.front().input_norm_H);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const DecodeLayer& layer = weights_.layers[i];
    const PagedKeys cache = layer_cache(static_cast<int64_t>(i));
    linear(work_.normed_TH, layer.qkv_XH, work_.qkv_TX, H, (N + 2 * K) * D);
    device_.append_keys({work_.qkv_TX, layer.qkv_bias_X, layer.q_norm_D, layer.k_norm_D, weights_.cosine, weights_.sine,
                         work_.queries_TND, cache, work_.rows, num_rows, N, K, D, eps});
    attend(cache);
    linear(work_.mixed_TND, layer.output_HO, work_.delta_TH, N * D, H);
    norm(nullptr, layer.output_bias_H, layer.post_norm_H);
    linear(work_.normed_TH, layer.gate_up_2FH, work_.gate_up_T2F, H, 2 * F);
    device_.swiglu({work_.gate_up_T2F, layer.gate_up_bias_2F, work_.inner_TF, num_rows, F});
    linear(work_.inner_TF, layer.down_HF, work_.delta_TH, F, H);
    const bool is_last = i + 1 == weights_.layers.size();
    norm(nullptr, layer.down_bias_H, is_last ? weights_.final_norm_H : weights_.layers[i + 1].input_norm_H);
  }
}

void DecodeEngine::queue_head(const uint16_t* hidden_BH, int32_t num_rows) {
  device_.linear(hidden_BH, weights_.head_VH, work_.logits, true, logits_stride(), num_rows, config_.hidden_size,
                 config_.vocab_size);
}

void DecodeEngine::queue_sample(int32_t num_rows) {
  const auto V = static_cast<int32_t>(config_.vocab_size), num_parts = static_cast<int32_t>(num_sample_parts(V));
  const auto num_stop_ids = static_cast<int32_t>(limits_.stop_ids.size());
  device_.sample({work_.logits, logits_stride(), num_rows, V, work_.settings, num_parts, work_.parts, work_.uniforms_BT,
                  work_.stop_ids, num_stop_ids, limits_.tokens_per_visit, work_.rows, work_.ids_BT, work_.log_probs_BT,
                  work_.entropies_BT});
}

void DecodeEngine::queue_step(int32_t num_rows, int32_t num_splits) {
  const auto N = static_cast<int32_t>(config_.num_heads), K = static_cast<int32_t>(config_.num_kv_heads);
  const auto D = static_cast<int32_t>(config_.head_dim);
  queue_layers(num_rows, [&](const PagedKeys& cache) {
    device_.attend({work_.queries_TND, cache, work_.split_sums, work_.split_scales, work_.mixed_TND, work_.rows,
                    num_rows, N, K, D, num_splits});
  });
  queue_head(work_.normed_TH, num_rows);
  queue_sample(num_rows);
}

int DecodeEngine::captured_step(int32_t num_rows, int32_t num_splits) {
  const std::pair buckets(num_rows, num_splits);
  if (const auto found = captured_.find(buckets); found != captured_.end()) return found->second;
  return captured_[buckets] = device_.capture([&] { queue_step(num_rows, num_splits); });
}

void DecodeEngine::check_token(const std::string& name, int32_t id) const {
  require(id >= 0 && id < config_.vocab_size, kShape,
          name + " has token id " + std::to_string(id) + ", outside the vocabulary of " +
              std::to_string(config_.vocab_size));
}

void DecodeEngine::fill_table(const std::string& name, std::span<const int32_t> pages, int64_t positions,
                              int32_t* table_P) const {
  const auto num_pages = static_cast<size_t>(ceil_div(positions, kPagePositions));
  require(pages.size() >= num_pages, kShape,
          name + " has " + std::to_string(pages.size()) + " pages and needs " + std::to_string(num_pages));
  for (size_t page = 0; page < num_pages; ++page) {
    require(pages[page] >= 0 && pages[page] < limits_.num_pages, kShape,
            name + " names page " + std::to_string(pages[page]) + " of " + std::to_string(limits_.num_pages));
    table_P[page] = pages[page];
  }
}

DecodeEngine::Drawn DecodeEngine::download(size_t num_rows) {
  const size_t count = num_rows * static_cast<size_t>(limits_.tokens_per_visit);
  Drawn drawn{std::vector<DecodeRow>(num_rows), std::vector<int32_t>(count), std::vector<float>(count),
              std::vector<float>(count)};
  device_.download(drawn.rows.data(), work_.rows, num_rows * sizeof(DecodeRow));
  device_.download(drawn.ids.data(), work_.ids_BT, count * sizeof(int32_t));
  device_.download(drawn.log_probs.data(), work_.log_probs_BT, count * sizeof(float));
  device_.download(drawn.entropies.data(), work_.entropies_BT, count * sizeof(float));
  device_.synchronize();
  return drawn;
}

void DecodeEngine::upload(const std::vector<DecodeSequence*>& sequences, uint64_t seed, uint32_t step) {
  const auto B = static_cast<size_t>(bucket(static_cast<int32_t>(sequences.size())));
  const auto T = static_cast<size_t>(limits_.tokens_per_visit), P = static_cast<size_t>(work_.pages_per_row);
  std::vector<DecodeRow> rows(B);
  std::vector<int32_t> table(B * P, 0);
  std::vector<double> uniforms(B * T, 0.0);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const DecodeSequence& sequence = *sequences[i];
    const std::string name = "sequence " + std::to_string(i);
    check_token(name, sequence.token);
    require(sequence.state == RowState::running && sequence.budget >= 1, kShape, name + " has already ended");
    const int64_t positions = positions_after_visit(sequence);
    require(sequence.position >= 0 && positions <= limits_.max_positions, kShape,
            name + " would reach position " + std::to_string(positions) + " of at most " +
                std::to_string(limits_.max_positions));
    fill_table(name, sequence.pages, positions, &table[i * P]);
    rows[i] = {sequence.token, sequence.position, sequence.budget, 0, RowState::running, static_cast<int32_t>(i)};
    for (uint32_t t = 0; t < T; ++t) {
      uniforms[i * T + t] =
          sample_uniform(seed, step, sequence.prompt_key, sequence.sample_index, sequence.num_generated + t);
    }
  }
  device_.upload(work_.rows, rows.data(), rows.size() * sizeof rows[0]);
  device_.upload(work_.table_BP, table.data(), table.size() * sizeof table[0]);
  device_.upload(work_.uniforms_BT, uniforms.data(), uniforms.size() * sizeof uniforms[0]);
}

void DecodeEngine::queue_piece(const std::vector<DecodeRow>& rows) {
  std::vector<PrefillTile> tiles;
  for (size_t r = 0; r < rows.size(); ++r) {
    const bool begins = r == 0 || rows[r].sequence != rows[r - 1].sequence || tiles.back().num_rows == kPrefillTile;
    if (begins) tiles.push_back({static_cast<int32_t>(r), 0});
    ++tiles.back().num_rows;
  }
  device_.upload(work_.rows, rows.data(), rows.size() * sizeof rows[0]);
  device_.upload(work_.tiles, tiles.data(), tiles.size() * sizeof tiles[0]);
  queue_layers(static_cast<int32_t>(rows.size()), [&](const PagedKeys& cache) {
    device_.attend_prompts({work_.queries_TND, cache, work_.mixed_TND, work_.rows, work_.tiles,
                            static_cast<int32_t>(tiles.size()), static_cast<int32_t>(config_.num_heads),
                            static_cast<int32_t>(config_.num_kv_heads), static_cast<int32_t>(config_.head_dim)});
  });
}

void DecodeEngine::prefill(const std::vector<DecodePrompt>& prompts, const std::function<void()>& between_pieces) {
  const auto H = static_cast<size_t>(config_.hidden_size), P = static_cast<size_t>(work_.pages_per_row);
  require(prompts.size() <= static_cast<size_t>(limits_.max_rows), kShape,
          std::to_string(prompts.size()) + " prompts for " + std::to_string(limits_.max_rows) + " rows");
  std::vector<int32_t> table(prompts.size() * P, 0);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const DecodePrompt& prompt = prompts[i];
    const std::string name = "prompt " + std::to_string(i);
    require(!prompt.ids.empty() && static_cast<int64_t>(prompt.ids.size()) <= limits_.max_positions, kShape,
            name + " has " + std::to_string(prompt.ids.size()) + " tokens; it must have between 1 and " +
                std::to_string(limits_.max_positions));
    for (const int32_t id : prompt.ids) check_token(name, id);
    fill_table(name, prompt.pages, static_cast<int64_t>(prompt.ids.size()), &table[i * P]);
  }
  device_.upload(work_.table_BP, table.data(), table.size() * sizeof table[0]);

  std::vector<DecodeRow> piece;
  const auto finish_piece = [&] {
    if (between_pieces) between_pieces();
    queue_piece(piece);
    for (size_t r = 0; r < piece.size(); ++r) {
      const auto i = static_cast<size_t>(piece[r].sequence);
      if (piece[r].position + 1 < static_cast<int32_t>(prompts[i].ids.size())) continue;
      device_.copy(work_.last_BH + i * H, work_.normed_TH + r * H, H * sizeof(uint16_t));
    }
    piece.clear();
  };
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int32_t>(prompts[i].ids.size());
    // The last token is always computed, for its logits.
    for (int32_t t = std::min(prompts[i].first, length - 1); t < length; ++t) {
      piece.push_back({prompts[i].ids[static_cast<size_t>(t)], t, 0, 0, RowState::running, static_cast<int32_t>(i),
                       prompts[i].first});
      if (static_cast<int32_t>(piece.size()) == limits_.prefill_tokens) finish_piece();
    }
  }
  if (!piece.empty()) finish_piece();
  queue_head(work_.last_BH, static_cast<int32_t>(prompts.size()));
}

void DecodeEngine::keep_logits(int32_t prompt) {
  const int64_t stride = logits_stride();
  device_.copy(work_.logits + kept_prompt() * stride, work_.logits + prompt * stride,
               static_cast<size_t>(stride) * sizeof(float));
}

std::vector<kernels::SampledToken> DecodeEngine::draw(const std::vector<DecodeDraw>& draws, uint64_t seed,
                                                      uint32_t step) {
  std::vector<kernels::SampledToken> tokens;
  const auto T = static_cast<size_t>(limits_.tokens_per_visit);
  for (size_t begin = 0; begin < draws.size(); begin += static_cast<size_t>(limits_.max_rows)) {
    const size_t count = std::min(draws.size() - begin, static_cast<size_t>(limits_.max_rows));
    std::vector<DecodeRow> rows(count);
    std::vector<double> uniforms(count * T, 0.0);
    for (size_t i = 0; i < count; ++i) {
      const DecodeDraw& draw = draws[begin + i];
      rows[i] = {0, 0, 1, 0, RowState::running, draw.prompt};
      uniforms[i * T] = sample_uniform(seed, step, draw.prompt_key, draw.sample_index, draw.num_generated);
    }
    device_.upload(work_.rows, rows.data(), count * sizeof rows[0]);
    device_.upload(work_.uniforms_BT, uniforms.data(), uniforms.size() * sizeof uniforms[0]);
    queue_sample(static_cast<int32_t>(count));
    const Drawn drawn = download(count);
    for (size_t i = 0; i < count; ++i) {
      const DecodeDraw& draw = draws[begin + i];
      check_finite(drawn.rows[i].state, draw.prompt_key, draw.sample_index, draw.num_generated);
      tokens.push_back({drawn.ids[i * T], drawn.log_probs[i * T], drawn.entropies[i * T]});
    }
  }
  return tokens;
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

  const auto [rows, ids, log_probs, entropies] = download(count);
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
    check_finite(sequence->state, sequence->prompt_key, sequence->sample_index, sequence->num_generated);
  }
}

}  // namespace archer
