// The case list of the decode step's kernels, for every device (the emulation on the CPU, a GPU where there is one),
// against plain float64 loops. Letters as in decode_ops.h.
#pragma once
#include <algorithm>
#include <limits>

#include "tests/decode_sample_cases.h"

namespace archer::decode_cases {

// ---- embedding, residual, RMSNorm ----

inline void check_norm(DecodeDevice& device, int hidden, bool embeds, bool bias) {
  const auto H = static_cast<size_t>(hidden);
  constexpr size_t kRows = 3, kVocabulary = 7;
  Random random(H + embeds);
  auto rows = running_rows({5, 6, 7});
  rows[0].token = 6;
  rows[1].token = 0;
  rows[2].token = 3;
  const Bits x = random.bf16(kRows * H, 2), delta = random.bf16(kRows * H, 1), weight = random.bf16(H, 0.3, 1);
  const Bits table = random.bf16(kVocabulary * H, 1), shift = random.bf16(H, 1);
  DeviceArray<uint16_t> d_x(device, x), d_delta(device, delta), d_weight(device, weight), d_table(device, table);
  DeviceArray<uint16_t> d_shift(device, shift), d_out(device, Bits(kRows * H, 0xFFFF));
  DeviceArray<DecodeRow> d_rows(device, rows);
  NormRowsParams p;
  p.x_BH = d_x.get();
  p.table_VH = embeds ? d_table.get() : nullptr;
  p.delta_BH = d_delta.get();
  p.bias_H = bias ? d_shift.get() : nullptr;
  p.weight_H = d_weight.get();
  p.out_BH = d_out.get();
  p.rows = d_rows.get();
  p.num_rows = kRows;
  p.hidden_size = hidden;
  p.eps = 0.5f;
  device.norm_rows(p);
  std::vector<double> new_x(kRows * H), out(kRows * H);
  for (size_t r = 0; r < kRows; ++r) {
    double squares = 0;
    for (size_t h = 0; h < H; ++h) {
      const size_t i = r * H + h;
      const double added = bias ? rounded(wide(delta[i]) + wide(shift[h])) : wide(delta[i]);
      new_x[i] = embeds ? wide(table[static_cast<size_t>(rows[r].token) * H + h]) : rounded(wide(x[i]) + added);
      squares += new_x[i] * new_x[i];
    }
    const double scale = 1 / std::sqrt(squares / static_cast<double>(H) + 0.5);
    for (size_t h = 0; h < H; ++h) out[r * H + h] = new_x[r * H + h] * scale * wide(weight[h]);
  }
  const std::string name = "norm H " + std::to_string(hidden) + (embeds ? " embeds" : "") + (bias ? " bias" : "");
  const Bits got_x = d_x.read(), got = d_out.read();
  check_all(name + " x", got_x.size(), [&](size_t i) { return wide(got_x[i]); }, [&](size_t i) { return new_x[i]; },
            [&](size_t i) { return kBf16Step / 2 * std::abs(new_x[i]); });
  check_all(name, got.size(), [&](size_t i) { return wide(got[i]); }, [&](size_t i) { return out[i]; },
            [&](size_t i) { return kBf16Step * std::abs(out[i]) + 1e-6; });
}

// ---- query and key norm, RoPE, append; attention ----

struct Heads {
  int heads, kv_heads, head_dim;
  int group() const { return heads / kv_heads; }
  std::string name() const {
    return std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of " + std::to_string(head_dim);
  }
};

// Pages for every position of every row, given out in an order of their own. Rows 0 and 1 share their first page.
struct Pages {
  int per_row, count;
  std::vector<int32_t> table;
  Pages(const std::vector<int32_t>& positions, uint64_t seed) {
    per_row = 1;
    for (const int32_t position : positions) per_row = std::max(per_row, position / kPagePositions + 1);
    count = per_row * static_cast<int>(positions.size());
    for (int i = 0; i < count; ++i) table.push_back(i);
    Random random(seed);
    for (size_t i = table.size(); i > 1; --i) std::swap(table[i - 1], table[random.next() % i]);
    if (positions.size() > 1) table[static_cast<size_t>(per_row)] = table[0];
  }
  int64_t stride(const Heads& h) const { return int64_t{h.kv_heads} * kPagePositions * h.head_dim; }
  size_t size(const Heads& h) const { return static_cast<size_t>(count * h.kv_heads * kPagePositions * h.head_dim); }
  size_t at(const Heads& h, size_t row, int kv_head, int position) const {
    const int page = table[row * static_cast<size_t>(per_row) + static_cast<size_t>(position / kPagePositions)];
    return static_cast<size_t>(((page * h.kv_heads + kv_head) * kPagePositions + position % kPagePositions) *
                               h.head_dim);
  }
};

inline void check_append(DecodeDevice& device, const Heads& h, bool bias, bool norm) {
  const std::vector<int32_t> positions{0, 64, 65, 63, 999};
  constexpr size_t kIdle = 2, kKept = 3;  // a row that does not run, and one whose keys are there already
  auto rows = running_rows(positions);
  rows[kIdle].state = RowState::stopped;
  rows[kKept].first = positions[kKept] + 1;
  const Pages pages({99, 99, 65, 63, 999}, 3);
  const int D = h.head_dim, half = D / 2, slots = h.heads + 2 * h.kv_heads;
  const size_t row_size = static_cast<size_t>(slots * D);
  Random random(static_cast<uint64_t>(h.heads * D) + bias);
  const Bits qkv = random.bf16(positions.size() * row_size, 1), shift = random.bf16(row_size, 1);
  const Bits q_norm = random.bf16(static_cast<size_t>(D), 0.3, 1), k_norm = random.bf16(static_cast<size_t>(D), 0.3, 1);
  const Bits cosine = random.bf16(static_cast<size_t>(1000 * half), 0.5), sine = random.bf16(cosine.size(), 0.5);
  constexpr uint16_t kUntouched = 0x7E11;
  const size_t num_queries = positions.size() * static_cast<size_t>(h.heads * D);
  DeviceArray<uint16_t> d_qkv(device, qkv), d_shift(device, shift), d_q_norm(device, q_norm), d_k_norm(device, k_norm);
  DeviceArray<uint16_t> d_cosine(device, cosine), d_sine(device, sine);
  DeviceArray<uint16_t> d_queries(device, Bits(num_queries, kUntouched));
  const Bits untouched(pages.size(h), kUntouched);
  DeviceArray<uint16_t> d_keys(device, untouched), d_values(device, untouched);
  DeviceArray<int32_t> d_table(device, pages.table);
  DeviceArray<DecodeRow> d_rows(device, rows);
  AppendParams p;
  p.qkv_BX = d_qkv.get();
  p.bias_X = bias ? d_shift.get() : nullptr;
  p.q_norm_D = norm ? d_q_norm.get() : nullptr;
  p.k_norm_D = norm ? d_k_norm.get() : nullptr;
  p.cosine = d_cosine.get();
  p.sine = d_sine.get();
  p.queries_BND = d_queries.get();
  p.cache = {d_keys.get(), d_values.get(), d_table.get(), pages.per_row, pages.stride(h)};
  p.rows = d_rows.get();
  p.num_rows = static_cast<int32_t>(positions.size());
  p.num_heads = h.heads;
  p.num_kv_heads = h.kv_heads;
  p.head_dim = D;
  p.eps = 0.5f;
  device.append_keys(p);

  std::vector<double> queries(num_queries, wide(kUntouched)), keys(pages.size(h), wide(kUntouched)), values = keys;
  for (size_t r = 0; r < positions.size(); ++r) {
    if (r == kIdle) continue;
    for (int slot = 0; slot < slots; ++slot) {
      const size_t from = r * row_size + static_cast<size_t>(slot * D);
      const bool is_query = slot < h.heads, is_value = slot >= h.heads + h.kv_heads;
      if (r == kKept && !is_query) continue;
      std::vector<double> x(static_cast<size_t>(D));
      double squares = 0;
      for (int d = 0; d < D; ++d) {
        const auto i = static_cast<size_t>(d);
        x[i] = wide(qkv[from + i]);
        if (bias) x[i] = rounded(x[i] + wide(shift[static_cast<size_t>(slot * D) + i]));
        squares += x[i] * x[i];
      }
      if (norm && !is_value) {
        for (size_t i = 0; i < x.size(); ++i)
          x[i] *= wide((is_query ? q_norm : k_norm)[i]) / std::sqrt(squares / D + 0.5);
      }
      for (int d = 0; d < half && !is_value; ++d) {
        const auto i = static_cast<size_t>(d), j = static_cast<size_t>(d + half);
        const size_t angle = static_cast<size_t>(positions[r] * half + d);
        const double a = x[i], b = x[j];
        x[i] = a * wide(cosine[angle]) - b * wide(sine[angle]);
        x[j] = b * wide(cosine[angle]) + a * wide(sine[angle]);
      }
      const int kv_head = (slot - h.heads) % h.kv_heads;
      double* to = is_query ? &queries[(r * static_cast<size_t>(h.heads) + static_cast<size_t>(slot)) * x.size()]
                            : &(is_value ? values : keys)[pages.at(h, r, kv_head, positions[r])];
      for (size_t i = 0; i < x.size(); ++i) to[i] = x[i];
    }
  }
  const auto compare = [&](const char* what, DeviceArray<uint16_t>& array, const std::vector<double>& expected) {
    const Bits got = array.read();
    check_all("append " + h.name() + (bias ? " bias " : " ") + (norm ? "norm " : "") + what, got.size(),
              [&](size_t i) { return wide(got[i]); }, [&](size_t i) { return expected[i]; },
              [&](size_t i) { return expected[i] == wide(kUntouched) ? 0 : 0.03 * std::abs(expected[i]) + 0.03; });
  };
  compare("queries", d_queries, queries);
  compare("keys", d_keys, keys);
  compare("values", d_values, values);
}

// What attention leaves for the rows.
inline Bits run_attention(DecodeDevice& device, const Heads& h, const std::vector<DecodeRow>& rows, const Pages& pages,
                          const Bits& queries, const Bits& keys, const Bits& values, int num_splits) {
  const size_t B = rows.size(), N = static_cast<size_t>(h.heads), S = static_cast<size_t>(num_splits);
  DeviceArray<uint16_t> d_queries(device, queries), d_keys(device, keys), d_values(device, values);
  DeviceArray<uint16_t> d_out(device, Bits(queries.size(), 0xFFFF));
  DeviceArray<int32_t> d_table(device, pages.table);
  DeviceArray<DecodeRow> d_rows(device, rows);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  DeviceArray<float> d_sums(device, std::vector<float>(B * N * S * static_cast<size_t>(h.head_dim), nan));
  DeviceArray<float> d_scales(device, std::vector<float>(B * N * S * 2, nan));
  AttentionParams p;
  p.queries_BND = d_queries.get();
  p.cache = {d_keys.get(), d_values.get(), d_table.get(), pages.per_row, pages.stride(h)};
  p.split_sums = d_sums.get();
  p.split_scales = d_scales.get();
  p.out_BND = d_out.get();
  p.rows = d_rows.get();
  p.num_rows = static_cast<int32_t>(B);
  p.num_heads = h.heads;
  p.num_kv_heads = h.kv_heads;
  p.head_dim = h.head_dim;
  p.num_splits = num_splits;
  device.attend(p);
  return d_out.read();
}

inline void check_attention(DecodeDevice& device, const Heads& h, const std::vector<int32_t>& lengths,
                            double sharpness) {
  std::vector<int32_t> positions;
  for (const int32_t length : lengths) positions.push_back(length - 1);
  auto rows = running_rows(positions);
  const size_t idle = rows.size() - 1;
  rows[idle].state = RowState::idle;
  const Pages pages(positions, 7);
  const auto D = static_cast<size_t>(h.head_dim), N = static_cast<size_t>(h.heads);
  Random random(static_cast<uint64_t>(h.heads * h.head_dim));
  const Bits queries = random.bf16(rows.size() * N * D, sharpness);
  const Bits all_keys = random.bf16(pages.size(h), 1), all_values = random.bf16(pages.size(h), 1);
  // NaN wherever no row has a position.
  Bits keys(all_keys.size(), 0x7FFF), values(all_values.size(), 0xFFFF);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int t = 0; t <= positions[r]; ++t) {
      for (int head = 0; head < h.kv_heads; ++head) {
        const size_t at = pages.at(h, r, head, t);
        std::copy_n(&all_keys[at], D, &keys[at]);
        std::copy_n(&all_values[at], D, &values[at]);
      }
    }
  }
  const int num_splits = (pages.per_row + kPagesPerSplit - 1) / kPagesPerSplit;
  const Bits got = run_attention(device, h, rows, pages, queries, keys, values, num_splits);
  std::vector<double> expected(got.size()), tolerance(got.size(), 0);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t n = 0; n < N && r != idle; ++n) {
      const int kv_head = static_cast<int>(n) / h.group();
      const uint16_t* query = &queries[(r * N + n) * D];
      std::vector<double> weights;
      double max = -1e300, sum = 0;
      for (int t = 0; t <= positions[r]; ++t) {
        double score = 0;
        for (size_t d = 0; d < D; ++d) score += wide(query[d]) * wide(keys[pages.at(h, r, kv_head, t) + d]);
        weights.push_back(score / std::sqrt(static_cast<double>(D)));
        max = std::max(max, weights.back());
      }
      for (double& weight : weights) sum += weight = std::exp(weight - max);
      for (size_t d = 0; d < D; ++d) {
        double out = 0, size = 0;
        for (int t = 0; t <= positions[r]; ++t) {
          const double share = weights[static_cast<size_t>(t)] / sum * wide(values[pages.at(h, r, kv_head, t) + d]);
          out += share;
          size += std::abs(share);
        }
        expected[(r * N + n) * D + d] = out;
        tolerance[(r * N + n) * D + d] = 1.0 / 256 * (std::abs(out) + size) + 1e-5;
      }
    }
  }
  check_all("attention " + h.name(), got.size(), [&](size_t i) { return wide(got[i]); },
            [&](size_t i) { return expected[i]; }, [&](size_t i) { return tolerance[i]; });

  // A row's bits depend neither on the rows around it nor on how many splits were launched.
  const size_t alone = rows.size() > 2 ? 2 : 0;
  Pages own = pages;
  own.table.assign(pages.table.begin() + static_cast<std::ptrdiff_t>(alone) * pages.per_row,
                   pages.table.begin() + static_cast<std::ptrdiff_t>(alone + 1) * pages.per_row);
  const Bits query(queries.begin() + static_cast<std::ptrdiff_t>(alone * N * D),
                   queries.begin() + static_cast<std::ptrdiff_t>((alone + 1) * N * D));
  DecodeRow only = rows[alone];
  only.sequence = 0;
  const Bits again = run_attention(device, h, {only}, own, query, keys, values, num_splits + 3);
  CHECK(std::equal(again.begin(), again.end(), got.begin() + static_cast<std::ptrdiff_t>(alone * N * D)));
}

// Prompts of these lengths, of which the tokens from `firsts` on are computed; a tile never crosses two of them.
inline void check_prefill(DecodeDevice& device, const Heads& h, const std::vector<int32_t>& firsts,
                          const std::vector<int32_t>& lengths, double sharpness) {
  std::vector<int32_t> last, positions, owners;
  std::vector<PrefillTile> tiles;
  for (size_t s = 0; s < lengths.size(); ++s) {
    last.push_back(lengths[s] - 1);
    for (int32_t t = firsts[s]; t < lengths[s]; ++t) {
      if ((t - firsts[s]) % kPrefillTile == 0) tiles.push_back({static_cast<int32_t>(positions.size()), 0});
      ++tiles.back().num_rows;
      positions.push_back(t);
      owners.push_back(static_cast<int32_t>(s));
    }
  }
  auto rows = running_rows(positions);
  for (size_t r = 0; r < rows.size(); ++r) rows[r].sequence = owners[r];
  const Pages pages(last, 11);
  const auto D = static_cast<size_t>(h.head_dim), N = static_cast<size_t>(h.heads);
  Random random(static_cast<uint64_t>(h.heads * h.head_dim) + 1);
  const Bits queries = random.bf16(rows.size() * N * D, sharpness);
  const Bits all_keys = random.bf16(pages.size(h), 1), all_values = random.bf16(pages.size(h), 1);
  Bits keys(all_keys.size(), 0x7FFF), values(all_values.size(), 0xFFFF);  // NaN wherever no prompt has a position
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (int t = 0; t < lengths[s]; ++t) {
      for (int head = 0; head < h.kv_heads; ++head) {
        const size_t at = pages.at(h, s, head, t);
        std::copy_n(&all_keys[at], D, &keys[at]);
        std::copy_n(&all_values[at], D, &values[at]);
      }
    }
  }
  DeviceArray<uint16_t> d_queries(device, queries), d_keys(device, keys), d_values(device, values);
  DeviceArray<uint16_t> d_out(device, Bits(queries.size(), 0xFFFF));
  DeviceArray<int32_t> d_table(device, pages.table);
  DeviceArray<DecodeRow> d_rows(device, rows);
  DeviceArray<PrefillTile> d_tiles(device, tiles);
  device.attend_prompts({d_queries.get(), {d_keys.get(), d_values.get(), d_table.get(), pages.per_row, pages.stride(h)}, d_out.get(),
                         d_rows.get(), d_tiles.get(), static_cast<int32_t>(tiles.size()), h.heads, h.kv_heads,
                         h.head_dim});
  const Bits got = d_out.read();
  std::vector<double> expected(got.size()), tolerance(got.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto s = static_cast<size_t>(owners[r]);
    for (size_t n = 0; n < N; ++n) {
      const int kv_head = static_cast<int>(n) / h.group();
      std::vector<double> weights;
      double max = -1e300, sum = 0;
      for (int t = 0; t <= positions[r]; ++t) {
        const uint16_t* const key = &keys[pages.at(h, s, kv_head, t)];
        double score = 0;
        for (size_t d = 0; d < D; ++d) score += wide(queries[(r * N + n) * D + d]) * wide(key[d]);
        weights.push_back(score / std::sqrt(static_cast<double>(D)));
        max = std::max(max, weights.back());
      }
      for (double& weight : weights) sum += weight = std::exp(weight - max);
      for (int t = 0; t <= positions[r]; ++t) {
        const uint16_t* const value = &values[pages.at(h, s, kv_head, t)];
        for (size_t d = 0; d < D; ++d) {
          const double share = weights[static_cast<size_t>(t)] / sum * wide(value[d]);
          expected[(r * N + n) * D + d] += share;
          tolerance[(r * N + n) * D + d] += std::abs(share) / 256;
        }
      }
    }
  }
  check_all("prefill " + h.name(), got.size(), [&](size_t i) { return wide(got[i]); },
            [&](size_t i) { return expected[i]; },
            [&](size_t i) { return tolerance[i] + std::abs(expected[i]) / 256 + 1e-5; });
}

// ---- SwiGLU ----

inline void check_swiglu(DecodeDevice& device, int inner, bool bias) {
  const auto F = static_cast<size_t>(inner);
  constexpr size_t kRows = 3;
  Random random(F);
  Bits gate_up = random.bf16(kRows * 2 * F, 3);
  gate_up[0] = kernels::narrow<uint16_t>(-300.0f);  // beyond the exponential's range
  gate_up[1] = kernels::narrow<uint16_t>(300.0f);
  const Bits shift = random.bf16(2 * F, 1);
  DeviceArray<uint16_t> d_gate_up(device, gate_up), d_shift(device, shift), d_out(device, Bits(kRows * F, 0xFFFF));
  device.swiglu({d_gate_up.get(), bias ? d_shift.get() : nullptr, d_out.get(), kRows, inner});
  const Bits got = d_out.read();
  const auto input = [&](size_t row, size_t j) {
    const double x = wide(gate_up[row * 2 * F + j]);
    return bias ? rounded(x + wide(shift[j])) : x;
  };
  const auto expected = [&](size_t i) {
    const double gate = input(i / F, i % F);
    return gate / (1 + std::exp(-gate)) * input(i / F, F + i % F);
  };
  check_all("swiglu F " + std::to_string(inner), got.size(), [&](size_t i) { return wide(got[i]); }, expected,
            [&](size_t i) { return kBf16Step * std::abs(expected(i)) + 1e-30; });
}

// The sizes for which the GPU's own block sizes matter.
template <typename Next>
void check_large(Next next) {
  check_norm(next(), 1536, false, true);
  check_norm(next(), 4104, true, false);
  check_swiglu(next(), 2056, true);
  check_append(next(), {12, 2, 128}, true, true);
  SampleCounts counts;
  check_sample(next(), {151936, {1.0, 1.0, 0.0, -1}, 1}, counts);
  check_sample(next(), {4100, {1.0, 0.9, 0.01, 400}, 1}, counts);
  check_sample(next(), {20000, {0.0, 1.0, 0.0, -1}, 1}, counts);
  CHECK(counts.near_ties <= 1);
}

// Every kernel. `next` is called before each case and gives the device to use.
template <typename Next>
void check_kernels(Next next) {
  for (const int hidden : {8, 24, 136, 1536, 4104}) {
    check_norm(next(), hidden, true, false);
    check_norm(next(), hidden, false, false);
    check_norm(next(), hidden, false, true);
  }
  for (const int inner : {8, 40, 1000}) {
    check_swiglu(next(), inner, false);
    check_swiglu(next(), inner, true);
  }
  for (const int head_dim : {64, 128}) {
    for (const auto& [heads, kv_heads] : {std::pair{2, 2}, {6, 2}, {12, 2}, {8, 1}, {1, 1}}) {
      const Heads h{heads, kv_heads, head_dim};
      check_append(next(), h, heads == 12, false);
      check_append(next(), h, heads == 8, true);
      check_attention(next(), h, {65, 64, 1, 63, 300, 256, 257, 5}, 1);
    }
    for (const int group : {1, 2, 3, 4, 5, 6, 7, 8}) {
      check_attention(next(), {2 * group, 2, head_dim}, {63, 1, 128}, 1);
      check_prefill(next(), {2 * group, 2, head_dim}, {0, 0, 63}, {1, 65, 64}, 1);
    }
    check_prefill(next(), {2, 1, head_dim}, {64}, {64}, 1);  // no token at all
    check_attention(next(), {6, 1, head_dim}, {1000, 1, 1000, 64}, 1);
    check_attention(next(), {3, 1, head_dim}, {130, 200, 70}, 8);  // a few positions have all the weight
    check_prefill(next(), {6, 2, head_dim}, {0, 0, 0, 0}, {1, 130, 64, 17}, 1);
    check_prefill(next(), {2, 1, head_dim}, {64, 191, 70, 128}, {200, 192, 135, 193}, 1);
    check_prefill(next(), {3, 1, head_dim}, {0, 64}, {200, 70}, 8);
  }
  SampleCounts counts;
  for (const auto& c : sample_cases()) check_sample(next(), c, counts);
  check_stops(next());
  std::printf("%d tokens sampled, %d of them other than the CPU's at a near tie\n", counts.tokens, counts.near_ties);
  CHECK(counts.near_ties * 200 < counts.tokens);
}

}  // namespace archer::decode_cases
