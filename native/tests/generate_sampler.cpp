// The sampler against a reference that sorts everything in plain doubles: ids, log-probs and entropies of the full
// softmax, all truncations and their combinations, ties, infinities, one-token vocabularies, greedy; then frequencies.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/philox.h"
#include "generate/sampler.h"
#include "kernels/sample_row.h"

#include "tests/check.h"

using archer::SampledToken;
using archer::SamplingOptions;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Expected {
  SampledToken token;
  std::vector<bool> kept;
  double margin;  // distance of u from the nearest edge of the chosen token's interval
};

// Word by word: softmax, full sort, top-k, top-p on the renormalised rest, min-p, walk in ascending ids.
Expected reference(const std::vector<double>& logits, const SamplingOptions& options, double u) {
  const size_t V = logits.size();
  const double temperature = options.temperature == 0.0 ? 1.0 : options.temperature;
  const double maximum = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(V);
  double sum = 0.0;
  for (size_t v = 0; v < V; ++v) sum += p[v] = std::exp((logits[v] - maximum) / temperature);
  Expected expected;
  expected.token.entropy = 0.0;
  for (double& value : p) {
    value /= sum;
    if (value > 0.0) expected.token.entropy -= value * std::log(value);
  }
  std::vector<size_t> order(V);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  size_t count = V;
  if (options.top_k > 0) count = std::min(count, static_cast<size_t>(options.top_k));
  double mass = 0.0;
  for (size_t i = 0; i < count; ++i) mass += p[order[i]];
  double before = 0.0;
  for (size_t i = 0; options.top_p < 1.0 && i < count; ++i) {
    if (i > 0 && before >= options.top_p * mass) count = i;
    before += p[order[i]];
  }
  while (count > 1 && p[order[count - 1]] < options.min_p * p[order[0]]) --count;
  if (options.temperature == 0.0) count = 1;
  expected.kept.assign(V, false);
  mass = 0.0;
  for (size_t i = 0; i < count; ++i) expected.kept[order[i]] = true;
  for (size_t v = 0; v < V; ++v) mass += expected.kept[v] ? p[v] : 0.0;
  double running = 0.0;
  expected.margin = 0.0;
  for (size_t v = 0; v < V; ++v) {
    if (!expected.kept[v] || p[v] == 0.0) continue;
    const double start = running;
    running += p[v] / mass;
    expected.token.id = static_cast<int32_t>(v);
    expected.margin = std::min(start == 0.0 ? 1.0 : u - start, running - u);
    if (running > u) break;
  }
  expected.token.logp = std::log(p[static_cast<size_t>(expected.token.id)]);
  return expected;
}

template <typename T>
bool draw(const std::vector<double>& logits, const SamplingOptions& options, double u, SampledToken* token) {
  std::vector<T> row(logits.begin(), logits.end());
  archer::kernels::SampleScratch scratch;
  return archer::kernels::sample_row(row.data(), static_cast<int64_t>(row.size()), options, u, scratch, token);
}

SamplingOptions make_options(double temperature, int64_t top_k, double top_p, double min_p) {
  SamplingOptions options;
  options.temperature = temperature;
  options.top_k = top_k;
  options.top_p = top_p;
  options.min_p = min_p;
  return options;
}

// A gaussian-ish row, deterministic, whose values are floats so that both precisions see the same numbers.
std::vector<double> random_row(size_t V, uint32_t key, double scale) {
  std::vector<double> row(V);
  for (size_t v = 0; v < V; ++v) {
    double sum = -6.0;
    for (uint32_t i = 0; i < 12; ++i) sum += archer::sample_uniform(3, i, key, 0, static_cast<uint32_t>(v));
    row[v] = static_cast<float>(scale * sum);
  }
  return row;
}

void test_exponential() {
  double worst = 0.0;
  for (int i = 0; i <= 70000; ++i) {
    const double x = -0.01 * i - 1e-3 * (i % 7);
    if (x < -708.0) break;
    worst = std::max(worst, std::abs(archer::kernels::exp_nonpositive(x) / std::exp(x) - 1.0));
  }
  CHECK_NEAR(worst, 0.0, 5e-16);
  CHECK(archer::kernels::exp_nonpositive(0.0) == 1.0);
  CHECK(archer::kernels::exp_nonpositive(-kInfinity) == 0.0);
  CHECK(archer::kernels::exp_nonpositive(-1e300) == 0.0);
}

// Every combination of truncations on rows of several widths; a wrong set or a wrong walk shows as a wrong id.
void test_against_reference() {
  const std::vector<size_t> widths = {1, 2, 3, 17, 64, 511, 512, 513, 1031, 2500};
  int compared = 0, num_edges = 0;
  for (size_t w = 0; w < widths.size(); ++w) {
    for (const double scale : {0.01, 1.0, 6.0}) {
      const std::vector<double> row = random_row(widths[w], static_cast<uint32_t>(w), scale);
      for (const double temperature : {0.3, 1.0, 1.7}) {
        for (const int64_t top_k : {-1, 1, 5, 200, 100000}) {
          for (const double top_p : {1.0, 0.95, 0.5, 1e-6}) {
            for (const double min_p : {0.0, 0.02, 1.0}) {
              const SamplingOptions options = make_options(temperature, top_k, top_p, min_p);
              for (uint32_t i = 0; i < 4; ++i) {
                const auto key = static_cast<uint32_t>(w);
                const double u = i == 3 ? 1.0 - 0x1.0p-53 : archer::sample_uniform(9, 0, key, 0, i);
                const Expected expected = reference(row, options, u);
                SampledToken narrow, wide;
                const bool sampled = draw<float>(row, options, u, &narrow) && draw<double>(row, options, u, &wide);
                // Within rounding of an edge (u just below 1, say) the neighbour is as right.
                const bool at_an_edge = expected.margin < 1e-12;
                const bool same_id = at_an_edge || (narrow.id == expected.token.id && wide.id == expected.token.id);
                const bool same_values = at_an_edge || (std::abs(narrow.logp - expected.token.logp) < 1e-11 &&
                                                        std::abs(wide.logp - expected.token.logp) < 1e-11 &&
                                                        std::abs(narrow.entropy - expected.token.entropy) < 1e-11 &&
                                                        std::abs(wide.entropy - expected.token.entropy) < 1e-11);
                num_edges += at_an_edge ? 1 : 0;
                compared += sampled && same_id && same_values ? 1 : 0;
              }
            }
          }
        }
      }
    }
  }
  CHECK(compared == 10 * 3 * 3 * 5 * 4 * 3 * 4);
  CHECK(num_edges < compared / 4 + 1);  // at most the draws with u = 1 - 2^-53
}

void test_by_hand() {
  // p = .5, .25, .125, .125 by ids 2, 0, 1, 3.
  const std::vector<double> row = {std::log(0.25), std::log(0.125), std::log(0.5), std::log(0.125)};
  SampledToken token;
  const auto id_of = [&](const SamplingOptions& options, double u) {
    CHECK(draw<double>(row, options, u, &token));
    return token.id;
  };
  const SamplingOptions open;
  CHECK(id_of(open, 0.0) == 0 && id_of(open, 0.24) == 0 && id_of(open, 0.26) == 1 && id_of(open, 0.38) == 2);
  CHECK(id_of(open, 0.87) == 2 && id_of(open, 0.88) == 3 && id_of(open, 1.0 - 0x1.0p-53) == 3);
  CHECK_NEAR(token.logp, std::log(0.125), 1e-14);
  CHECK_NEAR(token.entropy, 1.75 * std::log(2.0), 1e-14);
  // top_k 3: the tie at 1/8 goes to id 1; log-prob and entropy stay those of the full distribution.
  const SamplingOptions three = make_options(1.0, 3, 1.0, 0.0);
  CHECK(id_of(three, 0.999) == 2 && id_of(three, 0.0) == 0 && id_of(three, 0.3) == 1);
  CHECK_NEAR(token.logp, std::log(0.125), 1e-14);
  CHECK_NEAR(token.entropy, 1.75 * std::log(2.0), 1e-14);
  // top_p .6: 1/2 is not enough, 1/4 completes it. After top_k 2 the renormalised 2/3 is enough.
  CHECK(id_of(make_options(1.0, -1, 0.6, 0.0), 0.32) == 0 && id_of(make_options(1.0, -1, 0.6, 0.0), 0.34) == 2);
  CHECK(id_of(make_options(1.0, 2, 0.6, 0.0), 0.0) == 2);
  // min_p is relative to the largest: .4 * .5 = .2 leaves ids 0 and 2.
  CHECK(id_of(make_options(1.0, -1, 1.0, 0.4), 0.0) == 0 && id_of(make_options(1.0, -1, 1.0, 0.4), 0.999) == 2);
  CHECK(id_of(make_options(1.0, -1, 1.0, 0.6), 0.0) == 2);
  // Temperature 2: p ~ sqrt, log-probs follow.
  CHECK(id_of(make_options(2.0, 1, 1.0, 0.0), 0.5) == 2);
  const double roots = std::sqrt(0.5) + std::sqrt(0.25) + 2.0 * std::sqrt(0.125);
  CHECK_NEAR(token.logp, 0.5 * std::log(0.5) - std::log(roots), 1e-14);
}

void test_greedy_ties_and_infinities() {
  SampledToken token;
  const SamplingOptions greedy = make_options(0.0, 5, 0.3, 0.1);
  CHECK(draw<float>({1.0, 3.0, -2.0, 3.0}, greedy, 0.99, &token) && token.id == 1);
  const double sum = 2.0 + std::exp(-2.0) + std::exp(-5.0);
  CHECK_NEAR(token.logp, -std::log(sum), 1e-14);

  // -inf has probability zero: never drawn, no NaN in the entropy, whatever u is.
  const std::vector<double> holes = {-kInfinity, 0.0, -kInfinity, 0.0, -kInfinity};
  for (const double u : {0.0, 0.49, 0.51, 1.0 - 0x1.0p-53}) {
    for (const SamplingOptions& options :
         {SamplingOptions{}, make_options(1.0, 4, 1.0, 0.0), make_options(1.0, -1, 0.99, 0.0)}) {
      CHECK(draw<float>(holes, options, u, &token) && token.id == (u < 0.5 ? 1 : 3));
      CHECK_NEAR(token.logp, -std::log(2.0), 1e-15);
      CHECK_NEAR(token.entropy, std::log(2.0), 1e-15);
    }
  }
  CHECK(draw<float>({5.0, -kInfinity}, SamplingOptions{}, 0.9, &token) && token.id == 0);
  CHECK(token.logp == 0.0 && token.entropy == 0.0);
  // Differences far beyond the range of exp.
  CHECK(draw<double>({1e300, -1e300, 0.0}, SamplingOptions{}, 0.9, &token) && token.id == 0 && token.entropy == 0.0);
  CHECK(draw<float>({3e38, -3e38, 0.0}, make_options(1e-4, -1, 1.0, 0.0), 0.9, &token) && token.id == 0);

  const double nan = std::nan("");
  CHECK(!draw<float>({0.0, nan, 1.0}, SamplingOptions{}, 0.5, &token));
  CHECK(!draw<float>({nan}, greedy, 0.5, &token));
  CHECK(!draw<float>({0.0, kInfinity}, SamplingOptions{}, 0.5, &token));
  CHECK(!draw<double>({-kInfinity, -kInfinity}, SamplingOptions{}, 0.5, &token));
}

std::string code_of(const at::Tensor& logits, const SamplingOptions& options, const std::vector<archer::Draw>& draws) {
  try {
    archer::validate(options);
    archer::sample(logits, options, draws, 1, 0);
  } catch (const archer::ArcherError& error) {
    return error.code();
  }
  return "none";
}

void test_tensors() {
  const auto float32 = at::TensorOptions().dtype(at::kFloat);
  // 200,000 draws from one row follow its probabilities: chi-square of 9 degrees of freedom below 27.9 (p = .001).
  const std::vector<double> row = random_row(10, 77, 1.0);
  const at::Tensor logits = at::tensor(row, at::TensorOptions().dtype(at::kDouble)).to(at::kFloat).reshape({1, 10});
  std::vector<archer::Draw> draws;
  for (uint32_t i = 0; i < 200000; ++i) draws.push_back({0, i % 7, i / 7 % 16, i});
  const std::vector<SampledToken> tokens = archer::sample(logits, SamplingOptions{}, draws, 11, 5);
  std::vector<double> counts(10, 0.0);
  double entropy = 0.0;
  for (const SampledToken& token : tokens) {
    counts[static_cast<size_t>(token.id)] += 1.0;
    entropy -= token.logp / 200000.0;
  }
  double chi_square = 0.0, normaliser = 0.0;
  for (const double logit : row) normaliser += std::exp(logit);
  for (size_t v = 0; v < 10; ++v) {
    const double expected = 200000.0 * std::exp(row[v]) / normaliser;
    chi_square += (counts[v] - expected) * (counts[v] - expected) / expected;
  }
  CHECK(chi_square < 27.9);
  CHECK_NEAR(entropy, tokens[0].entropy, 0.02);

  // A draw depends on its key, not on its neighbours or its row number.
  const at::Tensor twice = at::empty({2, 10}, float32);
  for (int64_t i = 0; i < 20; ++i) {
    twice.mutable_data_ptr<float>()[i] = static_cast<float>(row[static_cast<size_t>(i % 10)]);
  }
  const std::vector<SampledToken> alone = archer::sample(twice, SamplingOptions{}, {{1, 3, 4, 5}}, 11, 5);
  const std::vector<SampledToken> among =
      archer::sample(twice, SamplingOptions{}, {{0, 1, 1, 1}, {1, 2, 2, 2}, {0, 3, 4, 5}}, 11, 5);
  CHECK(alone[0].id == among[2].id && alone[0].logp == among[2].logp && alone[0].entropy == among[2].entropy);

  at::Tensor broken = at::full({2, 3}, 1.0, float32);
  broken.mutable_data_ptr<float>()[4] = std::nanf("");
  CHECK(code_of(broken, SamplingOptions{}, {{0, 0, 0, 0}}) == "none");
  CHECK(code_of(broken, SamplingOptions{}, {{0, 0, 0, 0}, {1, 0, 0, 0}}) == archer::kNumeric);
  CHECK(code_of(broken, SamplingOptions{}, {{2, 0, 0, 0}}) == archer::kShape);
  CHECK(code_of(broken.t(), SamplingOptions{}, {{0, 0, 0, 0}}) == archer::kShape);
  for (const SamplingOptions& bad : {make_options(-1.0, -1, 1.0, 0.0), make_options(std::nan(""), -1, 1.0, 0.0),
                                     make_options(1.0, 0, 1.0, 0.0), make_options(1.0, -1, 0.0, 0.0),
                                     make_options(1.0, -1, 1.1, 0.0), make_options(1.0, -1, 1.0, 1.5)}) {
    CHECK(code_of(broken, bad, {}) == archer::kConfig);
  }
}

}  // namespace

int main() {
  test_exponential();
  test_against_reference();
  test_by_hand();
  test_greedy_ties_and_infinities();
  test_tensors();
  return check::finish();
}
