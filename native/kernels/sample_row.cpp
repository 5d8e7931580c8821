// Two passes over the row, the maximum and then the sums, plus one block of it where the draw falls: no array of
// probabilities is written, and nothing is sorted but the candidates of a truncated choice.
#include "kernels/sample_row.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#if defined(__x86_64__)
#define ARCHER_X86_TARGETS 1
#define ARCHER_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma")))
#define ARCHER_AVX2 __attribute__((target("avx2,fma")))
#endif

namespace archer::kernels {
namespace {

constexpr int64_t kBlock = 512;       // ids per partial sum
constexpr double kUnderflow = -708.0;  // below it e^x is taken as 0

[[gnu::always_inline]] inline double exp_body(double x) {
  const double clamped = x < kUnderflow ? kUnderflow : x;
  // x = n ln 2 + r with |r| <= ln 2 / 2: adding 1.5 * 2^52 rounds to an integer that then sits in the low bits.
  const double shifted = clamped * 1.4426950408889634074 + 0x1.8p52;
  const double n = shifted - 0x1.8p52;
  const double r = (clamped - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double series = 1.0 / 479001600.0;
  series = series * r + 1.0 / 39916800.0;
  series = series * r + 1.0 / 3628800.0;
  series = series * r + 1.0 / 362880.0;
  series = series * r + 1.0 / 40320.0;
  series = series * r + 1.0 / 5040.0;
  series = series * r + 1.0 / 720.0;
  series = series * r + 1.0 / 120.0;
  series = series * r + 1.0 / 24.0;
  series = series * r + 1.0 / 6.0;
  series = series * r + 0.5;
  series = series * r + 1.0;
  series = series * r + 1.0;
  const double power = std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1023) << 52);
  return x < kUnderflow ? 0.0 : series * power;
}

struct RowSums {
  double sum = 0.0;       // sum of e^(z - max z)
  double weighted = 0.0;  // sum of e^(z - max z) (z - max z)
};

// The maximum; `valid` is false where a logit is NaN.
template <typename T>
[[gnu::always_inline]] inline T maximum_body(const T* logits, int64_t V, bool* valid) {
  T maximum = -std::numeric_limits<T>::infinity();
  int num_nan = 0;
#pragma omp simd reduction(max : maximum) reduction(+ : num_nan)
  for (int64_t v = 0; v < V; ++v) {
    maximum = logits[v] > maximum ? logits[v] : maximum;
    num_nan += logits[v] != logits[v] ? 1 : 0;
  }
  *valid = num_nan == 0;
  return maximum;
}

template <typename T>
[[gnu::always_inline]] inline RowSums sums_body(const T* logits, int64_t V, double maximum, double inverse_temperature,
                                                double* block_sums) {
  RowSums total;
  for (int64_t begin = 0, block = 0; begin < V; begin += kBlock, ++block) {
    const int64_t end = std::min(begin + kBlock, V);
    double sum = 0.0, weighted = 0.0;
#pragma omp simd reduction(+ : sum, weighted)
    for (int64_t v = begin; v < end; ++v) {
      const double difference = (static_cast<double>(logits[v]) - maximum) * inverse_temperature;
      const double exponential = exp_body(difference);
      sum += exponential;
      weighted += exponential * (difference < kUnderflow ? kUnderflow : difference);  // -inf contributes 0, not NaN
    }
    block_sums[block] = sum;
    total.sum += sum;
    total.weighted += weighted;
  }
  return total;
}

template <typename T>
struct RowLoops {
  T (*maximum)(const T*, int64_t, bool*);
  RowSums (*sums)(const T*, int64_t, double, double, double*);
};

template <typename T>
T maximum_baseline(const T* logits, int64_t V, bool* valid) {
  return maximum_body(logits, V, valid);
}
template <typename T>
RowSums sums_baseline(const T* logits, int64_t V, double maximum, double inverse_temperature, double* block_sums) {
  return sums_body(logits, V, maximum, inverse_temperature, block_sums);
}
#if ARCHER_X86_TARGETS
template <typename T>
ARCHER_AVX512 T maximum_avx512(const T* logits, int64_t V, bool* valid) {
  return maximum_body(logits, V, valid);
}
template <typename T>
ARCHER_AVX512 RowSums sums_avx512(const T* logits, int64_t V, double maximum, double inverse_temperature,
                                   double* block_sums) {
  return sums_body(logits, V, maximum, inverse_temperature, block_sums);
}
template <typename T>
ARCHER_AVX2 T maximum_avx2(const T* logits, int64_t V, bool* valid) {
  return maximum_body(logits, V, valid);
}
template <typename T>
ARCHER_AVX2 RowSums sums_avx2(const T* logits, int64_t V, double maximum, double inverse_temperature,
                               double* block_sums) {
  return sums_body(logits, V, maximum, inverse_temperature, block_sums);
}
#endif

template <typename T>
RowLoops<T> choose_loops() {
#if ARCHER_X86_TARGETS
  const bool fma = __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return {maximum_avx512<T>, sums_avx512<T>};
  }
  if (fma && __builtin_cpu_supports("avx2")) return {maximum_avx2<T>, sums_avx2<T>};
#endif
  return {maximum_baseline<T>, sums_baseline<T>};
}

// The untruncated draw: the block where the running sum passes u * sum, then the id within it.
template <typename T>
int32_t draw_from_all(const T* logits, int64_t V, double maximum, double inverse_temperature, double sum,
                      const std::vector<double>& block_sums, double u) {
  const double target = u * sum;
  double running = 0.0;
  int64_t block = 0, last_positive = 0;
  const int64_t num_blocks = static_cast<int64_t>(block_sums.size());
  for (; block < num_blocks; ++block) {
    if (block_sums[block] > 0.0) last_positive = block;
    if (running + block_sums[block] > target) break;
    running += block_sums[block];
  }
  if (block == num_blocks) block = last_positive;
  int64_t chosen = -1;
  for (int64_t v = block * kBlock; v < std::min(V, (block + 1) * kBlock); ++v) {
    const double exponential = exp_body((static_cast<double>(logits[v]) - maximum) * inverse_temperature);
    if (exponential <= 0.0) continue;
    chosen = v;  // where rounding keeps the sum from passing the target, the last possible id of the block stands
    running += exponential;
    if (running > target) break;
  }
  return static_cast<int32_t>(chosen);
}

using Candidate = SampleScratch::Candidate;

bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// The k that rank first, by a heap whose front ranks last. Ids come in ascending order: an equal logit never displaces.
template <typename T>
void keep_top_k(const T* logits, int64_t V, int64_t k, std::vector<Candidate>& candidates) {
  for (int64_t v = 0; v < V; ++v) {
    const Candidate candidate{static_cast<double>(logits[v]), static_cast<int32_t>(v)};
    if (static_cast<int64_t>(candidates.size()) < k) {
      candidates.push_back(candidate);
      std::push_heap(candidates.begin(), candidates.end(), ranks_before);
    } else if (candidate.logit > candidates.front().logit) {
      std::pop_heap(candidates.begin(), candidates.end(), ranks_before);
      candidates.back() = candidate;
      std::push_heap(candidates.begin(), candidates.end(), ranks_before);
    }
  }
}

// A candidate stays while the probability of those that rank before it is below top_p. Ranks are made in growing
// pieces: a peaked distribution sorts 64 candidates, whatever the vocabulary.
template <typename Exponential>
void keep_top_p(std::vector<Candidate>& candidates, double mass, Exponential exponential) {
  double before = 0.0;
  size_t ranked = 0;
  while (ranked < candidates.size()) {
    const size_t end = std::min(candidates.size(), std::max<size_t>(64, ranked * 4));
    const auto first = candidates.begin() + static_cast<int64_t>(ranked);
    const auto last = candidates.begin() + static_cast<int64_t>(end);
    if (end < candidates.size()) std::nth_element(first, last, candidates.end(), ranks_before);
    std::sort(first, last, ranks_before);
    for (; ranked < end; ++ranked) {
      if (ranked > 0 && before >= mass) {
        candidates.resize(ranked);
        return;
      }
      before += exponential(candidates[ranked]);
    }
  }
}

template <typename T>
int32_t draw_from_truncated(const T* logits, int64_t V, const SampleOptions& options, double maximum,
                            double inverse_temperature, double sum, double u, std::vector<Candidate>& candidates) {
  const auto exponential = [&](const Candidate& c) { return exp_body((c.logit - maximum) * inverse_temperature); };
  candidates.clear();
  if (options.top_k > 0 && options.top_k < V) {
    keep_top_k(logits, V, options.top_k, candidates);
    if (options.top_p < 1.0) {
      sum = 0.0;
      for (const Candidate& candidate : candidates) sum += exponential(candidate);
    }
  } else {
    // Tokens below (1 - top_p) / V of the mass cannot reach the nucleus: together they hold less than 1 - top_p.
    double floor = options.top_p < 1.0 ? std::log((1.0 - options.top_p) * sum / static_cast<double>(V)) : kUnderflow;
    if (options.min_p > 0.0) floor = std::max(floor, std::log(options.min_p));
    floor -= 1e-6;  // rounding; the exact comparisons follow
    for (int64_t v = 0; v < V; ++v) {
      const double logit = static_cast<double>(logits[v]);
      if ((logit - maximum) * inverse_temperature >= floor) candidates.push_back({logit, static_cast<int32_t>(v)});
    }
  }
  if (options.top_p < 1.0) keep_top_p(candidates, options.top_p * sum, exponential);
  if (options.min_p > 0.0) {
    std::erase_if(candidates, [&](const Candidate& c) { return exponential(c) < options.min_p; });
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });

  double kept = 0.0;
  for (const Candidate& candidate : candidates) kept += exponential(candidate);
  const double target = u * kept;
  double running = 0.0;
  int32_t chosen = -1;
  for (const Candidate& candidate : candidates) {
    const double value = exponential(candidate);
    if (value <= 0.0) continue;
    chosen = candidate.id;
    running += value;
    if (running > target) break;
  }
  return chosen;
}

}  // namespace

double exp_nonpositive(double x) { return exp_body(x); }

template <typename T>
bool sample_row(const T* logits_V, int64_t V, const SampleOptions& options, double u, SampleScratch& scratch,
                SampledToken* token) {
  static const RowLoops<T> loops = choose_loops<T>();
  bool valid = false;
  const T maximum = loops.maximum(logits_V, V, &valid);
  if (!valid || !std::isfinite(maximum)) return false;

  const bool greedy = options.temperature == 0.0;
  const double inverse_temperature = greedy ? 1.0 : 1.0 / options.temperature;
  const double maximum64 = static_cast<double>(maximum);
  scratch.block_sums.resize(static_cast<size_t>((V + kBlock - 1) / kBlock));
  const RowSums sums = loops.sums(logits_V, V, maximum64, inverse_temperature, scratch.block_sums.data());
  const bool truncated = (options.top_k > 0 && options.top_k < V) || options.top_p < 1.0 || options.min_p > 0.0;
  if (greedy) {
    token->id = static_cast<int32_t>(std::find(logits_V, logits_V + V, maximum) - logits_V);
  } else if (truncated) {
    token->id = draw_from_truncated(logits_V, V, options, maximum64, inverse_temperature, sums.sum, u,
                                    scratch.candidates);
  } else {
    token->id = draw_from_all(logits_V, V, maximum64, inverse_temperature, sums.sum, scratch.block_sums, u);
  }
  const double log_sum = std::log(sums.sum);
  token->logp = (static_cast<double>(logits_V[token->id]) - maximum64) * inverse_temperature - log_sum;
  token->entropy = std::max(0.0, log_sum - sums.weighted / sums.sum);
  return true;
}

template bool sample_row<float>(const float*, int64_t, const SampleOptions&, double, SampleScratch&, SampledToken*);
template bool sample_row<double>(const double*, int64_t, const SampleOptions&, double, SampleScratch&, SampledToken*);

}  // namespace archer::kernels
