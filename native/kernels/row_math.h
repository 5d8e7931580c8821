// Arithmetic of one row of logits on its way through the GPU's head kernels, shared by device code, its emulation on
// the CPU and tests: online sums of the softmax, the decision on a row, one element of its gradient (archer.md 2-5).
//   z = u / T;  y = (z - max z) / ln 2;  S = sum 2^y;  X = sum 2^y y
//   ln sum exp z = max z + ln S;  H = ln S - ln2 X / S
//   du_v = (1/T) (g ([v = id] - p_v) + b p_v (ln p_v + H)),  g = dL/dlogp, b = -dL/dH
// Exponents are base 2 because that is what the GPU's exponential unit computes. y is held above -150, where 2^y is 0,
// so that a logit of -inf adds 0 instead of 0 * -inf; NaN and +inf turn S into NaN, which is how a row's flag is found.
// Neither torch nor Node, C++17.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernels/head_rows.h"

#if !defined(__CUDA_ARCH__)
#include <cfloat>
#endif

namespace archer {

constexpr float kLn2 = 0.693147180559945309f;
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kExponentFloor = -150.0f;
constexpr float kLowestFloat = -3.402823466e+38f;

// 2^y, with results below the smallest normal number flushed to 0.
ARCHER_HOST_DEVICE inline float exp2_flushed(float y) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(y));
  return result;
#else
  const float result = std::exp2(y);
  return result < FLT_MIN ? 0.0f : result;
#endif
}

// The larger one, NaN where one of them is NaN (fmaxf would drop it).
ARCHER_HOST_DEVICE inline float max_or_nan(float a, float b) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a != a ? a : b != b ? b : a > b ? a : b;
#endif
}

// The larger one; a NaN loses against a number.
ARCHER_HOST_DEVICE inline float max_of(float a, float b) { return fmaxf(a, b); }

ARCHER_HOST_DEVICE inline float bits_to_float(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

ARCHER_HOST_DEVICE inline uint32_t float_to_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

// Sums over a part of a row, relative to the part's own maximum (of the undivided logits).
struct RowSums {
  float max, sum, weighted;  // m, S, X; sum is NaN where the part holds NaN or +inf
};

ARCHER_HOST_DEVICE inline RowSums empty_sums() { return {kLowestFloat, 0.0f, 0.0f}; }

// `scale` = log2(e) / T.
template <int kCount>
ARCHER_HOST_DEVICE inline void absorb(RowSums& sums, const float (&logits)[kCount], float scale) {
  float max = logits[0];
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 1; i < kCount; ++i) max = max_of(max, logits[i]);
  if (max > sums.max) {
    const float shift = max_or_nan((sums.max - max) * scale, kExponentFloor);
    const float factor = exp2_flushed(shift);
    sums.weighted = factor * (sums.weighted + sums.sum * shift);
    sums.sum *= factor;
    sums.max = max;
  }
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < kCount; ++i) {
    // The difference first: with large logits u * scale - m * scale would lose what matters.
    const float y = max_or_nan((logits[i] - sums.max) * scale, kExponentFloor);
    const float e = exp2_flushed(y);
    sums.sum += e;
    sums.weighted += e * y;
  }
}

ARCHER_HOST_DEVICE inline RowSums merge(const RowSums& a, const RowSums& b, float scale) {
  const float max = max_of(a.max, b.max);
  const float shift_a = max_or_nan((a.max - max) * scale, kExponentFloor);
  const float shift_b = max_or_nan((b.max - max) * scale, kExponentFloor);
  const float factor_a = exp2_flushed(shift_a), factor_b = exp2_flushed(shift_b);
  return {max, factor_a * a.sum + factor_b * b.sum,
          factor_a * (a.weighted + a.sum * shift_a) + factor_b * (b.weighted + b.sum * shift_b)};
}

// What the gradient row is made from.
struct RowGradient {
  float max, log2_sum;      // m, log2 S
  float constant, slope;    // du_v = p_v (constant + slope log2 p_v), both divided by T
  float target;             // du of the sampled id, from the unrounded value
  bool active;              // false: the whole row is 0
};

// g, b: see above. Near p = 1 the two parts of the sampled id's element cancel; expm1 keeps what is left.
ARCHER_HOST_DEVICE inline RowGradient row_gradient(const RowStats& stats, float g, float b, float inverse_temperature) {
  const float g_over_t = g * inverse_temperature, b_over_t = b * inverse_temperature;
  RowGradient gradient;
  gradient.max = stats.max;
  gradient.log2_sum = stats.log_sum * kLog2E;
  gradient.constant = b_over_t * stats.entropy - g_over_t;
  gradient.slope = b_over_t * kLn2;
  gradient.active = g != 0.0f || b != 0.0f;
  const float p = std::exp(stats.log_prob);
  const float bonus = b != 0.0f ? b_over_t * p * (stats.log_prob + stats.entropy) : 0.0f;
  gradient.target = g_over_t * -std::expm1(stats.log_prob) + bonus;
  return gradient;
}

template <bool kBonus>
ARCHER_HOST_DEVICE inline float gradient_element(float logit, const RowGradient& gradient, float scale) {
  const float y = (logit - gradient.max) * scale - gradient.log2_sum;
  if (!kBonus) return exp2_flushed(y) * gradient.constant;
  const float log2_p = max_of(y, kExponentFloor);
  return exp2_flushed(log2_p) * (gradient.slope * log2_p + gradient.constant);
}

// Log-probability and entropy from the sums of the whole row. `target`: the undivided logit of the sampled id.
// Sets kRowNotFinite (every field NaN) or kRowZeroProbability (log_prob -inf) in flags.
ARCHER_HOST_DEVICE inline RowStats finish_row(const RowSums& sums, float target, float inverse_temperature,
                                              uint8_t& flags) {
  if (!(sums.sum > 0.0f)) {
    flags |= kRowNotFinite;
    const float nan = bits_to_float(0x7FC00000u);
    return {nan, nan, nan, nan};
  }
  const float log_sum = std::log(sums.sum);
  const float entropy = log_sum - kLn2 * (sums.weighted / sums.sum);
  const RowStats stats{sums.max, log_sum, (target - sums.max) * inverse_temperature - log_sum,
                       entropy > 0.0f ? entropy : 0.0f};
  if (!(stats.log_prob >= kLowestFloat)) flags |= kRowZeroProbability;
  return stats;
}

// A row's inputs of mode fused, loaded before its logits have been reduced so that nobody waits for them afterwards.
struct RowInputs {
  float old_log_prob, ref_log_prob, advantage, pg_weight, kl_weight;
  int token_class;
  double threshold;
};

ARCHER_HOST_DEVICE inline RowInputs load_inputs(const HeadRowsParams& p, int64_t row) {
  const float pg_weight = p.pg_weights[row];
  return {p.old_log_probs[row],
          p.ref_log_probs ? p.ref_log_probs[row] : 0.0f,
          p.advantages[row],
          pg_weight,
          p.kl_weights ? p.kl_weights[row] : pg_weight,
          p.classes ? p.classes[row] : 0,
          p.thresholds ? p.thresholds[row] : 0.0};
}

struct RowDecision {
  RowTerms terms;
  float g, b;
};

// The loss terms of a row whose statistics are known, and its g and b; token_math.h has the formulas. A row that
// finish_row() has flagged takes no part and its terms are 0: nothing of it spreads.
ARCHER_HOST_DEVICE inline RowDecision decide_row(const HeadRowsParams& p, const RowInputs& in, const RowStats& stats,
                                                 uint8_t& flags) {
  RowDecision decision{{0.0f, 0.0f, 0.0f, 0.0f}, 0.0f, 0.0f};
  if (flags & kRowFaults) return decision;
  bool reasoning = in.token_class == 1;
  if (p.thresholds) {
    const double entropy = static_cast<double>(stats.entropy);
    reasoning = p.tie_is_reasoning ? entropy >= in.threshold : entropy > in.threshold;
  }
  if (reasoning) flags |= kRowReasoning;
  const ClipEdges<float> edges{reasoning ? p.edges[1].low : p.edges[0].low,
                               reasoning ? p.edges[1].high : p.edges[0].high,
                               reasoning ? p.edges[1].dual_clip : p.edges[0].dual_clip};
  const PolicyTerm<float> policy = policy_term(stats.log_prob, in.old_log_prob, in.advantage, edges);
  decision.terms.ratio = policy.ratio;
  decision.terms.pg_loss = policy.loss;
  decision.g = in.pg_weight * policy.grad;
  if (p.ref_log_probs) {
    const KlTerm<float> kl = kl_term(stats.log_prob, in.ref_log_prob, p.kl_type);
    decision.terms.kl = kl.value;
    decision.g += in.kl_weight * (reasoning ? p.kl_coef[1] : p.kl_coef[0]) * kl.grad;
  }
  decision.b = p.entropy_coeff * in.pg_weight;
  decision.terms.grad_log_prob = decision.g;
  if (policy.clipped) flags |= kRowClipped;
  if (policy.dual_clipped) flags |= kRowDualClipped;
  if (decision.g != 0.0f || decision.b != 0.0f) flags |= kRowActive;
  return decision;
}

}  // namespace archer
