#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <numbers>

namespace archer {

at::Tensor rope_frequencies(const ModelConfig& config) {
  const double head_dim = static_cast<double>(config.head_dim);
  const at::Tensor exponent = at::arange(0, config.head_dim, 2, at::kLong).to(at::kFloat) / head_dim;
  const at::Tensor plain = at::pow(config.rope_theta, exponent).reciprocal();
  if (!config.rope_scaling) return plain;

  // Wavelengths longer than original / low_freq_factor are stretched by `factor`, shorter than original /
  // high_freq_factor are kept, between them the two are blended.
  const Llama3RopeScaling& scaling = *config.rope_scaling;
  const double original = static_cast<double>(scaling.original_max_position_embeddings);
  const at::Tensor wavelength = (2 * std::numbers::pi) / plain;
  const at::Tensor is_slow = wavelength > original / scaling.low_freq_factor;
  const at::Tensor is_fast = wavelength < original / scaling.high_freq_factor;
  const at::Tensor stretched = at::where(is_slow, plain / scaling.factor, plain);
  const at::Tensor smooth =
      (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  const at::Tensor blended = (1 - smooth) * stretched / scaling.factor + smooth * stretched;
  return at::where(is_slow.logical_or(is_fast), stretched, blended);
}

void RopeTable::reserve(int64_t positions) {
  const int64_t have = cosine_.defined() ? cosine_.size(0) : 0;
  if (positions <= have) return;
  const at::NoGradGuard no_grad;
  const int64_t wanted = std::max({positions, 2 * have, int64_t{256}});
  const at::Tensor angles = at::outer(at::arange(wanted, at::kFloat), rope_frequencies(config_));
  cosine_ = angles.cos().to(options_);
  sine_ = angles.sin().to(options_);
}

}  // namespace archer
