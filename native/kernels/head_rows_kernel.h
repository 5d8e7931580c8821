// The source of the head's row kernels, written once for nvcc and for its emulation on the CPU: include it after a
// header that defines the primitives of namespace archer::gpu (gpu_primitives.cuh; tests/gpu_emulation.h).
//
// resident_rows: a cluster of kCluster blocks shares one row at a time, each block a run of 16-byte vectors. Vector v
// of a block belongs to thread v % kThreads, from its copy into shared memory to its gradient: no barrier is needed
// between a thread's copy and its own use, and a thread may fetch its vector of the *next* row as soon as it has used
// the one of this row. Per row: absorb (max, sum, weighted sum) as the copies land, merge over warp, block and cluster
// (each block pushes its sums into every block's inbox, one cluster barrier), decide, write the gradient. The row is
// read once. Writing in place is safe: after the cluster barrier the whole row is in shared memory.
//
// streaming_rows: one block per row, nothing kept; mode fused reads the row twice, backwards for the sums and forwards
// for the gradient (what was read last is the likeliest to be in cache still). The gradient of elements a .. a + n lies
// on logits below a + n, so with a barrier between a tile's reads and its writes nothing is overwritten unread.
#pragma once
#include "kernels/gpu_rows.h"

namespace archer::gpu {

constexpr int kGroups = 4;  // a row's copies are waited for in four parts, so that sums begin before all have landed

template <bool kValue>
struct Choice {
  static constexpr bool value = kValue;
};

template <int kThreads>
struct SharedHeader {
  Float4 inbox[2][kMaxCluster];  // (max, sum, weighted, sampled logit) of every block of the cluster, by row parity
  Float4 warps[kThreads / 32];
  float target;
};
static_assert(sizeof(SharedHeader<1024>) <= kSharedHeaderBytes, "the header must fit before the row");

// One vector of gradients, in place. `whole`: all elements exist and the addresses allow wide stores.
ARCHER_DEVICE void store_gradients(Bf16* out, const float (&g)[4], bool whole, int count) {
  if (whole) {
    store_8(out, {pack_bf16(g[0], g[1]), pack_bf16(g[2], g[3])});
    return;
  }
  ARCHER_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (i < count) out[i] = to_bf16(g[i]);
  }
}
ARCHER_DEVICE void store_gradients(Bf16* out, const float (&g)[8], bool whole, int count) {
  if (whole) {
    store_16(out, {pack_bf16(g[0], g[1]), pack_bf16(g[2], g[3]), pack_bf16(g[4], g[5]), pack_bf16(g[6], g[7])});
    return;
  }
  ARCHER_UNROLL
  for (int i = 0; i < 8; ++i) {
    if (i < count) out[i] = to_bf16(g[i]);
  }
}

// What all rows of a launch have in common.
template <typename In>
struct Frame {
  static constexpr int kElements = VectorOf<In>::kElements;
  const HeadRowsParams& p;
  bool aligned;  // every row begins at a multiple of 16 bytes
  float scale, inverse_temperature;

  ARCHER_DEVICE explicit Frame(const HeadRowsParams& params)
      : p(params),
        aligned(((reinterpret_cast<uintptr_t>(params.logits) | (static_cast<uint64_t>(params.stride) * sizeof(In))) &
                 15) == 0),
        scale(kLog2E / params.temperature),
        inverse_temperature(1.0f / params.temperature) {}

  ARCHER_DEVICE int num_vectors() const { return (p.vocabulary + kElements - 1) / kElements; }
  ARCHER_DEVICE int row_of(int item) const { return p.rows ? p.rows[item] : item; }
  ARCHER_DEVICE In* logits(int row) const { return static_cast<In*>(p.logits) + row * p.stride; }
  ARCHER_DEVICE Bf16* gradients(int row) const { return reinterpret_cast<Bf16*>(logits(row)); }
  ARCHER_DEVICE int count_in(int vector) const {
    const int left = p.vocabulary - vector * kElements;
    return left < kElements ? left : kElements;
  }
  ARCHER_DEVICE bool wide(int vector) const { return aligned && count_in(vector) == kElements; }

  // A vector that wide() holds for.
  template <bool kBonus>
  ARCHER_DEVICE void write_wide(Bf16* out, int vector, const float (&values)[kElements],
                                const RowGradient& gradient) const {
    float g[kElements];
    ARCHER_UNROLL
    for (int i = 0; i < kElements; ++i) g[i] = gradient_element<kBonus>(values[i], gradient, scale);
    store_gradients(out + static_cast<int64_t>(vector) * kElements, g, true, kElements);
  }
  ARCHER_DEVICE void write_vector(Bf16* out, int vector, const float (&values)[kElements],
                                  const RowGradient& gradient) const {
    float g[kElements];
    ARCHER_UNROLL
    for (int i = 0; i < kElements; ++i) {
      g[i] = gradient.slope != 0.0f ? gradient_element<true>(values[i], gradient, scale)
                                    : gradient_element<false>(values[i], gradient, scale);
    }
    store_gradients(out + static_cast<int64_t>(vector) * kElements, g, wide(vector), count_in(vector));
  }
  ARCHER_DEVICE void write_zeros(Bf16* out, int vector) const {
    float zeros[kElements];
    ARCHER_UNROLL
    for (int i = 0; i < kElements; ++i) zeros[i] = 0.0f;
    store_gradients(out + static_cast<int64_t>(vector) * kElements, zeros, wide(vector), count_in(vector));
  }

  // Statistics and loss terms of a row from its sums; one thread of the whole cluster writes them out.
  template <bool kTerms>
  ARCHER_DEVICE RowGradient finish(int row, int id, const RowInputs& inputs, const RowSums& sums, float target,
                                   bool writes) const {
    uint8_t flags = static_cast<uint32_t>(id) < static_cast<uint32_t>(p.vocabulary) ? uint8_t{0} : uint8_t{kRowBadId};
    const RowStats stats = finish_row(sums, target, inverse_temperature, flags);
    RowDecision decision{{0.0f, 0.0f, 0.0f, 0.0f}, 0.0f, 0.0f};
    if constexpr (kTerms) decision = decide_row(p, inputs, stats, flags);
    if (writes) {
      p.stats[row] = stats;
      p.flags[row] = flags;
      if (kTerms && p.terms) p.terms[row] = decision.terms;
    }
    return row_gradient(stats, decision.g, decision.b, inverse_temperature);
  }
};

// The whole cluster's sums, the same bits in every thread, and the sampled logit that block `owner` holds.
template <int kThreads, int kCluster>
ARCHER_DEVICE RowSums reduce_cluster(const RowSums& own, float scale, SharedHeader<kThreads>& shared, int rank,
                                            int parity, int owner, float& target) {
  const RowSums block = reduce_block<kThreads>(own, scale, shared.warps);
  const int thread = thread_rank();
  if (thread < kCluster) {
    const Float4 message{block.max, block.sum, block.weighted, shared.target};
    *peer_shared<kCluster>(&shared.inbox[parity][rank], thread) = message;
  }
  cluster_barrier<kCluster>();
  // The other parity's inbox is free: all have left it before they arrived here.
  const Float4* inbox = shared.inbox[parity];
  RowSums sums{inbox[0].x, inbox[0].y, inbox[0].z};
  for (int r = 1; r < kCluster; ++r) sums = merge(sums, {inbox[r].x, inbox[r].y, inbox[r].z}, scale);
  target = inbox[owner].w;
  return sums;
}

template <typename In, int kCluster, int kThreads>
ARCHER_DEVICE void resident_rows(const HeadRowsParams& p) {
  constexpr int kElements = VectorOf<In>::kElements;
  const Frame<In> frame(p);
  auto& shared = *reinterpret_cast<SharedHeader<kThreads>*>(shared_memory());
  Word4* const slots = reinterpret_cast<Word4*>(shared_memory() + kSharedHeaderBytes);

  const int thread = thread_rank();
  const int rank = block_rank() % kCluster, cluster = block_rank() / kCluster, num_clusters = num_blocks() / kCluster;
  const int share = (frame.num_vectors() + kCluster - 1) / kCluster, first = rank * share;
  const int left = frame.num_vectors() - first;
  const int count = left < 0 ? 0 : left < share ? left : share;  // vectors of this block
  // Of them, how many are whole and may be copied and written 16 (8) bytes at a time: all but the row's last.
  const int wide_count = !frame.aligned ? 0 : first + count < frame.num_vectors() || frame.wide(frame.num_vectors() - 1)
                                                  ? count : count - 1;
  const int group = ((count + kThreads * kGroups - 1) / (kThreads * kGroups)) * kThreads;

  // This thread's copy of one vector into its slot.
  const auto fetch = [&](const In* row, int v) {
    const In* from = row + static_cast<int64_t>(first + v) * kElements;
    if (frame.wide(first + v)) {
      copy_async_16(&slots[v], from);
      return;
    }
    const int present = frame.count_in(first + v);
    In* slot = reinterpret_cast<In*>(&slots[v]);
    for (int i = 0; i < kElements; ++i) {
      if (i < present) {
        copy_async_element(slot + i, from + i);
      } else {
        set_minus_infinity(slot[i]);
      }
    }
  };
  const auto end_of = [&](int g) { return (g + 1) * group < count ? (g + 1) * group : count; };

  if (kCluster > 1) cluster_barrier<kCluster>();  // nobody may write to a block that has not begun

  int item = cluster;
  if (item < p.num_rows) {
    const In* row = frame.logits(frame.row_of(item));
    for (int g = 0; g < kGroups; ++g) {
      for (int v = g * group + thread; v < end_of(g); v += kThreads) fetch(row, v);
      copy_commit();
    }
  }
  for (int parity = 0; item < p.num_rows; item += num_clusters, parity ^= 1) {
    const int row = frame.row_of(item);
    const int id = p.ids[row];
    const bool good_id = static_cast<uint32_t>(id) < static_cast<uint32_t>(p.vocabulary);
    const int target_vector = good_id ? id / kElements : 0;  // of the row
    const int owner = target_vector / share;
    const RowInputs inputs = load_inputs(p, row);

    RowSums sums = empty_sums();
    const auto absorb_group = [&](int g) {
      for (int v = g * group + thread; v < end_of(g); v += kThreads) {
        float values[kElements];
        unpack(slots[v], values);
        absorb(sums, values, frame.scale);
      }
    };
    copy_wait<3>();
    absorb_group(0);
    copy_wait<2>();
    absorb_group(1);
    copy_wait<1>();
    absorb_group(2);
    copy_wait<0>();
    absorb_group(3);

    const int own_target = target_vector - first;  // this block's slot, if it is one
    const bool owns_target = rank == owner && own_target % kThreads == thread;
    if (owns_target) {
      shared.target = good_id ? widen(reinterpret_cast<const In*>(&slots[own_target])[id % kElements]) : 0.0f;
    }
    float target;
    sums = reduce_cluster<kThreads, kCluster>(sums, frame.scale, shared, rank, parity, owner, target);
    const RowGradient gradient = frame.template finish<true>(row, id, inputs, sums, target, rank == 0 && thread == 0);

    const bool has_next = item + num_clusters < p.num_rows;
    const In* next = has_next ? frame.logits(frame.row_of(item + num_clusters)) : nullptr;
    Bf16* const out = frame.gradients(row);
    const auto write_slowly = [&](int v) {  // any vector, and rows that have no gradient
      if (gradient.active) {
        float values[kElements];
        unpack(slots[v], values);
        frame.write_vector(out, first + v, values, gradient);
      } else if (p.zero_inactive) {
        frame.write_zeros(out, first + v);
      }
      if (has_next) fetch(next, v);
    };
    const auto write_row = [&](auto bonus) {
      constexpr bool kBonus = decltype(bonus)::value;
      for (int g = 0; g < kGroups; ++g) {
        const int end = end_of(g), wide_end = !gradient.active ? 0 : end < wide_count ? end : wide_count;
        int v = g * group + thread;
        for (; v + kThreads < wide_end; v += 2 * kThreads) {  // two at a time, so that their latencies overlap
          const int w = v + kThreads;
          float of_v[kElements], of_w[kElements];
          unpack(slots[v], of_v);
          unpack(slots[w], of_w);
          frame.template write_wide<kBonus>(out, first + v, of_v, gradient);
          frame.template write_wide<kBonus>(out, first + w, of_w, gradient);
          if (has_next) {
            copy_async_16(&slots[v], next + static_cast<int64_t>(first + v) * kElements);
            copy_async_16(&slots[w], next + static_cast<int64_t>(first + w) * kElements);
          }
        }
        if (v < wide_end) {
          float of_v[kElements];
          unpack(slots[v], of_v);
          frame.template write_wide<kBonus>(out, first + v, of_v, gradient);
          if (has_next) copy_async_16(&slots[v], next + static_cast<int64_t>(first + v) * kElements);
          v += kThreads;
        }
        for (; v < end; v += kThreads) write_slowly(v);
        copy_commit();
      }
    };
    if (gradient.slope != 0.0f) {
      write_row(Choice<true>{});
    } else {
      write_row(Choice<false>{});
    }
    // The thread that wrote the sampled id's vector writes that element again: same thread, same address, in order.
    if (owns_target && gradient.active) out[id] = to_bf16(gradient.target);
  }
}

template <typename In, HeadRowsMode kMode, int kThreads>
ARCHER_DEVICE void streaming_rows(const HeadRowsParams& p) {
  constexpr int kElements = VectorOf<In>::kElements;
  constexpr int kTile = kMode == HeadRowsMode::fused ? 2 : 4;  // vectors per thread and tile: 4 would spill
  const Frame<In> frame(p);
  auto& shared = *reinterpret_cast<SharedHeader<kThreads>*>(shared_memory());
  const int thread = thread_rank();
  const int num_vectors = frame.num_vectors();
  const int num_tiles = (num_vectors + kTile * kThreads - 1) / (kTile * kThreads);

  const auto load_tile = [&](const In* row, int tile, Word4 (&words)[kTile]) {
    ARCHER_UNROLL
    for (int i = 0; i < kTile; ++i) {
      const int v = (tile * kTile + i) * kThreads + thread;
      if (v >= num_vectors) continue;
      const In* from = row + static_cast<int64_t>(v) * kElements;
      if (frame.wide(v)) {
        words[i] = load_16(from);
        continue;
      }
      union { Word4 words; In values[kElements]; } slot;
      const int present = frame.count_in(v);
      ARCHER_UNROLL
      for (int j = 0; j < kElements; ++j) {
        if (j < present) {
          slot.values[j] = from[j];
        } else {
          set_minus_infinity(slot.values[j]);
        }
      }
      words[i] = slot.words;
    }
  };

  int parity = 0;
  for (int item = block_rank(); item < p.num_rows; item += num_blocks(), parity ^= 1) {
    const int row = frame.row_of(item);
    const int id = p.ids[row];
    const bool good_id = static_cast<uint32_t>(id) < static_cast<uint32_t>(p.vocabulary);
    const In* const from = frame.logits(row);
    RowGradient gradient;
    if constexpr (kMode == HeadRowsMode::gradient) {
      const float b = p.grad_entropy ? -p.grad_entropy[row] : 0.0f;
      gradient = row_gradient(p.stats[row], p.grad_log_prob[row], b, frame.inverse_temperature);
    } else {
      if (thread == 0) shared.target = good_id ? widen(from[id]) : 0.0f;
      RowInputs inputs{};
      if constexpr (kMode == HeadRowsMode::fused) inputs = load_inputs(p, row);
      RowSums sums = empty_sums();
      for (int tile = num_tiles - 1; tile >= 0; --tile) {
        Word4 words[kTile];
        load_tile(from, tile, words);
        ARCHER_UNROLL
        for (int i = 0; i < kTile; ++i) {
          if ((tile * kTile + i) * kThreads + thread >= num_vectors) continue;
          float values[kElements];
          unpack(words[i], values);
          absorb(sums, values, frame.scale);
        }
      }
      float target;
      sums = reduce_cluster<kThreads, 1>(sums, frame.scale, shared, 0, parity, 0, target);
      gradient = frame.template finish<kMode == HeadRowsMode::fused>(row, id, inputs, sums, target, thread == 0);
    }
    if constexpr (kMode == HeadRowsMode::statistics) continue;

    Bf16* const out = frame.gradients(row);
    if (!gradient.active) {
      if (p.zero_inactive) {
        for (int v = thread; v < num_vectors; v += kThreads) frame.write_zeros(out, v);
      }
      continue;
    }
    const auto write_tile = [&](int tile, const Word4 (&words)[kTile]) {
      ARCHER_UNROLL
      for (int i = 0; i < kTile; ++i) {
        const int v = (tile * kTile + i) * kThreads + thread;
        if (v >= num_vectors) continue;
        float values[kElements];
        unpack(words[i], values);
        frame.write_vector(out, v, values, gradient);
      }
    };
    Word4 words[kTile];
    load_tile(from, 0, words);
    for (int tile = 0; tile < num_tiles; ++tile) {
      Word4 ahead[kTile];
      if (tile + 1 < num_tiles) load_tile(from, tile + 1, ahead);
      block_barrier();
      write_tile(tile, words);
      ARCHER_UNROLL
      for (int i = 0; i < kTile; ++i) words[i] = ahead[i];
    }
    // The thread that wrote the sampled id's vector, as above.
    if (good_id && id / kElements % kThreads == thread) out[id] = to_bf16(gradient.target);
  }
}

template <int kThreads>
ARCHER_DEVICE void copy_rows_body(const CopyRowsParams& p) {
  const auto all = reinterpret_cast<uintptr_t>(p.to) | reinterpret_cast<uintptr_t>(p.from) |
                   static_cast<uint64_t>(p.to_pitch | p.from_pitch | p.row_bytes);
  for (int item = block_rank(); item < p.num_rows; item += num_blocks()) {
    const char* from = static_cast<const char*>(p.from) + (p.from_rows ? p.from_rows[item] : item) * p.from_pitch;
    char* to = static_cast<char*>(p.to) + (p.to_rows ? p.to_rows[item] : item) * p.to_pitch;
    if (all % 16 == 0) {
      for (int64_t b = thread_rank() * 16; b < p.row_bytes; b += kThreads * 16) store_16(to + b, load_16(from + b));
    } else {
      for (int64_t b = thread_rank() * 2; b < p.row_bytes; b += kThreads * 2) {
        *reinterpret_cast<uint16_t*>(to + b) = *reinterpret_cast<const uint16_t*>(from + b);
      }
    }
  }
}

}  // namespace archer::gpu
