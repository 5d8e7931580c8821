#include "binding/policy.h"

#include <ATen/ATen.h>

#include <optional>

#include "binding/tensor_table.h"
#include "binding/values.h"
#include "generate/generate.h"
#include "train/trainer.h"

namespace archer::binding {

ModelConfig model_config(const Napi::Object& object) {
  ModelConfig config;
  config.vocab_size = integer(object, "vocabSize");
  config.hidden_size = integer(object, "hiddenSize");
  config.intermediate_size = integer(object, "intermediateSize");
  config.num_layers = integer(object, "numLayers");
  config.num_heads = integer(object, "numHeads");
  config.num_kv_heads = integer(object, "numKvHeads");
  config.head_dim = integer(object, "headDim");
  config.max_position_embeddings = integer(object, "maxPositionEmbeddings");
  config.rms_norm_eps = number(object, "rmsNormEps");
  config.rope_theta = number(object, "ropeTheta");
  if (!object.Get("ropeScaling").IsUndefined()) {
    const Napi::Object scaling = binding::object(object.Get("ropeScaling"), "ropeScaling");
    config.rope_scaling = Llama3RopeScaling{number(scaling, "factor"), number(scaling, "lowFreqFactor"), number(scaling, "highFreqFactor"),
                                            integer(scaling, "originalMaxPositionEmbeddings")};
  }
  config.qkv_bias = boolean(object, "qkvBias");
  config.output_bias = boolean(object, "outputBias");
  config.mlp_bias = boolean(object, "mlpBias");
  config.qk_norm = boolean(object, "qkNorm");
  config.tie_word_embeddings = boolean(object, "tieWordEmbeddings");
  return config;
}

at::ScalarType compute_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float64") return at::kDouble;
  throw ArcherError(kConfig, "dtype must be float32, bfloat16 or float64, not " + name);
}

namespace {

std::vector<std::string> texts(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  require(value.IsArray(), kShape, std::string(key) + " must be an array");
  const auto list = value.As<Napi::Array>();
  std::vector<std::string> result;
  for (uint32_t i = 0; i < list.Length(); ++i) result.push_back(list.Get(i).ToString().Utf8Value());
  return result;
}

}  // namespace

PackedResponses packed_responses(const Napi::Object& object) {
  return {packed(object, "promptIds", "promptOffsets"), packed(object, "responseIds", "responseOffsets"),
          array<int32_t>(object, "promptOf")};
}

Lora lora_options(const Napi::Object& request) {
  if (request.Get("lora").IsUndefined()) return {};
  const Napi::Object lora = object(request.Get("lora"), "lora");
  return {integer(lora, "rank"), number(lora, "alpha"), texts(lora, "targetModules")};
}

namespace {

StopConditions stop_conditions(const Napi::Object& request) {
  StopConditions stop;
  stop.token_ids = array<int32_t>(request, "stopTokenIds");
  if (request.Get("stopStrings").IsUndefined()) return stop;
  stop.strings = texts(request, "stopStrings");
  const Napi::Object table = object(request.Get("tokenBytes"), "tokenBytes");
  const auto bytes = array<uint8_t>(table, "bytes");
  const auto offsets = array<int32_t>(table, "offsets");
  auto token_bytes = std::make_shared<std::vector<std::string>>();
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    require(0 <= offsets[i] && offsets[i] <= offsets[i + 1] && static_cast<size_t>(offsets[i + 1]) <= bytes.size(), kShape,
            "tokenBytes.offsets must rise from 0 to the length of bytes");
    token_bytes->emplace_back(bytes.begin() + offsets[i], bytes.begin() + offsets[i + 1]);
  }
  stop.token_bytes = std::move(token_bytes);
  return stop;
}

GenerateRequest generate_request(const Napi::Object& object) {
  GenerateRequest request;
  request.prompts = packed(object, "promptIds", "promptOffsets");
  request.prompt_keys = array<uint32_t>(object, "promptKeys");
  request.num_samples = integer(object, "numSamples");
  request.expected_lengths = optional_array<double>(object, "expectedLengths");
  request.sample_offset = static_cast<uint32_t>(number_or(object, "sampleOffset", 0));
  request.seed = static_cast<uint64_t>(integer(object, "seed"));
  request.step = static_cast<uint32_t>(integer(object, "step"));
  request.sampling.temperature = number(object, "temperature");
  request.sampling.top_p = number(object, "topP");
  request.sampling.top_k = integer(object, "topK");
  request.sampling.min_p = number(object, "minP");
  request.max_new_tokens = integer(object, "maxNewTokens");
  request.stop = stop_conditions(object);
  request.max_slots = integer(object, "maxSlots");
  request.kv_budget_bytes = integer(object, "kvBudgetBytes");
  request.batch_invariant = boolean_or(object, "batchInvariant", false);
  return request;
}

}  // namespace

Napi::Function PolicyObject::define(Napi::Env env) {
  return DefineClass(env, "Policy",
                     {InstanceMethod<&PolicyObject::num_parameters>("numParameters"),
                      InstanceMethod<&PolicyObject::memory_bytes>("memoryBytes"),
                      InstanceMethod<&PolicyObject::generate>("generate"),
                      InstanceMethod<&PolicyObject::score>("score"),
                      InstanceMethod<&PolicyObject::logits>("logits"),
                      InstanceMethod<&PolicyObject::save_weights>("saveWeights"),
                      InstanceMethod<&PolicyObject::save_adapters>("saveAdapters"),
                      InstanceMethod<&PolicyObject::base>("base"),
                      InstanceMethod<&PolicyObject::dispose>("dispose")});
}

PolicyObject::PolicyObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PolicyObject>(info) {}

std::shared_ptr<Transformer> PolicyObject::model() const {
  require(model_ != nullptr, kDisposed, "the policy was disposed");
  return model_;
}

Napi::Value PolicyObject::load(const Napi::CallbackInfo& info, const std::shared_ptr<Jobs>& jobs) {
  const Napi::Object request = object(info[0], "options");
  const ModelConfig config = model_config(object(request.Get("config"), "config"));
  const auto table = tensor_table(request.Get("tensors"));
  const at::ScalarType dtype = compute_dtype(text(request, "dtype"));
  const bool trainable = boolean(request, "trainable");
  const Lora lora = lora_options(request);
  std::optional<uint64_t> seed;
  if (lora.rank > 0) {
    const Napi::Object adapters = object(request.Get("lora"), "lora");
    if (!adapters.Get("seed").IsUndefined()) seed = static_cast<uint64_t>(integer(adapters, "seed"));
  }
  const auto control = control_argument(info, 1);
  return jobs->run(info.Env(), control, [=]() -> MakeResult {
    auto model = std::make_shared<Transformer>(config, dtype, trainable, lora);
    if (seed) model->load_fresh_adapters(*seed);
    load_weights(*model, table, control.get());
    return [model, jobs](Napi::Env env) -> Napi::Value { return wrap(env, jobs, model); };
  });
}

Napi::Object PolicyObject::wrap(Napi::Env env, const std::shared_ptr<Jobs>& jobs, const std::shared_ptr<Transformer>& model) {
  const Napi::Object result = constructors(env).policy.New({});
  PolicyObject* self = PolicyObject::Unwrap(result);
  self->jobs_ = jobs;
  self->model_ = model;
  return result;
}

Napi::Value PolicyObject::base(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return wrap(info.Env(), jobs_, std::make_shared<Transformer>(model()->base())); });
}

Napi::Value PolicyObject::num_parameters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(model()->num_parameters())); });
}

Napi::Value PolicyObject::memory_bytes(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    double bytes = 0;
    for (const Parameter& parameter : model()->all()) {
      bytes += static_cast<double>(parameter.compute.nbytes());
      const bool own_master = parameter.master.defined() && parameter.master.data_ptr() != parameter.compute.data_ptr();
      if (own_master) bytes += static_cast<double>(parameter.master.nbytes());
    }
    return Napi::Number::New(info.Env(), bytes);
  });
}

Napi::Value PolicyObject::generate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto request = std::make_shared<GenerateRequest>(generate_request(object(info[0], "request")));
    const auto control = control_argument(info, 1);
    const auto tokens = tokens_argument(info, 1);
    if (tokens && boolean_or(object(info[0], "request"), "streamTokens", false)) {
      request->on_token = [tokens](int64_t prompt, int64_t sample, int32_t id) { tokens->push(prompt, sample, id); };
    }
    return jobs_->run(info.Env(), control, [model = model(), request, control]() -> MakeResult {
      auto result = std::make_shared<GenerateResult>(archer::generate(*model, *request, control.get()));
      return [result](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("ids", to_js(env, result->ids));
        object.Set("offsets", to_js(env, result->offsets));
        object.Set("logProbs", to_js(env, result->log_probs));
        object.Set("entropies", to_js(env, result->entropies));
        std::vector<uint8_t> finish;
        for (const FinishReason reason : result->finish_reasons) finish.push_back(static_cast<uint8_t>(reason));
        object.Set("finish", to_js(env, finish));
        object.Set("prefillTokens", static_cast<double>(result->stats.prefill_tokens));
        object.Set("decodeSteps", static_cast<double>(result->stats.decode_steps));
        object.Set("mostPages", static_cast<double>(result->stats.most_pages));
        object.Set("numPreemptions", static_cast<double>(result->stats.num_preemptions));
        return object;
      };
    });
  });
}

Napi::Value PolicyObject::score(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Object request = object(info[0], "request");
    auto responses = packed_responses(request);
    const double temperature = number(request, "temperature");
    const auto control = control_argument(info, 1);
    return jobs_->run(info.Env(), control, [=, model = model()]() -> MakeResult {
      auto scores = std::make_shared<Scores>(archer::score(*model, responses, temperature, control.get()));
      return [scores](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("logProbs", to_js(env, scores->log_probs));
        object.Set("entropies", to_js(env, scores->entropies));
        return object;
      };
    });
  });
}

Napi::Value PolicyObject::logits(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto sequences = packed(object(info[0], "request"), "ids", "offsets");
    const auto control = control_argument(info, 1);
    return jobs_->run(info.Env(), control, [=, model = model()]() -> MakeResult {
      const at::Tensor logits = model->logits(model->hidden_states(sequences, control.get())).to(at::kFloat).contiguous();
      auto values = std::make_shared<std::vector<float>>(logits.data_ptr<float>(), logits.data_ptr<float>() + logits.numel());
      return [values](Napi::Env env) -> Napi::Value { return to_js(env, *values); };
    });
  });
}

Napi::Value PolicyObject::save_weights(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Object request = object(info[0], "options");
    const std::string path = text(request, "path"), dtype = text(request, "dtype");
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [path, dtype, model = model()]() -> MakeResult {
      const at::ScalarType to = dtype == "float16" ? at::kHalf : compute_dtype(dtype);
      std::vector<std::pair<std::string, at::Tensor>> tensors;
      const auto parameters = model->parameters();
      for (size_t i = 0; i < parameters.size(); ++i) tensors.emplace_back(parameters[i].name, model->merged(static_cast<int64_t>(i)).to(to));
      write_safetensors(path, tensors);
      return [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
    });
  });
}

Napi::Value PolicyObject::save_adapters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::string path = info[0].ToString().Utf8Value();
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [path, model = model()]() -> MakeResult {
      std::vector<std::pair<std::string, at::Tensor>> tensors;
      for (const Parameter& parameter : model->adapters()) tensors.emplace_back(parameter.name, parameter.master);
      write_safetensors(path, tensors);
      return [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
    });
  });
}

void PolicyObject::dispose(const Napi::CallbackInfo& info) {
  if (!model_) return;
  // Freed on the engine thread, after the jobs that still use it.
  try {
    jobs_->run(info.Env(), std::make_shared<JobControl>(), [model = std::move(model_)]() mutable -> MakeResult {
      model.reset();
      return [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
    });
  } catch (const ArcherError&) {
    // the engine has been shut down: nothing runs, and the destructor frees it
  }
  model_.reset();
}

}  // namespace archer::binding
