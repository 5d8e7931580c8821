#include "binding/loss_values.h"

#include <ATen/ATen.h>

#include "binding/values.h"
#include "loss/fused_loss.h"
#include "loss/token_classes.h"

namespace archer::binding {
namespace {

// The arrays of lib/native/types.ts, LossArrays, with everything the spans of a LossBatch point into.
struct OwnedBatch {
  std::vector<int32_t> ids, lengths, group_ids;
  std::vector<uint8_t> loss_mask;
  std::vector<double> old_log_probs, old_entropies, ref_log_probs, advantages, thresholds;
  Denominators denominators_;

  explicit OwnedBatch(const Napi::Object& object)
      : ids(array<int32_t>(object, "ids")),
        lengths(array<int32_t>(object, "lengths")),
        group_ids(array<int32_t>(object, "groupIds")),
        loss_mask(array<uint8_t>(object, "lossMask")),
        old_log_probs(array<double>(object, "oldLogProbs")),
        old_entropies(optional_array<double>(object, "oldEntropies")),
        ref_log_probs(optional_array<double>(object, "refLogProbs")),
        advantages(array<double>(object, "advantages")),
        thresholds(optional_array<double>(object, "thresholds")),
        denominators_(denominators(binding::object(object.Get("denominators"), "denominators"))) {}

  LossBatch batch() const {
    LossBatch result;
    result.ids = ids;
    result.lengths = lengths;
    result.group_ids = group_ids;
    result.loss_mask = loss_mask;
    result.old_log_probs = old_log_probs;
    result.old_entropies = old_entropies;
    result.ref_log_probs = ref_log_probs;
    result.advantages = advantages;
    result.thresholds = thresholds;
    result.denominators = denominators_;
    return result;
  }
};

at::ScalarType scalar_type(const std::string& dtype) {
  if (dtype == "float32") return at::kFloat;
  if (dtype == "bfloat16") return at::kBFloat16;
  if (dtype == "float64") return at::kDouble;
  throw ArcherError(kConfig, "dtype must be float32, bfloat16 or float64, not " + dtype);
}

std::vector<double> doubles(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

template <typename F>
std::vector<double> doubles(const std::vector<F>& values) {
  return {values.begin(), values.end()};
}

// What both loss calls return, as JS wants it.
struct CommonResult {
  double loss;
  std::vector<double> log_probs, entropies;
  std::vector<uint8_t> classes;
  std::vector<double> thresholds;
  LossSums sums;

  Napi::Object to_object(Napi::Env env) const {
    Napi::Object result = Napi::Object::New(env);
    result.Set("loss", loss);
    result.Set("pgLoss", sums.pg_loss);
    result.Set("klLoss", sums.kl_loss);
    result.Set("logProbs", to_js(env, log_probs));
    result.Set("entropies", to_js(env, entropies));
    result.Set("classes", to_js(env, classes));
    result.Set("thresholds", to_js(env, thresholds));
    result.Set("sums", sums_to_js(env, sums));
    return result;
  }
};

Napi::Object class_sums_to_js(Napi::Env env, const ClassSums& sums) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("tokens", static_cast<double>(sums.tokens));
  result.Set("entropy", sums.entropy);
  result.Set("pgLoss", sums.pg_loss);
  result.Set("klLoss", sums.kl);
  result.Set("ratio", sums.ratio);
  result.Set("clipped", static_cast<double>(sums.clipped));
  result.Set("clippedLower", static_cast<double>(sums.dual_clipped));
  return result;
}

}  // namespace

Denominators denominators(const Napi::Object& object) {
  return {number(object, "sequences"), number(object, "tokens"), number(object, "lossTokens")};
}

LossOptions loss_options(const Napi::Object& object) {
  LossOptions options;
  options.rho = number(object, "tokenEntropyQuantile");
  options.entropy_tie = entropy_tie_from_name(text(object, "entropyTie"));
  options.entropy_source = entropy_source_from_name(text(object, "entropySource"));
  options.entropy_scope = entropy_scope_from_name(text(object, "entropyScope"));
  options.knowledge() = {number(object, "knowledgeClipLow"), number(object, "knowledgeClipHigh"), number(object, "knowledgeKlCoef")};
  options.reasoning() = {number(object, "reasoningClipLow"), number(object, "reasoningClipHigh"), number(object, "reasoningKlCoef")};
  options.clip_ratio_c = number(object, "clipRatioC");
  options.kl_type = kl_type_from_name(text(object, "klLossType"));
  options.kl_normalizer = kl_normalizer_from_name(text(object, "klNormalizer"));
  options.loss_agg_mode = loss_agg_mode_from_name(text(object, "lossAggMode"));
  options.loss_norm_length = number(object, "lossNormLength");
  options.entropy_coeff = number(object, "entropyCoeff");
  options.temperature = number(object, "temperature");
  options.chunk_tokens = integer(object, "chunkTokens");
  options.validate();
  return options;
}

Napi::Object sums_to_js(Napi::Env env, const LossSums& sums) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("knowledge", class_sums_to_js(env, sums.classes[kKnowledge]));
  result.Set("reasoning", class_sums_to_js(env, sums.classes[kReasoning]));
  result.Set("ppoKl", sums.total().ppo_kl);
  result.Set("thresholdSum", sums.threshold_sum);
  result.Set("thresholdMin", sums.threshold_min);
  result.Set("thresholdMax", sums.threshold_max);
  result.Set("thresholdCount", static_cast<double>(sums.thresholds));
  result.Set("emptyResponses", static_cast<double>(sums.responses_without_loss_tokens));
  return result;
}

Napi::Value run_fused_loss(const Napi::CallbackInfo& info, Jobs& jobs) {
  const Napi::Object request = object(info[0], "options");
  const auto batch = std::make_shared<OwnedBatch>(request);
  const LossOptions options = loss_options(object(request.Get("loss"), "loss"));
  const at::ScalarType dtype = scalar_type(text(request, "dtype"));
  const int64_t hidden_size = integer(request, "hiddenSize");
  auto hidden = array<double>(request, "hidden");
  auto head = array<double>(request, "headWeight");
  const int64_t num_tokens = static_cast<int64_t>(batch->ids.size());
  require(hidden_size >= 1 && static_cast<int64_t>(hidden.size()) == num_tokens * hidden_size, kShape,
          "hidden has " + std::to_string(hidden.size()) + " numbers, not " + std::to_string(num_tokens) + " ids × hiddenSize " +
              std::to_string(hidden_size));
  require(!head.empty() && static_cast<int64_t>(head.size()) % hidden_size == 0, kShape,
          "headWeight has " + std::to_string(head.size()) + " numbers, no multiple of hiddenSize " + std::to_string(hidden_size));
  const auto control = control_argument(info, 1);
  return jobs.run(info.Env(), control, [=, hidden = std::move(hidden), head = std::move(head)]() mutable -> MakeResult {
    const auto tensor = [&](std::vector<double>& values) {
      return at::from_blob(values.data(), {static_cast<int64_t>(values.size()) / hidden_size, hidden_size}, at::kDouble).to(dtype, false, true);
    };
    const at::Tensor hidden_TH = tensor(hidden), head_VH = tensor(head);
    at::Tensor grad_TH = at::zeros_like(hidden_TH);
    at::Tensor grad_VH = at::zeros(head_VH.sizes(), dtype == at::kDouble ? at::kDouble : at::kFloat);
    const FusedLossResult loss = fused_loss(hidden_TH, head_VH, batch->batch(), options, grad_TH, grad_VH, control.get());
    const CommonResult common{loss.loss, loss.log_probs, loss.entropies, loss.classes, loss.thresholds, loss.sums};
    return [common, grad_hidden = doubles(grad_TH), grad_head = doubles(grad_VH)](Napi::Env env) -> Napi::Value {
      Napi::Object result = common.to_object(env);
      result.Set("gradHidden", to_js(env, grad_hidden));
      result.Set("gradHead", to_js(env, grad_head));
      return result;
    };
  });
}

namespace {

template <typename F>
MakeResult token_loss_job(const OwnedBatch& batch, const LossOptions& options, const std::vector<double>& log_probs,
                          const std::vector<double>& entropies) {
  const std::vector<F> typed_log_probs(log_probs.begin(), log_probs.end()), typed_entropies(entropies.begin(), entropies.end());
  const auto loss = token_loss<F>(typed_log_probs, typed_entropies, batch.batch(), options);
  const CommonResult common{loss.loss, log_probs, entropies, loss.classes, loss.thresholds, loss.sums};
  std::vector<double> grad_entropy = doubles(loss.grad_entropy);
  grad_entropy.resize(log_probs.size());  // absent where the entropy bonus is off
  return [common, grad_log_prob = doubles(loss.grad_log_prob), grad_entropy](Napi::Env env) -> Napi::Value {
    Napi::Object result = common.to_object(env);
    result.Set("gradLogProbs", to_js(env, grad_log_prob));
    result.Set("gradEntropies", to_js(env, grad_entropy));
    return result;
  };
}

}  // namespace

Napi::Value run_token_loss(const Napi::CallbackInfo& info, Jobs& jobs) {
  const Napi::Object request = object(info[0], "options");
  const auto batch = std::make_shared<OwnedBatch>(request);
  const LossOptions options = loss_options(object(request.Get("loss"), "loss"));
  const at::ScalarType dtype = scalar_type(text(request, "dtype"));
  auto log_probs = array<double>(request, "logProbs");
  auto entropies = array<double>(request, "entropies");
  return jobs.run(info.Env(), std::make_shared<JobControl>(),
                  [=, log_probs = std::move(log_probs), entropies = std::move(entropies)]() -> MakeResult {
                    return dtype == at::kDouble ? token_loss_job<double>(*batch, options, log_probs, entropies)
                                                : token_loss_job<float>(*batch, options, log_probs, entropies);
                  });
}

Napi::Value run_class_thresholds(const Napi::CallbackInfo& info, Jobs& jobs) {
  const Napi::Object request = object(info[0], "options");
  auto entropies = array<float>(request, "entropies");
  auto lengths = array<int32_t>(request, "lengths");
  auto group_ids = array<int32_t>(request, "groupIds");
  auto loss_mask = array<uint8_t>(request, "lossMask");
  const double quantile = number(request, "quantile");
  const EntropyScope scope = entropy_scope_from_name(text(request, "scope"));
  return jobs.run(info.Env(), std::make_shared<JobControl>(), [=]() -> MakeResult {
    const std::vector<double> thresholds = class_thresholds<float>(entropies, loss_mask, lengths, group_ids, quantile, scope);
    return [thresholds](Napi::Env env) -> Napi::Value { return to_js(env, thresholds); };
  });
}

}  // namespace archer::binding
