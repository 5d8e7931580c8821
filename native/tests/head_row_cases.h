// The case list of the head's row kernels, for every device (the emulation on the CPU, a GPU where there is one):
// statistics, loss terms, flags and gradient rows against float64 (exact_row.h, token_math.h in double), and
// that nothing else has been written. Legend: V vocabulary, S stride in elements.
#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/head_device.h"
#include "loss/token_math.h"
#include "tests/check.h"
#include "tests/device_array.h"
#include "tests/exact_row.h"

namespace archer::row_cases {

struct RowCase {
  int vocabulary = 1000;
  int cluster = 1;                // of mode fused
  LogitsType type = LogitsType::float32;
  KlType kl_type = KlType::k3;
  bool has_kl = true, dual_clip = false, bonus = false, thresholds = false;
  double temperature = 1.0;
  int padding = 0;                // stride - V
  int shift = 0;                  // elements between a 256-byte boundary and the first row
  bool zero_inactive = false;
  bool listed = false;            // a list of rows that leaves some out
  bool short_list = false;        // three rows alone, for the largest vocabularies

  std::string name() const {
    char text[160];
    std::snprintf(text, sizeof text, "V %d cluster %d %s kl %d%s%s%s%s T %g stride +%d shift %d%s%s", vocabulary,
                  cluster, type == LogitsType::float32 ? "f32" : "bf16", static_cast<int>(kl_type),
                  has_kl ? "" : " off", dual_clip ? " dual" : "", bonus ? " bonus" : "",
                  thresholds ? " thresholds" : "", temperature, padding, shift, zero_inactive ? " zeros" : "",
                  listed ? " listed" : "");
    return text;
  }
};

inline double noise(uint64_t& state) {  // roughly normal
  double sum = 0;
  for (int i = 0; i < 4; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    sum += static_cast<double>(state >> 40) / (1 << 24) - 0.5;
  }
  return sum * 1.7;
}

inline uint16_t round_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
inline float widen_bf16(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

// One row of a case: its logits, and how far the sampling policy's log-probability lies from the row's own.
struct RowSpec {
  std::vector<float> logits;
  int id = 0;
  float advantage = 1, offset = 0, ref_offset = 0;  // old = logp - offset, so ratio = e^offset
  uint8_t token_class = 0;
};

inline std::vector<RowSpec> make_rows(const RowCase& c, uint64_t seed) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<RowSpec> rows;
  const auto V = static_cast<size_t>(c.vocabulary);
  const auto add = [&](float advantage, float offset, uint8_t token_class, auto change) {
    RowSpec row;
    row.logits.resize(V);
    for (float& u : row.logits) u = static_cast<float>(noise(seed) * 4);
    row.id = static_cast<int>((seed >> 33) % V);
    row.advantage = advantage;
    row.offset = offset;
    row.ref_offset = static_cast<float>(noise(seed) * 0.5);
    row.token_class = token_class;
    change(row);
    rows.push_back(std::move(row));
  };
  const auto as_it_is = [](RowSpec&) {};
  const auto last = [&](RowSpec& row) { row.id = c.vocabulary - 1; };
  const auto certain = [&](RowSpec& row) {  // p of the sampled id about 0.999
    row.id = c.vocabulary / 2;
    for (float& u : row.logits) u = std::min(u, 8.0f);
    row.logits[static_cast<size_t>(row.id)] =
        static_cast<float>((17.0 + std::log(static_cast<double>(V))) * std::max(1.0, c.temperature));
  };
  const auto not_a_number = [&](RowSpec& row) { row.logits[V / 3] = std::nanf(""); };
  add(1.0f, 0.05f, 0, as_it_is);
  add(-1.5f, 0.1f, 1, last);
  add(0.7f, -0.1f, 1, not_a_number);
  if (c.short_list) return rows;
  add(1.2f, 0.0f, 0, certain);
  add(-0.8f, 0.3f, 1, certain);
  add(1.0f, 0.9f, 0, as_it_is);    // clipped above: no gradient without KL and bonus
  add(1.0f, 0.3f, 1, last);        // inside reasoning's edges, outside knowledge's
  add(-1.0f, -0.9f, 0, as_it_is);  // clipped below
  add(-1.0f, 2.9f, 1, as_it_is);   // beyond c
  add(-1.0f, 21.0f, 1, as_it_is);  // beyond the clamp of the log-ratio
  add(0.0f, 0.1f, 1, as_it_is);    // A = 0
  add(1.0f, 0.02f, 1, [&](RowSpec& row) { std::fill(row.logits.begin(), row.logits.end(), -2.5f); });
  add(-1.0f, 0.02f, 0, [&](RowSpec& row) { row.logits[V / 2] = 3e4f; });  // one huge; the sampled id is another, or it
  add(1.0f, 0.05f, 0, [&](RowSpec& row) {
    for (size_t v = 0; v < V; v += 3) row.logits[v] = -inf;
    row.id = V > 1 ? 1 : 0;
    row.logits[static_cast<size_t>(row.id)] = 1.0f;
  });
  add(1.0f, 0.05f, 1, [&](RowSpec& row) { row.logits[V - 1] = inf; });
  add(1.0f, 0.05f, 1, [&](RowSpec& row) { std::fill(row.logits.begin(), row.logits.end(), -inf); });
  add(1.0f, 0.05f, 1, [&](RowSpec& row) { std::fill(row.logits.begin(), row.logits.end(), std::nanf("")); });
  add(1.0f, 0.05f, 1, [&](RowSpec& row) {
    row.logits[static_cast<size_t>(row.id)] = -inf;  // the sampled id has probability 0
  });
  add(1.0f, 0.05f, 0, [&](RowSpec& row) { row.id = c.vocabulary; });
  add(1.0f, 0.05f, 0, [&](RowSpec& row) { row.id = -1; });
  add(-0.3f, 0.0f, 0, as_it_is);
  return rows;
}

struct Expected {
  ExactRow stats{};
  double ratio = 0, pg_loss = 0, kl = 0, g = 0, b = 0;
  uint8_t flags = 0;
  double slack = 0;  // how far a float32 log-probability of this size may be off: matters for -3e4 alone
};

struct Worst {
  double log_prob = 0, entropy = 0, gradient = 0;
};

constexpr double kPgWeight = 0.01, kKlWeight = 0.02, kBeta[2] = {0.3, 0.05}, kAlpha = 0.05;

inline void check_case(HeadDevice& device, const RowCase& c, Worst& worst) {
  const bool is_float = c.type == LogitsType::float32;
  std::vector<RowSpec> rows = make_rows(c, 12345u + static_cast<uint64_t>(c.vocabulary));
  const auto R = rows.size(), V = static_cast<size_t>(c.vocabulary), S = V + static_cast<size_t>(c.padding);
  const double T = c.temperature;
  const ClipEdges<double> edges[2] = {{0.8, 1.2, c.dual_clip ? 10.0 : 0.0}, {0.5, 1.5, c.dual_clip ? 10.0 : 0.0}};
  int failures_before = check::failures;

  // float64, from the logits as the device gets them
  std::vector<Expected> expected(R);
  std::vector<float> old_log_probs(R), ref_log_probs(R), advantages(R), pg_weights(R, kPgWeight),
      kl_weights(R, kKlWeight);
  std::vector<double> thresholds(R);
  std::vector<uint8_t> classes(R);
  std::vector<int32_t> ids(R);
  std::vector<std::vector<double>> exact(R, std::vector<double>(V));
  for (size_t r = 0; r < R; ++r) {
    RowSpec& row = rows[r];
    Expected& e = expected[r];
    for (size_t v = 0; v < V; ++v) {
      if (!is_float) row.logits[v] = widen_bf16(round_bf16(row.logits[v]));
      exact[r][v] = row.logits[v];
    }
    ids[r] = row.id;
    advantages[r] = row.advantage;
    classes[r] = row.token_class;
    const bool bad_id = row.id < 0 || row.id >= c.vocabulary;
    e.stats = exact_row(exact[r].data(), c.vocabulary, bad_id ? 0 : row.id, T);
    if (bad_id) e.flags |= kRowBadId;
    if (std::isnan(e.stats.entropy)) e.flags |= kRowNotFinite;
    if (!bad_id && std::isinf(e.stats.log_prob)) e.flags |= kRowZeroProbability;
    const double log_prob = std::isfinite(e.stats.log_prob) ? e.stats.log_prob : -1.0;
    old_log_probs[r] = static_cast<float>(log_prob - row.offset);
    ref_log_probs[r] = static_cast<float>(log_prob - row.ref_offset);
    // With thresholds: the class that the list says, a margin away from the entropy.
    thresholds[r] = (std::isnan(e.stats.entropy) ? 1.0 : e.stats.entropy) + (row.token_class ? -0.01 : 0.01);
    if (e.flags & kRowFaults) continue;
    e.slack = 3e-7 * std::abs(e.stats.log_prob);
    if (row.token_class) e.flags |= kRowReasoning;
    const auto policy = policy_term<double>(e.stats.log_prob, old_log_probs[r], row.advantage, edges[row.token_class]);
    e.ratio = policy.ratio;
    e.pg_loss = policy.loss;
    e.g = static_cast<double>(pg_weights[r]) * policy.grad;
    if (c.has_kl) {
      const auto kl = kl_term<double>(e.stats.log_prob, ref_log_probs[r], c.kl_type);
      e.kl = kl.value;
      e.g += static_cast<double>(kl_weights[r]) * kBeta[row.token_class] * kl.grad;
    }
    e.b = c.bonus ? kAlpha * static_cast<double>(pg_weights[r]) : 0.0;
    if (policy.clipped) e.flags |= kRowClipped;
    if (policy.dual_clipped) e.flags |= kRowDualClipped;
    if (e.g != 0 || e.b != 0) e.flags |= kRowActive;
  }

  // The matrix as bytes, with `shift` elements before it; what lies between the rows is a pattern.
  const size_t element = is_float ? 4 : 2;
  std::vector<uint8_t> bytes((static_cast<size_t>(c.shift) + R * S + 64) * element, 0x5A);
  const auto row_bytes = [&](std::vector<uint8_t>& all, size_t r) {
    return all.data() + (static_cast<size_t>(c.shift) + r * S) * element;
  };
  for (size_t r = 0; r < R; ++r) {
    for (size_t v = 0; v < V; ++v) {
      const uint16_t half = round_bf16(rows[r].logits[v]);
      if (is_float) {
        std::memcpy(row_bytes(bytes, r) + 4 * v, &rows[r].logits[v], 4);
      } else {
        std::memcpy(row_bytes(bytes, r) + 2 * v, &half, 2);
      }
    }
  }
  std::vector<int32_t> list;
  std::vector<bool> in_list(R, !c.listed);
  if (c.listed) {
    for (size_t r = R; r-- > 0;) {
      if (r % 3 == 1) continue;
      list.push_back(static_cast<int32_t>(r));
      in_list[r] = true;
    }
  }

  DeviceArray<uint8_t> d_bytes(device, bytes);
  DeviceArray<int32_t> d_list(device, list), d_ids(device, ids);
  DeviceArray<float> d_old(device, old_log_probs), d_ref(device, ref_log_probs), d_advantages(device, advantages),
      d_pg(device, pg_weights), d_kl(device, kl_weights);
  DeviceArray<uint8_t> d_classes(device, classes), d_flags(device, std::vector<uint8_t>(R, 0xEE));
  DeviceArray<double> d_thresholds(device, thresholds);
  DeviceArray<RowStats> d_stats(device, std::vector<RowStats>(R, RowStats{7, 7, 7, 7}));
  DeviceArray<RowTerms> d_terms(device, std::vector<RowTerms>(R, RowTerms{7, 7, 7, 7}));
  HeadRowsParams p;
  p.logits = d_bytes.get() + static_cast<size_t>(c.shift) * element;
  p.logits_type = c.type;
  p.stride = static_cast<int64_t>(S);
  p.vocabulary = c.vocabulary;
  p.num_rows = static_cast<int32_t>(c.listed ? list.size() : R);
  p.rows = c.listed ? d_list.get() : nullptr;
  p.ids = d_ids.get();
  p.temperature = static_cast<float>(T);
  p.zero_inactive = c.zero_inactive;
  p.old_log_probs = d_old.get();
  p.ref_log_probs = c.has_kl ? d_ref.get() : nullptr;
  p.advantages = d_advantages.get();
  p.pg_weights = d_pg.get();
  p.kl_weights = d_kl.get();
  p.classes = c.thresholds ? nullptr : d_classes.get();
  p.thresholds = c.thresholds ? d_thresholds.get() : nullptr;
  for (int k = 0; k < 2; ++k) {
    p.edges[k] = {static_cast<float>(edges[k].low), static_cast<float>(edges[k].high),
                  static_cast<float>(edges[k].dual_clip)};
    p.kl_coef[k] = static_cast<float>(kBeta[k]);
  }
  p.kl_type = c.kl_type;
  p.entropy_coeff = c.bonus ? static_cast<float>(kAlpha) : 0.0f;
  p.stats = d_stats.get();
  p.terms = d_terms.get();
  p.flags = d_flags.get();

  const auto check_stats = [&](uint8_t ignored_flags) {
    const auto stats = d_stats.read();
    const auto flags = d_flags.read();
    for (size_t r = 0; r < R; ++r) {
      const Expected& e = expected[r];
      if (!in_list[r]) {
        CHECK(flags[r] == 0xEE && stats[r].max == 7);
        continue;
      }
      CHECK((flags[r] & ~ignored_flags) == (e.flags & ~ignored_flags));
      if (e.flags & kRowNotFinite) {
        CHECK(std::isnan(stats[r].log_prob) && std::isnan(stats[r].entropy) && std::isnan(stats[r].log_sum));
        continue;
      }
      CHECK_NEAR(stats[r].max, e.stats.max, 0);
      CHECK_NEAR(stats[r].log_sum, e.stats.log_sum, 1e-5);
      CHECK_NEAR(stats[r].entropy, e.stats.entropy, 1e-5);
      worst.entropy = std::max(worst.entropy, std::abs(stats[r].entropy - e.stats.entropy));
      if (e.flags & kRowBadId) continue;
      if (e.flags & kRowZeroProbability) {
        CHECK(std::isinf(stats[r].log_prob) && stats[r].log_prob < 0);
        continue;
      }
      CHECK_NEAR(stats[r].log_prob, e.stats.log_prob, 1e-5 + e.slack);
      if (std::abs(e.stats.log_prob) < 100)
        worst.log_prob = std::max(worst.log_prob, std::abs(stats[r].log_prob - e.stats.log_prob));
    }
  };
  const auto check_gradients = [&](std::vector<uint8_t> got) {
    std::vector<double> gradient(V);
    for (size_t r = 0; r < R; ++r) {
      const Expected& e = expected[r];
      const bool active = e.flags & kRowActive, written = in_list[r] && (active || c.zero_inactive);
      const size_t begin = written ? 2 * V : 0, end = S * element;
      CHECK(std::memcmp(row_bytes(got, r) + begin, row_bytes(bytes, r) + begin, end - begin) == 0);
      if (!written) continue;
      if (active) {
        exact_gradient_row(exact[r].data(), c.vocabulary, ids[r], T, e.stats, e.g, e.b, gradient.data());
      } else {
        std::fill(gradient.begin(), gradient.end(), 0.0);
      }
      const double scale = (std::abs(e.g) + std::abs(e.b) * (1 + e.stats.entropy)) / T;
      const double closeness = 5e-7 + e.slack;
      int wrong = 0;
      for (size_t v = 0; v < V; ++v) {
        uint16_t bits;
        std::memcpy(&bits, row_bytes(got, r) + 2 * v, 2);
        const double value = static_cast<double>(widen_bf16(bits));
        const double tolerance = active ? 0.0041 * std::abs(gradient[v]) + closeness * scale : 0.0;
        if (!(std::abs(value - gradient[v]) <= tolerance)) {
          if (wrong++ == 0)
            std::printf("  row %zu element %zu: %.9g, expected %.9g (scale %g)\n", r, v, value, gradient[v], scale);
        }
        if (active && e.slack < 1e-4) {
          const double beyond_rounding = std::abs(value - gradient[v]) - 0.00391 * std::abs(gradient[v]);
          worst.gradient = std::max(worst.gradient, beyond_rounding / scale);
        }
      }
      CHECK(wrong == 0);
    }
    const size_t before = static_cast<size_t>(c.shift) * element, after = before + R * S * element;
    CHECK(std::memcmp(got.data(), bytes.data(), before) == 0);
    CHECK(std::memcmp(got.data() + after, bytes.data() + after, bytes.size() - after) == 0);
  };

  // All three modes: statistics must leave the logits alone, fused must give everything at once, and the gradient mode
  // the same from the statistics and coefficients that it is given.
  device.run_rows(HeadRowsMode::statistics, p);
  check_stats(static_cast<uint8_t>(~kRowFaults));
  CHECK(d_bytes.read() == bytes);

  device.run_rows(HeadRowsMode::fused, p);
  check_stats(0);
  check_gradients(d_bytes.read());
  const auto terms = d_terms.read();
  for (size_t r = 0; r < R; ++r) {
    const Expected& e = expected[r];
    if (!in_list[r]) {
      CHECK(terms[r].ratio == 7);
      continue;
    }
    const double loose = 3e-5 + e.slack;
    CHECK_NEAR(terms[r].ratio, e.ratio, loose * (1e-3 + e.ratio));
    CHECK_NEAR(terms[r].pg_loss, e.pg_loss, loose * (1e-3 + std::abs(e.pg_loss)));
    CHECK_NEAR(terms[r].kl, e.kl, loose * (1 + std::abs(e.kl)));
    CHECK_NEAR(terms[r].grad_log_prob, e.g, loose * (0.03 + std::abs(e.g)));
  }

  std::vector<float> grad_log_prob(R), grad_entropy(R);
  for (size_t r = 0; r < R; ++r) {
    grad_log_prob[r] = static_cast<float>(expected[r].g);
    grad_entropy[r] = static_cast<float>(-expected[r].b);
  }
  DeviceArray<float> d_g(device, grad_log_prob), d_b(device, grad_entropy);
  p.grad_log_prob = d_g.get();
  p.grad_entropy = c.bonus ? d_b.get() : nullptr;
  device.upload(d_bytes.get(), bytes.data(), bytes.size());
  device.run_rows(HeadRowsMode::gradient, p);
  check_gradients(d_bytes.read());
  if (check::failures > failures_before) std::printf("  in case %s\n", c.name().c_str());
}

inline std::vector<RowCase> case_list() {
  std::vector<RowCase> cases;
  const KlType kinds[] = {KlType::k1, KlType::k2, KlType::k3, KlType::abs, KlType::k3_plus};
  int n = 0;
  for (const int vocabulary : {1, 2, 7, 31, 1000}) {
    for (const int cluster : {0, 1, 2, 4, 8}) {
      for (const LogitsType type : {LogitsType::float32, LogitsType::bfloat16}) {
        for (const KlType kind : kinds) {
          RowCase c;
          c.vocabulary = vocabulary;
          c.cluster = cluster;
          c.type = type;
          c.kl_type = kind;
          // Small numbers of different period: every combination of these comes up somewhere.
          c.dual_clip = n % 2;
          c.bonus = n / 2 % 2;
          c.has_kl = n % 7 != 0;
          c.thresholds = n % 3 == 0;
          c.temperature = n % 5 == 1 ? 0.7 : n % 5 == 3 ? 1.6 : 1.0;
          c.zero_inactive = n % 3 == 1;
          c.listed = n % 11 == 4;
          const int to_8 = (8 - vocabulary % 8) % 8;
          const int paddings[4] = {0, to_8, 3, 16 + to_8};
          c.padding = paddings[n % 4];
          c.shift = n % 13 == 5 ? 1 : n % 13 == 9 ? 3 : 0;
          ++n;
          cases.push_back(c);
        }
      }
    }
  }
  for (const KlType kind : kinds) {  // the whole product once
    for (int bits = 0; bits < 16; ++bits) {
      RowCase c;
      c.vocabulary = 203;
      c.cluster = 2;
      c.kl_type = kind;
      c.dual_clip = bits & 1;
      c.bonus = bits & 2;
      c.temperature = bits & 4 ? 0.6 : 1.0;
      c.type = bits & 8 ? LogitsType::bfloat16 : LogitsType::float32;
      c.padding = 5;
      cases.push_back(c);
    }
  }
  return cases;
}

// The vocabularies of SmolLM2 and Qwen2.5.
inline std::vector<RowCase> large_cases() {
  std::vector<RowCase> cases;
  for (const int vocabulary : {49152, 151936}) {
    for (const LogitsType type : {LogitsType::float32, LogitsType::bfloat16}) {
      for (const int cluster : {0, 1, 2, 4, 8}) {
        if (cluster > 0 && resident_bytes(vocabulary, cluster, type) > (size_t{227} << 10)) continue;
        RowCase c;
        c.vocabulary = vocabulary;
        c.cluster = cluster;
        c.type = type;
        c.short_list = true;
        c.bonus = cluster == 0 || cluster == 4;
        c.dual_clip = true;
        c.shift = cluster == 2 ? 1 : 0;
        cases.push_back(c);
      }
    }
  }
  return cases;
}

}  // namespace archer::row_cases
