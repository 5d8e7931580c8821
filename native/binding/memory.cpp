#include "binding/memory.h"

#include "binding/engine.h"
#include "binding/policy.h"
#include "binding/values.h"
#include "generate/generate.h"
#include "train/memory.h"

namespace archer::binding {

Napi::Value memory_parts(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Object request = object(info[0], "request");
    const ModelConfig config = model_config(object(request.Get("config"), "config"));
    const at::ScalarType dtype = compute_dtype(text(request, "dtype"));
    const Lora lora = lora_options(request);
    const TrainingMemory training =
        training_memory(config, dtype, lora, integer(request, "microBatchTokens"), boolean(request, "gradientCheckpointing"),
                        static_cast<int>(integer(request, "numThreads")));
    const int64_t sampling = sampling_bytes(Transformer(config, dtype, false, lora), integer(request, "promptTokens"),
                                            integer(request, "longestSequence"), integer(request, "running"));
    Napi::Object parts = Napi::Object::New(info.Env());
    const auto set = [&](const char* name, int64_t value) { parts.Set(name, static_cast<double>(value)); };
    set("weights", training.weights);
    set("masters", training.masters);
    set("gradients", training.gradients);
    set("moments", training.moments);
    set("activations", training.activations);
    set("microBatch", training.micro_batch);
    set("lossChunk", training.loss_chunk);
    set("scoring", training.scoring);
    set("sampling", sampling);
    set("page", KvCache::page_bytes(config, dtype));
    set("pagePositions", kKvPage);
    return parts;
  });
}

}  // namespace archer::binding
