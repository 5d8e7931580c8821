// Sampling on a GPU, written once for nvcc and for the emulation: include it after a header that defines the primitives
// of namespace archer::gpu. The draw is that of kernels/sample_row.h: ids ascending, the first one whose running sum of
// probabilities passes u times the whole; exponentials are float32, running sums float64.
//
// reduce_part: one block per row and part of 4096 logits, which is the one read of the logits: sums as in row_math.h.
// choose_token: one block per row merges the parts, finds the part in which the draw falls, and reads that part
// again. Top-k, top-p and min-p all keep a prefix of the order (logit descending, id ascending), so a cut is a logit
// and, among ids with that very logit, the last one kept. The logit is searched four bits at a time over the row's
// ordered keys: eight reads of the row per cut.
#pragma once
#include "kernels/decode_ops.h"
#include "kernels/gpu_rows.h"

namespace archer::gpu {

constexpr int kDigits = 16;

template <int kThreads>
struct SampleShared {
  Float4 warps[kThreads / 32];
  RowSums sums;
  double weights[kThreads];
  double warp_weights[kThreads / 32];
  double digits[kThreads / 32][kDigits];
  double before;                             // the running sum where the part begins
  int32_t part, id;
};

// Behind it in shared memory: the mass of every part.
constexpr size_t kSampleHeaderBytes = 8 << 10;
constexpr size_t sample_shared_bytes(int64_t vocabulary) {
  return kSampleHeaderBytes + static_cast<size_t>(num_sample_parts(vocabulary)) * sizeof(double);
}

ARCHER_DEVICE void load_logits(const float* row_V, int first, int vocabulary, float (&values)[4]) {
  unpack(load_16(row_V + first), values);
  ARCHER_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (first + i >= vocabulary) set_minus_infinity(values[i]);  // the row's padding
  }
}

// Greedy rows have the log-probabilities of temperature 1.
ARCHER_DEVICE float inverse_temperature(const SampleSettings& settings) {
  return settings.temperature > 0.0 ? static_cast<float>(1.0 / settings.temperature) : 1.0f;
}

template <int kThreads>
ARCHER_DEVICE void reduce_part(const SampleParams& p) {
  const int row = block_rank() / p.num_parts, part = block_rank() % p.num_parts;
  const DecodeRow state = p.rows[row];
  if (state.state != RowState::running) return;
  const float scale = kLog2E * inverse_temperature(*p.settings);
  const float* const logits = p.logits + state.sequence * p.stride;
  RowSums sums = empty_sums();
  ARCHER_UNROLL
  for (int v = thread_rank() * 4; v < kSamplePart; v += kThreads * 4) {
    const int first = part * kSamplePart + v;
    if (first >= p.vocabulary) break;
    float values[4];
    load_logits(logits, first, p.vocabulary, values);
    absorb(sums, values, scale);
  }
  auto& warps = *reinterpret_cast<Float4(*)[kThreads / 32]>(shared_memory());
  sums = reduce_block<kThreads>(sums, scale, warps);
  if (thread_rank() == 0) {
    *reinterpret_cast<Float4*>(p.parts + static_cast<int64_t>(block_rank()) * 4) = {sums.max, sums.sum, sums.weighted,
                                                                                    0.0f};
  }
}

// Orders like the logits themselves; -0 is 0, as for the comparisons of the CPU.
ARCHER_DEVICE uint32_t key_of(float logit) {
  const uint32_t bits = float_to_bits(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
ARCHER_DEVICE float logit_of(uint32_t key) { return bits_to_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key); }

struct Cut {
  uint32_t key;  // everything above it stays, and of ids with this very key those up to last_id
  int last_id;
  ARCHER_DEVICE bool keeps(uint32_t of_id, int id) const { return of_id > key || (of_id == key && id <= last_id); }
};

// One row. A weight is a function (logit, id) -> double >= 0. Between two calls that set masses lies one that has read
// them and passed a barrier.
template <int kThreads>
class Chooser {
 public:
  ARCHER_DEVICE Chooser(const SampleParams& p, const float* logits_V)
      : p_(p),
        logits_V_(logits_V),
        shared_(*reinterpret_cast<SampleShared<kThreads>*>(shared_memory())),
        masses_(reinterpret_cast<double*>(shared_memory() + kSampleHeaderBytes)) {}

  // masses = mass(part), and their sum
  template <typename Mass>
  ARCHER_DEVICE double set_masses(Mass mass) {
    for (int part = thread_rank(); part < p_.num_parts; part += kThreads) masses_[part] = mass(part);
    block_barrier();
    return total();
  }

  // masses = the parts' sums of `weight`, and their sum. One warp per part.
  template <typename Weight>
  ARCHER_DEVICE double weigh_parts(Weight weight) {
    for (int part = thread_rank() / 32; part < p_.num_parts; part += kThreads / 32) {
      double mass = 0.0;
      for (int v = thread_rank() % 32 * 4; v < kSamplePart; v += 32 * 4) {
        const int first = part * kSamplePart + v;
        if (first >= p_.vocabulary) break;
        mass += weight_of_4(first, weight);
      }
      for (int mask = 16; mask > 0; mask /= 2) mass += shuffle_xor(mass, mask);
      if (thread_rank() % 32 == 0) masses_[part] = mass;
    }
    block_barrier();
    return total();
  }

  // The first id whose running sum of weights passes `target`, or the last one with a weight where rounding keeps the
  // sum from it; -1 where no id has a weight. The parts' masses must be those of `weight`.
  template <typename Weight>
  ARCHER_DEVICE int first_beyond(double target, Weight weight) {
    if (thread_rank() == 0) {
      double running = 0.0;
      int part = 0, last = 0;
      for (; part < p_.num_parts; ++part) {
        if (masses_[part] > 0.0) last = part;
        if (running + masses_[part] > target) break;
        running += masses_[part];
      }
      if (part == p_.num_parts) {
        part = last;
        running -= masses_[part];
      }
      shared_.part = part;
      shared_.before = running;
      shared_.id = -1;
    }
    block_barrier();
    constexpr int kShare = kSamplePart / kThreads;  // ids side by side that one thread owns
    static_assert(kShare % 4 == 0, "whole vectors");
    const int thread = thread_rank(), lane = thread % 32, begin = shared_.part * kSamplePart + thread * kShare;
    double own = 0.0;
    for (int v = 0; v < kShare && begin + v < p_.vocabulary; v += 4) own += weight_of_4(begin + v, weight);
    // Running sums along the warp's lanes, each warp from where the one before ends: they never fall from thread to
    // thread, so that exactly one of them holds the target.
    shared_.weights[thread] = own;
    block_barrier();
    double in_warp = 0.0, up_to_lane = 0.0;
    for (int l = 0; l <= lane; ++l) {
      up_to_lane = in_warp;
      in_warp += shared_.weights[thread - lane + l];
    }
    if (lane == 31) shared_.warp_weights[thread / 32] = in_warp;
    block_barrier();
    double base = shared_.before;
    for (int w = 0; w < thread / 32; ++w) base += shared_.warp_weights[w];
    double last_end = base;
    for (int w = thread / 32; w < kThreads / 32; ++w) last_end += shared_.warp_weights[w];
    const double start = base + up_to_lane, end = base + in_warp;
    const bool holds = last_end > target ? end > target && start <= target : end == last_end && start < last_end;
    if (holds) {
      double running = start;
      int id = -1;
      for (int v = begin; v < begin + kShare && v < p_.vocabulary && running <= target; ++v) {
        const double mass = weight(logits_V_[v], v);
        if (mass > 0.0) id = v;
        running += mass;
      }
      shared_.id = id;
    }
    block_barrier();
    return shared_.id;
  }

  // The shortest prefix of the ids with a weight, by (logit descending, id ascending), that weighs at least `target`.
  template <typename Weight>
  ARCHER_DEVICE Cut shortest_prefix(double target, Weight weight) {
    uint32_t key = 0;
    double above = 0.0;  // weight of the keys beyond those that begin like `key`
    for (int shift = 28; shift >= 0; shift -= 4) {
      double weights[kDigits];  // of the keys that begin like `key` and go on with this digit or a larger one
      ARCHER_UNROLL
      for (int d = 0; d < kDigits; ++d) weights[d] = 0.0;
      for (int first = thread_rank() * 4; first < p_.vocabulary; first += kThreads * 4) {
        float values[4];
        load_logits(logits_V_, first, p_.vocabulary, values);
        for (int i = 0; i < 4; ++i) {
          const uint32_t of_id = key_of(values[i]);
          if (first + i >= p_.vocabulary || (shift < 28 && of_id >> (shift + 4) != key >> (shift + 4))) continue;
          const double w = weight(values[i], first + i);
          const int digit = static_cast<int>(of_id >> shift & 15u);
          ARCHER_UNROLL
          for (int d = 0; d < kDigits; ++d) weights[d] += d <= digit ? w : 0.0;
        }
      }
      block_barrier();
      ARCHER_UNROLL
      for (int d = 0; d < kDigits; ++d) {
        for (int mask = 16; mask > 0; mask /= 2) weights[d] += shuffle_xor(weights[d], mask);
        if (thread_rank() % 32 == 0) shared_.digits[thread_rank() / 32][d] = weights[d];
      }
      block_barrier();
      // The largest digit with enough; digit 0 where rounding leaves none.
      double beyond = above;
      for (int d = kDigits - 1; d >= 0; --d) {
        double sum = above;
        for (int w = 0; w < kThreads / 32; ++w) sum += shared_.digits[w][d];
        if (sum >= target || d == 0) {
          key |= static_cast<uint32_t>(d) << shift;
          break;
        }
        beyond = sum;
      }
      above = beyond;
    }
    const auto is_tied = [&](float logit, int id) {
      return key_of(logit) == key && weight(logit, id) > 0.0 ? 1.0 : 0.0;
    };
    weigh_parts(is_tied);
    // Of the tied, the fewest that reach the target.
    const double each = weight(logit_of(key), 0), count = std::ceil((target - above) / each);
    const int last = first_beyond(count - 1.0, is_tied);
    return {key, last < 0 ? p_.vocabulary : last};
  }

 private:
  ARCHER_DEVICE double total() const {
    double sum = 0.0;
    for (int part = 0; part < p_.num_parts; ++part) sum += masses_[part];
    return sum;
  }
  template <typename Weight>
  ARCHER_DEVICE double weight_of_4(int first, Weight weight) const {
    float values[4];
    load_logits(logits_V_, first, p_.vocabulary, values);
    double sum = 0.0;
    for (int i = 0; i < 4; ++i) {
      if (first + i < p_.vocabulary) sum += weight(values[i], first + i);
    }
    return sum;
  }

  const SampleParams& p_;
  const float* logits_V_;
  SampleShared<kThreads>& shared_;
  double* masses_;
};

template <int kThreads>
ARCHER_DEVICE void choose_token(const SampleParams& p) {
  static_assert(sizeof(SampleShared<kThreads>) <= kSampleHeaderBytes, "the header must fit before the masses");
  const int row = block_rank();
  DecodeRow state = p.rows[row];
  if (state.state != RowState::running) return;
  const SampleSettings settings = *p.settings;
  const float per_temperature = inverse_temperature(settings), scale = kLog2E * per_temperature;
  const float* const logits = p.logits + state.sequence * p.stride;
  const auto* const parts = reinterpret_cast<const Float4*>(p.parts) + static_cast<int64_t>(row) * p.num_parts;
  auto& shared = *reinterpret_cast<SampleShared<kThreads>*>(shared_memory());

  RowSums sums = empty_sums();
  for (int part = thread_rank(); part < p.num_parts; part += kThreads) {
    sums = merge(sums, {parts[part].x, parts[part].y, parts[part].z}, scale);
  }
  sums = reduce_block<kThreads>(sums, scale, shared.warps);
  if (thread_rank() == 0) shared.sums = sums;
  block_barrier();
  sums = shared.sums;

  int id = -1;
  if (sums.sum > 0.0f) {  // false for NaN
    Chooser<kThreads> chooser(p, logits);
    const double u = p.uniforms_BT[static_cast<int64_t>(row) * p.tokens_per_visit + state.drawn];
    const auto probability = [&](float logit, int) {  // relative to the largest one
      return static_cast<double>(exp2_flushed(max_or_nan((logit - sums.max) * scale, kExponentFloor)));
    };
    if (settings.temperature <= 0.0) {
      chooser.set_masses([&](int part) { return parts[part].x == sums.max ? 1.0 : 0.0; });
      id = chooser.first_beyond(0.0, [&](float logit, int) { return logit == sums.max ? 1.0 : 0.0; });
    } else if (settings.top_k <= 0 && settings.top_p >= 1.0 && settings.min_p <= 0.0) {
      const double total = chooser.set_masses([&](int part) {
        return static_cast<double>(parts[part].y * exp2_flushed((parts[part].x - sums.max) * scale));
      });
      id = chooser.first_beyond(u * total, probability);
    } else {
      Cut cut{0, p.vocabulary};
      const auto kept = [&](float logit, int i) { return cut.keeps(key_of(logit), i) ? probability(logit, i) : 0.0; };
      if (settings.top_k > 0 && settings.top_k < p.vocabulary) {
        cut = chooser.shortest_prefix(settings.top_k, [](float, int) { return 1.0; });
      }
      if (settings.top_p < 1.0) {
        const double total = chooser.weigh_parts(kept);
        cut = chooser.shortest_prefix(settings.top_p * total, kept);
      }
      const auto drawable = [&](float logit, int i) {
        const double weight = kept(logit, i);
        return weight >= settings.min_p ? weight : 0.0;
      };
      const double total = chooser.weigh_parts(drawable);
      id = chooser.first_beyond(u * total, drawable);
    }
  }
  if (thread_rank() != 0) return;
  if (id < 0) {
    p.rows[row].state = RowState::faulty;
    return;
  }
  uint8_t flags = 0;
  const RowStats stats = finish_row(sums, logits[id], per_temperature, flags);
  const int64_t to = static_cast<int64_t>(row) * p.tokens_per_visit + state.drawn;
  p.ids_BT[to] = id;
  p.log_probs_BT[to] = stats.log_prob;
  p.entropies_BT[to] = stats.entropy;
  state.token = id;
  ++state.position;
  ++state.drawn;
  --state.budget;
  if (state.budget <= 0) state.state = RowState::full;
  for (int s = 0; s < p.num_stop_ids; ++s) {
    if (p.stop_ids[s] == id) state.state = RowState::stopped;
  }
  p.rows[row] = state;
}

}  // namespace archer::gpu
