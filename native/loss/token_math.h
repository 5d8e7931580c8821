// Per-token formulas of the Archer loss (archer.md sections 3 and 5), shared by host and device code: values and exact
// derivatives with respect to logp of the clipped policy-gradient term and of every KL estimator.
// Neither torch nor Node, C++17, F = float or double. Derivatives at kinks: archer.md section 5.
#pragma once
#include <cmath>

#if defined(__CUDACC__)
#define ARCHER_HOST_DEVICE __host__ __device__
#else
#define ARCHER_HOST_DEVICE
#endif

namespace archer {

// low_var_kl is verl's name of k3. k3_plus: the value of k3 with the gradient of k2.
enum class KlType { k1, k2, k3, abs, k3_plus };

// The three edges of one token class: r is clipped to [low, high]; dual_clip = c of the dual clip, 0 = none.
template <typename F>
struct ClipEdges {
  F low, high, dual_clip;
};

template <typename F>
struct PolicyTerm {
  F ratio;             // r = exp(clamp(logp - logp_old, -20, 20))
  F loss;              // max(-A r, -A clip(r)), for A < 0 with dual clip at most -A c
  F grad;              // d loss / d logp
  bool clipped;        // the clipped side is the larger one, as verl counts actor/pg_clipfrac
  bool dual_clipped;   // the dual clip took over, as verl counts actor/pg_clipfrac_lower
};

template <typename F>
ARCHER_HOST_DEVICE inline PolicyTerm<F> policy_term(F log_prob, F old_log_prob, F advantage,
                                                    const ClipEdges<F>& edges) {
  const F log_ratio = log_prob - old_log_prob;
  const bool out_of_range = log_ratio > F(20) || log_ratio < F(-20);
  const F ratio = std::exp(log_ratio > F(20) ? F(20) : log_ratio < F(-20) ? F(-20) : log_ratio);
  const F clipped_ratio = ratio > edges.high ? edges.high : ratio < edges.low ? edges.low : ratio;

  PolicyTerm<F> term{ratio, F(0), F(0), false, false};
  if (advantage == F(0)) return term;
  bool active;
  if (advantage > F(0)) {
    active = ratio <= edges.high;
    term.clipped = !active;
    term.loss = active ? -advantage * ratio : -advantage * clipped_ratio;
  } else {
    const bool above_dual = edges.dual_clip > F(0) && ratio > edges.dual_clip;
    active = ratio >= edges.low && !above_dual;
    term.clipped = ratio < edges.low;
    term.dual_clipped = above_dual;
    term.loss = -advantage * (above_dual ? edges.dual_clip : ratio < edges.low ? clipped_ratio : ratio);
  }
  if (active && !out_of_range) term.grad = -advantage * ratio;
  return term;
}

template <typename F>
struct KlTerm {
  F value;
  F grad;  // d value / d logp
};

// The clamps of k3: its argument d = logp_ref - logp to +-20 and its value to +-10; the gradient is 0 where a clamp
// acts, which leaves d in about (-11.0, 2.611): there e^d - d - 1 <= 10. The other estimators have no clamps.
template <typename F>
ARCHER_HOST_DEVICE inline KlTerm<F> kl_term(F log_prob, F ref_log_prob, KlType type) {
  const F difference = log_prob - ref_log_prob;
  if (type == KlType::k1) return {difference, F(1)};
  if (type == KlType::k2) return {F(0.5) * difference * difference, difference};
  if (type == KlType::abs) {
    return {difference < F(0) ? -difference : difference, difference > F(0) ? F(1) : difference < F(0) ? F(-1) : F(0)};
  }
  const F d = -difference > F(20) ? F(20) : -difference < F(-20) ? F(-20) : -difference;
  // expm1 keeps the small values that KL has near the reference model, where e^d - 1 - d would cancel.
  const F exp_minus_1 = std::expm1(d);
  const F raw = exp_minus_1 - d;
  const bool clamped = raw > F(10) || -difference != d;
  const F value = raw > F(10) ? F(10) : raw;
  if (type == KlType::k3_plus) return {value, difference};
  return {value, clamped ? F(0) : -exp_minus_1};
}

}  // namespace archer
