// The scheduler. Two rules make each prompt run exactly once, with any number of slots:
//   1. The group that is "open" (prefilled, samples still to start) has the first claim on every free slot, so there
//      is at most one, and its logits row and its source slot are all that must be kept of it.
//   2. The source slot (where the prompt was prefilled) is only ever given to the open group itself, and generated
//      tokens lie behind the prompt: its keys and values stay intact there until the last sample has started.
// A finished slot is refilled before the next decode step; no sequence waits for the slowest.
#include "generate/generate.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>

#include "core/error.h"

namespace archer {
namespace {

constexpr int64_t kPrefillTokens = 4096;             // prompt tokens in one prefill, unless one prompt alone is longer
constexpr int64_t kLogitsBytes = int64_t{64} << 20;  // logits that exist at once

struct Response {
  std::vector<int32_t> ids;
  std::vector<float> log_probs;
  std::vector<float> entropies;
  StopStringMatcher stop_strings;
  FinishReason finish_reason = FinishReason::length;
};

struct Group {
  int64_t prompt = 0;
  int64_t source_slot = 0;
  int64_t num_started = 0;
  at::Tensor logits_1V;  // of the prompt's last token: every sample's first token is drawn from it
};

void validate(const GenerateRequest& request, int64_t vocab_size) {
  const PackedSequences& prompts = request.prompts;
  const int64_t N = prompts.num_sequences();
  require(N >= 1, kShape, "there is no prompt to generate from");
  require(prompts.offsets.front() == 0 && prompts.offsets.back() == prompts.num_tokens(), kShape,
          "the prompts' offsets must run from 0 to the number of tokens, " + std::to_string(prompts.num_tokens()));
  for (int64_t i = 0; i < N; ++i) {
    require(prompts.offsets[i + 1] > prompts.offsets[i], kShape, "prompt " + std::to_string(i) + " has no tokens");
  }
  require(static_cast<int64_t>(request.prompt_keys.size()) == N, kShape,
          std::to_string(request.prompt_keys.size()) + " prompt keys for " + std::to_string(N) + " prompts");
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    require(value >= least, kConfig,
            std::string(name) + " is " + std::to_string(value) + "; it must be at least " + std::to_string(least));
  };
  at_least("num_samples", request.num_samples, 1);
  at_least("max_new_tokens", request.max_new_tokens, 1);
  at_least("max_slots", request.max_slots, 0);
  at_least("kv_budget_bytes", request.kv_budget_bytes, 0);
  archer::validate(request.sampling);
  request.stop.validate(vocab_size);
}

class Generation {
 public:
  Generation(const Transformer& model, const GenerateRequest& request, JobControl* control)
      : model_(model),
        request_(request),
        control_(control),
        num_prompts_(request.prompts.num_sequences()),
        responses_(static_cast<size_t>(num_prompts_ * request.num_samples)) {
    allocate_cache();
    slots_.resize(static_cast<size_t>(stats_.num_slots));
    for (int64_t slot = 0; slot < stats_.num_slots; ++slot) free_slots_.insert(slot);
    if (control_) control_->total = num_prompts_ * request.num_samples * request.max_new_tokens;
  }

  GenerateResult run() {
    admit();
    while (static_cast<int64_t>(free_slots_.size()) < stats_.num_slots) {
      decode_step();
      admit();
    }
    return flatten();
  }

 private:
  // A response in a slot: its newest token, not yet in the cache, belongs at `position`.
  struct Running {
    int64_t response;
    int32_t token;
    int32_t position;
  };

  int64_t prompt_length(int64_t i) const { return request_.prompts.offsets[i + 1] - request_.prompts.offsets[i]; }

  void allocate_cache() {
    const ModelConfig& config = model_.config();
    int64_t longest = 0;
    for (int64_t i = 0; i < num_prompts_; ++i) longest = std::max(longest, prompt_length(i));
    const int64_t capacity = longest + request_.max_new_tokens;
    const int64_t position_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim *
                                   static_cast<int64_t>(c10::elementSize(model_.compute_dtype()));
    const int64_t slot_bytes = position_bytes * capacity;
    const std::string numbers = "one sequence needs " + std::to_string(slot_bytes) +
                                " bytes of keys and values (longest prompt " + std::to_string(longest) +
                                " + max_new_tokens " + std::to_string(request_.max_new_tokens) + " = " +
                                std::to_string(capacity) + " positions of " + std::to_string(position_bytes) +
                                " bytes)";
    int64_t num_slots = num_prompts_ * request_.num_samples;
    if (request_.max_slots > 0) num_slots = std::min(num_slots, request_.max_slots);
    if (request_.kv_budget_bytes > 0) {
      require(request_.kv_budget_bytes >= slot_bytes, kOom,
              numbers + ", the budget is " + std::to_string(request_.kv_budget_bytes) +
                  " bytes: lower max_new_tokens or raise the budget");
      num_slots = std::min(num_slots, request_.kv_budget_bytes / slot_bytes);
    }
    try {
      cache_ = model_.make_cache(num_slots, capacity);
    } catch (const c10::Error& error) {
      throw ArcherError(kOom, numbers + ", " + std::to_string(num_slots) +
                                  " slots could not be allocated: lower max_slots (" + error.what_without_backtrace() +
                                  ")");
    }
    stats_.num_slots = num_slots;
    stats_.kv_cache_bytes = num_slots * slot_bytes;
  }

  // Fills the free slots: the open group first, then prompts that have not run yet.
  void admit() {
    while (true) {
      if (open_) {
        start_samples(*open_);
        if (open_->num_started < request_.num_samples) return;  // no slot is left
        open_.reset();
      }
      if (next_prompt_ == num_prompts_ || free_slots_.empty()) return;
      prefill_batch();
    }
  }

  // Prefills as many prompts as the free slots need, each into a source slot of its own. Only the last of them can
  // lack slots for its samples and stay open: those before it find n slots each, as (groups - 1) * n < free slots.
  void prefill_batch() {
    const int64_t num_free = static_cast<int64_t>(free_slots_.size());
    PackedSequences batch;
    batch.offsets.push_back(0);
    std::vector<Group> groups;
    std::vector<int64_t> source_slots;
    while (next_prompt_ < num_prompts_ && static_cast<int64_t>(groups.size()) * request_.num_samples < num_free &&
           (groups.empty() || batch.num_tokens() + prompt_length(next_prompt_) <= kPrefillTokens)) {
      const auto begin = request_.prompts.ids.begin() + request_.prompts.offsets[next_prompt_];
      batch.ids.insert(batch.ids.end(), begin, begin + prompt_length(next_prompt_));
      batch.offsets.push_back(static_cast<int32_t>(batch.num_tokens()));
      Group group;
      group.prompt = next_prompt_++;
      group.source_slot = *free_slots_.begin();
      free_slots_.erase(free_slots_.begin());
      source_slots.push_back(group.source_slot);
      groups.push_back(group);
    }
    stats_.prefill_tokens += batch.num_tokens();
    const at::Tensor hidden_NH = model_.prefill(batch, source_slots, cache_, control_);
    for_each_logits_chunk(hidden_NH, [&](int64_t first_row, const at::Tensor& logits_MV) {
      for (int64_t row = 0; row < logits_MV.size(0); ++row) {
        Group& group = groups[static_cast<size_t>(first_row + row)];
        group.logits_1V = logits_MV.narrow(0, row, 1);
        free_slots_.insert(group.source_slot);
        start_samples(group);
        if (group.num_started < request_.num_samples) {
          require(!open_, kInternal, "two groups are open at once");
          group.logits_1V = group.logits_1V.clone();
          open_ = group;
        }
      }
    });
  }

  // Draws first tokens while slots are free. A sample that ends with its first token takes no slot.
  void start_samples(Group& group) {
    while (group.num_started < request_.num_samples && !free_slots_.empty()) {
      const int64_t count =
          std::min(request_.num_samples - group.num_started, static_cast<int64_t>(free_slots_.size()));
      std::vector<Draw> draws;
      for (int64_t j = 0; j < count; ++j) {
        draws.push_back(next_draw(0, group.prompt * request_.num_samples + group.num_started + j));
      }
      const std::vector<SampledToken> tokens =
          sample(group.logits_1V, request_.sampling, draws, request_.seed, request_.step);
      for (const SampledToken& token : tokens) {
        const int64_t response = group.prompt * request_.num_samples + group.num_started++;
        if (accept(response, token)) continue;
        const int64_t slot = free_slots_.count(group.source_slot) ? group.source_slot : *free_slots_.begin();
        free_slots_.erase(slot);
        Transformer::copy_slot(cache_, group.source_slot, slot, prompt_length(group.prompt));
        slots_[static_cast<size_t>(slot)] = {response, token.id, static_cast<int32_t>(prompt_length(group.prompt))};
      }
    }
  }

  void decode_step() {
    if (control_) control_->check();
    std::vector<int32_t> ids_B, positions_B, slots_B;
    for (int64_t slot = 0; slot < stats_.num_slots; ++slot) {
      if (free_slots_.count(slot)) continue;
      ids_B.push_back(slots_[static_cast<size_t>(slot)].token);
      positions_B.push_back(slots_[static_cast<size_t>(slot)].position);
      slots_B.push_back(static_cast<int32_t>(slot));
    }
    ++stats_.decode_steps;
    const at::Tensor hidden_BH = model_.decode(ids_B, positions_B, slots_B, cache_, control_);
    for_each_logits_chunk(hidden_BH, [&](int64_t first_row, const at::Tensor& logits_MV) {
      std::vector<Draw> draws;
      for (int64_t row = 0; row < logits_MV.size(0); ++row) {
        draws.push_back(next_draw(row, slots_[static_cast<size_t>(slots_B[first_row + row])].response));
      }
      const std::vector<SampledToken> tokens =
          sample(logits_MV, request_.sampling, draws, request_.seed, request_.step);
      for (size_t row = 0; row < tokens.size(); ++row) {
        const int32_t slot = slots_B[static_cast<size_t>(first_row) + row];
        Running& running = slots_[static_cast<size_t>(slot)];
        if (accept(running.response, tokens[row])) {
          free_slots_.insert(slot);
        } else {
          running.token = tokens[row].id;
          ++running.position;
        }
      }
    });
  }

  template <typename Function>
  void for_each_logits_chunk(const at::Tensor& hidden_MH, Function function) const {
    const int64_t element_size = model_.compute_dtype() == at::kDouble ? 8 : 4;
    const int64_t num_rows = hidden_MH.size(0);
    const int64_t chunk = std::max<int64_t>(1, kLogitsBytes / (model_.config().vocab_size * element_size));
    for (int64_t row = 0; row < num_rows; row += chunk) {
      function(row, model_.logits(hidden_MH.narrow(0, row, std::min(chunk, num_rows - row))));
    }
  }

  // The draw of a response's next token from a row of logits.
  Draw next_draw(int64_t row, int64_t response) const {
    const int64_t prompt = response / request_.num_samples, sample_index = response % request_.num_samples;
    return {row, request_.prompt_keys[static_cast<size_t>(prompt)],
            request_.sample_offset + static_cast<uint32_t>(sample_index),
            static_cast<uint32_t>(responses_[static_cast<size_t>(response)].ids.size())};
  }

  // Appends a token to its response; true if that ends it.
  bool accept(int64_t index, const SampledToken& token) {
    Response& response = responses_[static_cast<size_t>(index)];
    response.ids.push_back(token.id);
    response.log_probs.push_back(static_cast<float>(token.logp));
    response.entropies.push_back(static_cast<float>(token.entropy));
    ++stats_.generated_tokens;
    if (control_) control_->done = stats_.generated_tokens;
    if (request_.on_token) request_.on_token(index / request_.num_samples, index % request_.num_samples, token.id);
    if (request_.stop.is_stop_token(token.id)) {
      response.finish_reason = FinishReason::stop;
    } else if (response.stop_strings.push(token.id, request_.stop)) {
      response.finish_reason = FinishReason::stop_string;
    } else {
      response.finish_reason = FinishReason::length;
      return static_cast<int64_t>(response.ids.size()) == request_.max_new_tokens;
    }
    return true;
  }

  GenerateResult flatten() {
    GenerateResult result;
    result.stats = stats_;
    result.ids.reserve(static_cast<size_t>(stats_.generated_tokens));
    result.log_probs.reserve(static_cast<size_t>(stats_.generated_tokens));
    result.entropies.reserve(static_cast<size_t>(stats_.generated_tokens));
    result.offsets.push_back(0);
    for (const Response& response : responses_) {
      result.ids.insert(result.ids.end(), response.ids.begin(), response.ids.end());
      result.log_probs.insert(result.log_probs.end(), response.log_probs.begin(), response.log_probs.end());
      result.entropies.insert(result.entropies.end(), response.entropies.begin(), response.entropies.end());
      result.offsets.push_back(static_cast<int32_t>(result.ids.size()));
      result.finish_reasons.push_back(response.finish_reason);
    }
    return result;
  }

  const Transformer& model_;
  const GenerateRequest& request_;
  JobControl* control_;
  int64_t num_prompts_;
  std::vector<Response> responses_;  // [N * n]
  KvCache cache_;
  std::vector<Running> slots_;      // valid where the slot is not free
  std::set<int64_t> free_slots_;    // ordered, so that the lowest is taken: runs repeat exactly
  int64_t next_prompt_ = 0;         // the first that has not been prefilled
  std::optional<Group> open_;
  GenerateStats stats_;
};

}  // namespace

GenerateResult generate(const Transformer& model, const GenerateRequest& request, JobControl* control) {
  validate(request, model.config().vocab_size);
  return Generation(model, request, control).run();
}

}  // namespace archer
