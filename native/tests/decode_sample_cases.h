// Sampling on a device against the CPU's own rule (kernels/sample_row.h), and the ends of rows. V vocabulary, B rows.
#pragma once
#include <algorithm>
#include <limits>

#include "kernels/decode_device.h"
#include "kernels/sample_row.h"
#include "tests/decode_case_tools.h"
#include "tests/device_array.h"

namespace archer::decode_cases {

struct SampleCase {
  int vocabulary;
  SampleSettings settings;
  int draws = 4;  // per row
  std::string name() const {
    char text[120];
    std::snprintf(text, sizeof text, "sample V %d T %g top_k %lld top_p %g min_p %g", vocabulary, settings.temperature,
                  static_cast<long long>(settings.top_k), settings.top_p, settings.min_p);
    return text;
  }
};

// Rows of every kind; the last three have no distribution.
inline std::vector<std::vector<float>> sample_rows(int vocabulary) {
  const auto V = static_cast<size_t>(vocabulary);
  const float infinity = std::numeric_limits<float>::infinity();
  Random random(V);
  std::vector<std::vector<float>> rows;
  const auto add = [&](auto value_of) {
    std::vector<float> row(V);
    for (size_t v = 0; v < V; ++v) row[v] = static_cast<float>(value_of(v));
    rows.push_back(row);
  };
  for (int i = 0; i < 3; ++i) add([&](size_t) { return random.normal() * 3; });
  add([&](size_t) { return std::floor(random.normal() * 2); });                      // many ties
  add([&](size_t) { return -2.5; });                                                 // nothing but ties
  add([&](size_t v) { return v % 5 == 2 ? random.normal() * 20 : -infinity; });      // some impossible
  add([&](size_t) { return random.normal() * 4000; });                               // almost all impossible
  add([&](size_t v) { return v % 2 ? 0.0 : -0.0; });                                 // ties of +0 and -0
  rows[5][V / 2] = 1;                                                                // never impossible alone
  add([&](size_t v) { return v == V - 1 ? std::nan("") : random.normal(); });
  add([&](size_t v) { return v == V / 2 ? infinity : random.normal(); });
  add([&](size_t) { return -infinity; });
  return rows;
}

struct SampleCounts {
  int tokens = 0, near_ties = 0;
};

inline void check_sample(DecodeDevice& device, const SampleCase& c, SampleCounts& counts) {
  const auto draws = static_cast<size_t>(c.draws);
  constexpr size_t kFaulty = 3;
  const auto logits = sample_rows(c.vocabulary);
  const size_t B = logits.size() + 1, idle = logits.size(), V = static_cast<size_t>(c.vocabulary);
  const int64_t stride = (c.vocabulary + 3) / 4 * 4;
  std::vector<float> all(B * static_cast<size_t>(stride), std::numeric_limits<float>::quiet_NaN());
  for (size_t r = 0; r < logits.size(); ++r) std::copy_n(&logits[r][0], V, &all[r * static_cast<size_t>(stride)]);
  auto rows = running_rows(std::vector<int32_t>(B, 10));
  rows[idle].state = RowState::stopped;
  Random random(V + 1);
  std::vector<double> uniforms(B * draws);
  for (double& u : uniforms) u = random.uniform();
  uniforms[0] = 0;
  uniforms[1] = 1 - 0x1.0p-53;
  DeviceArray<float> d_logits(device, all), d_parts(device, std::vector<float>(B * 4 * num_sample_parts(c.vocabulary)));
  DeviceArray<DecodeRow> d_rows(device, rows);
  DeviceArray<SampleSettings> d_settings(device, {c.settings});
  DeviceArray<double> d_uniforms(device, uniforms);
  DeviceArray<int32_t> d_ids(device, std::vector<int32_t>(B * draws, -7));
  const std::vector<float> zeros(B * draws);
  DeviceArray<float> d_log_probs(device, zeros), d_entropies(device, zeros);
  SampleParams p;
  p.logits = d_logits.get();
  p.stride = stride;
  p.num_rows = static_cast<int32_t>(B);
  p.vocabulary = c.vocabulary;
  p.settings = d_settings.get();
  p.num_parts = static_cast<int32_t>(num_sample_parts(c.vocabulary));
  p.parts = d_parts.get();
  p.uniforms_BT = d_uniforms.get();
  p.tokens_per_visit = c.draws;
  p.rows = d_rows.get();
  p.ids_BT = d_ids.get();
  p.log_probs_BT = d_log_probs.get();
  p.entropies_BT = d_entropies.get();
  for (int i = 0; i < c.draws; ++i) device.sample(p);
  const auto ids = d_ids.read();
  const auto log_probs = d_log_probs.read(), entropies = d_entropies.read();
  const auto after = d_rows.read();

  kernels::SampleScratch scratch;
  const kernels::SampleOptions options{c.settings.temperature, c.settings.top_k, c.settings.top_p, c.settings.min_p};
  bool right = after[idle].drawn == 0 && after[idle].state == RowState::stopped && ids[idle * draws] == -7;
  for (size_t r = 0; r < logits.size(); ++r) {
    const bool faulty = r >= logits.size() - kFaulty;
    right = right && after[r].state == (faulty ? RowState::faulty : RowState::running) &&
            after[r].drawn == (faulty ? 0 : c.draws) && after[r].position == (faulty ? 10 : 10 + c.draws);
    for (size_t i = 0; i < draws && !faulty; ++i) {
      const size_t at = r * draws + i;
      const auto reference = [&](double shift_u, double shift_p) {
        kernels::SampleOptions near = options;
        if (near.top_p < 1) near.top_p += shift_p;
        if (near.min_p > 0) near.min_p *= 1 + shift_p;
        kernels::SampledToken token;
        const double u = std::min(std::max(uniforms[at] + shift_u, 0.0), 1 - 0x1.0p-53);
        CHECK(kernels::sample_row(logits[r].data(), static_cast<int64_t>(V), near, u, scratch, &token));
        return token;
      };
      const kernels::SampledToken token = reference(0, 0);
      ++counts.tokens;
      const int32_t id = ids[at];
      if (id != token.id) {
        // Float32 exponentials may decide otherwise where the draw or a cut lies within 2e-6 of another id's share.
        constexpr double kNear = 2e-6;
        const bool tie = id == reference(kNear, 0).id || id == reference(-kNear, 0).id ||
                         id == reference(0, kNear).id || id == reference(0, -kNear).id;
        counts.near_ties += tie;
        if (!tie) {
          std::printf("%s row %zu u %.17g: id %d, expected %d\n", c.name().c_str(), r, uniforms[at], id, token.id);
        }
        CHECK(tie);
        continue;
      }
      const double tolerance = 4e-6 * (1 + std::abs(token.logp));
      if (!(std::abs(log_probs[at] - token.logp) <= tolerance && std::abs(entropies[at] - token.entropy) <= 1e-5)) {
        std::printf("%s row %zu: logp %.9g entropy %.9g, expected %.9g %.9g\n", c.name().c_str(), r,
                    static_cast<double>(log_probs[at]), static_cast<double>(entropies[at]), token.logp, token.entropy);
        right = false;
      }
    }
    if (!faulty) right = right && after[r].token == ids[r * draws + draws - 1];
  }
  if (!right) std::printf("%s: states, log-probabilities or entropies are wrong\n", c.name().c_str());
  CHECK(right);
}

// Stop tokens and budgets: row 0 stops at its second token, row 1 is full with its third, row 2 goes on.
inline void check_stops(DecodeDevice& device) {
  constexpr int kSteps = 4, kVocabulary = 12;
  auto rows = running_rows({0, 0, 0});
  rows[1].budget = 3;
  std::vector<float> logits(3 * kVocabulary, 0.0f);
  std::vector<double> uniforms;
  for (const int id : {4, 9, 1, 1, 0, 1, 2, 9, 5, 4, 3, 2}) uniforms.push_back((id + 0.5) / kVocabulary);
  DeviceArray<float> d_logits(device, logits), d_parts(device, std::vector<float>(3 * 4));
  DeviceArray<DecodeRow> d_rows(device, rows);
  DeviceArray<SampleSettings> d_settings(device, {SampleSettings{}});
  DeviceArray<double> d_uniforms(device, uniforms);
  DeviceArray<int32_t> d_ids(device, std::vector<int32_t>(3 * kSteps, -1)), d_stops(device, std::vector<int32_t>{7, 9});
  const std::vector<float> zeros(3 * kSteps);
  DeviceArray<float> d_log_probs(device, zeros), d_entropies(device, zeros);
  for (int i = 0; i < kSteps; ++i) {
    device.sample({d_logits.get(), kVocabulary, 3, kVocabulary, d_settings.get(), 1, d_parts.get(), d_uniforms.get(),
                   d_stops.get(), 2, kSteps, d_rows.get(), d_ids.get(), d_log_probs.get(), d_entropies.get()});
  }
  CHECK((d_ids.read() == std::vector<int32_t>{4, 9, -1, -1, 0, 1, 2, -1, 5, 4, 3, 2}));
  const auto after = d_rows.read();
  CHECK(after[0].state == RowState::stopped && after[0].drawn == 2 && after[0].position == 2);
  CHECK(after[1].state == RowState::full && after[1].drawn == 3 && after[1].budget == 0);
  CHECK(after[2].state == RowState::running && after[2].drawn == 4 && after[2].token == 2);
}

inline std::vector<SampleCase> sample_cases() {
  std::vector<SampleCase> cases;
  for (const int vocabulary : {1, 2, 7, 203, 4096, 4097, 9001}) {
    for (const double temperature : {1.0, 0.0, 0.6, 1.7}) cases.push_back({vocabulary, {temperature, 1.0, 0.0, -1}});
  }
  for (const int vocabulary : {1, 203, 4097}) {
    const int draws = vocabulary == 4097 ? 2 : 4;
    cases.push_back({vocabulary, {1.0, 1.0, 0.0, 1}, draws});
    cases.push_back({vocabulary, {0.8, 1.0, 0.0, 5}, draws});
    cases.push_back({vocabulary, {1.0, 1.0, 0.0, 1000}, draws});
    cases.push_back({vocabulary, {1.0, 0.9, 0.0, -1}, draws});
    cases.push_back({vocabulary, {1.3, 0.3, 0.0, -1}, draws});
    cases.push_back({vocabulary, {1.0, 1.0, 0.05, -1}, draws});
    cases.push_back({vocabulary, {1.0, 1.0, 1.0, -1}, draws});
    cases.push_back({vocabulary, {1.0, 0.95, 0.02, 50}, draws});
    cases.push_back({vocabulary, {0.0, 0.5, 0.1, 3}, draws});
  }
  return cases;
}

}  // namespace archer::decode_cases
