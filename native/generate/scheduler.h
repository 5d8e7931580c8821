// Continuous batching over a decoder, wherever that runs. Without torch.
#pragma once
#include "core/job_control.h"
#include "generate/decoder.h"
#include "generate/request.h"

namespace archer {

// control (may be null): `done` counts generated tokens, `total` is their upper bound N * n * max_new_tokens. It is polled
// before each decode(), and by the decoder.
GenerateResult schedule(Decoder& decoder, const GenerateRequest& request, JobControl* control);

}  // namespace archer
