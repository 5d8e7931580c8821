// One sampled token from one row of raw logits [V]. With z = logits / temperature and p = softmax(z), always the FULL
// softmax: logp = log p[id], entropy = log sum e^z - sum p z, in nats, accumulated in float64.
// The choice is by inverse CDF among the tokens that top-k, then top-p (of the rest, renormalised), then min-p leave:
// the first id, ascending, whose running sum of probabilities exceeds u. Ties at a cut keep the lowest ids.
#pragma once
#include <cstdint>
#include <vector>

namespace archer::kernels {

struct SampleOptions {
  double temperature = 1.0;  // 0: the largest logit, lowest id on a tie; logp and entropy are then of temperature 1
  int64_t top_k = -1;        // keep the k largest; -1: off
  double top_p = 1.0;        // keep the smallest set of largest ones with at least this probability; 1: off
  double min_p = 0.0;        // keep those with at least this share of the largest probability; 0: off
};

struct SampledToken {
  int32_t id = -1;
  double logp = 0.0;
  double entropy = 0.0;
};

// Memory that one thread reuses from row to row.
struct SampleScratch {
  struct Candidate {
    double logit;
    int32_t id;
  };
  std::vector<double> block_sums;
  std::vector<Candidate> candidates;
};

// u in [0, 1). False where the row defines no distribution: a NaN, a +inf, or nothing but -inf. (-inf: probability 0.)
// T is float or double.
template <typename T>
bool sample_row(const T* logits_V, int64_t V, const SampleOptions& options, double u, SampleScratch& scratch,
                SampledToken* token);

// e^x for x <= 0 to within two units in the last place, 0 below -708; written so that compilers vectorise it.
double exp_nonpositive(double x);

}  // namespace archer::kernels
