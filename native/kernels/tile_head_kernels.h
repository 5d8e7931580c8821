// The kernels of tile_head.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include "kernels/tile_ops.h"

#include <algorithm>

namespace archer::kernels {
namespace {

// log2 x for positive normal x, to about 1e-5: far below the rounding of the bfloat16 that it is taken of. The
// polynomial is log2(1 + m) / m on [0, 1), fitted by least squares at Chebyshev nodes.
inline __m512 log2_of(__m512 x) {
  const __m512 exponent = _mm512_getexp_ps(x);
  const __m512 m = _mm512_sub_ps(_mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src), _mm512_set1_ps(1.0f));
  __m512 p = _mm512_set1_ps(-0.0345952101f);
  p = _mm512_fmadd_ps(p, m, _mm512_set1_ps(0.1464336216f));
  p = _mm512_fmadd_ps(p, m, _mm512_set1_ps(-0.3033896685f));
  p = _mm512_fmadd_ps(p, m, _mm512_set1_ps(0.4693017006f));
  p = _mm512_fmadd_ps(p, m, _mm512_set1_ps(-0.7204423547f));
  p = _mm512_fmadd_ps(p, m, _mm512_set1_ps(1.4426832199f));
  return _mm512_fmadd_ps(p, m, exponent);
}

void pack_scaled_hidden(const TileRows& rows, const float* coefficients_R, uint16_t* packed) {
  const int64_t hidden_blocks = tile_blocks(rows.hidden), row_blocks = tile_blocks(rows.rows);
  const __m512i first = interleave_index(false), last = interleave_index(true);
  const auto scaled = [&](int64_t r, int64_t h, __mmask32 columns) {
    if (r >= rows.rows) return _mm512_setzero_si512();
    const __m512i x = _mm512_maskz_loadu_epi16(columns, rows.hidden_TH + rows.tokens_R[r] * rows.hidden + h);
    const __m512 c = _mm512_set1_ps(coefficients_R[r]);
    return narrow(_mm512_mul_ps(widen_low(x), c), _mm512_mul_ps(widen_high(x), c));
  };
  for (int64_t r = 0; r < row_blocks * kTile; r += 2) {
    for (int64_t h = 0; h < hidden_blocks; ++h) {
      const __mmask32 columns = first_columns(rows.hidden - h * kTile);
      const __m512i a = scaled(r, h * kTile, columns), b = scaled(r + 1, h * kTile, columns);
      uint16_t* out = packed + (h * row_blocks + r / kTile) * kBlockElements + (r % kTile) * 16;
      _mm512_storeu_si512(out, _mm512_permutex2var_epi16(a, first, b));
      _mm512_storeu_si512(out + kBlockElements / 2, _mm512_permutex2var_epi16(a, last, b));
    }
  }
}

template <class Tiles>
void sampled_logits(const TileRows& rows, const uint16_t* head_VH, const int32_t* ids_R, const uint16_t* packed_hidden,
                    uint16_t* scratch, float* logits_R) {
  const int64_t hidden_blocks = tile_blocks(rows.hidden), stride = hidden_blocks * kTile;
  alignas(64) float products[kBlockElements];
  typename Tiles::Session session;
  for (int64_t r = 0; r < rows.rows; r += kTile) {
    std::memset(scratch, 0, static_cast<size_t>(kTile * stride) * sizeof(uint16_t));
    for (int64_t i = 0; i < kTile && r + i < rows.rows; ++i) {
      std::memcpy(scratch + i * stride, head_VH + ids_R[r + i] * rows.hidden,
                  static_cast<size_t>(rows.hidden) * sizeof(uint16_t));
    }
    Tiles::template product<false>(scratch, stride, kTile, packed_hidden + (r / kTile) * hidden_blocks * kBlockElements,
                                   hidden_blocks, products, kTile, Nothing{});
    for (int64_t i = 0; i < kTile && r + i < rows.rows; ++i) logits_R[r + i] = products[i * kTile + i];
  }
}

// The running sums of 32 rows of the chunk while ids pass by.
struct RowSums {
  __m512 shift[2], sum[2], weighted[2];
};

enum class Keep { sums, exponentials, logits };

// 16 logits of 16 different rows (or steps of a row): e, added to S and e log2 e, added to X.
inline __m512 add_exponential(__m512 logits, __m512 shift, __m512 scale, __m512& sum, __m512& weighted) {
  __m512 x = _mm512_mul_ps(_mm512_sub_ps(logits, shift), scale);
  x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);  // in this order NaN stays NaN
  const __m512 e = exp2_of(x);
  sum = _mm512_add_ps(sum, e);
  weighted = _mm512_fmadd_ps(e, x, weighted);
  return e;
}

// One id: 32 logits to exponentials.
template <Keep keep>
inline __attribute__((always_inline)) void exponentials_of(const float* logits, __m512 scale, RowSums& rows, uint16_t* out) {
  if (keep == Keep::logits) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out), narrow(_mm512_load_ps(logits), _mm512_load_ps(logits + 16)));
    return;
  }
  __m512 e[2];
  for (int half = 0; half < 2; ++half) {
    e[half] = add_exponential(_mm512_load_ps(logits + 16 * half), rows.shift[half], scale, rows.sum[half], rows.weighted[half]);
  }
  // Not through the caches: nobody reads these lines before the whole vocabulary has passed.
  if (keep == Keep::exponentials) _mm512_stream_si512(reinterpret_cast<__m512i*>(out), narrow(e[0], e[1]));
}

inline void add_to(double* totals, __m512 share) {
  _mm512_storeu_pd(totals, _mm512_add_pd(_mm512_loadu_pd(totals), _mm512_cvtps_pd(_mm512_castps512_ps256(share))));
  _mm512_storeu_pd(totals + 8,
                   _mm512_add_pd(_mm512_loadu_pd(totals + 8), _mm512_cvtps_pd(_mm512_extractf32x8_ps(share, 1))));
}

// Lines of memory that are needed soon, fetched a few per step of the products before: a tile load that waits for memory
// stops the tile unit. Measured with AMX: it pays where rows are short; long ones the processor's own prefetchers follow,
// and fetching them as well takes the fill buffers from the tile loads.
constexpr int64_t kShortRow = 768;

class Ahead {
 public:
  Ahead(const void* from, int64_t lines, int64_t steps)
      : next_(static_cast<const char*>(from)), past_(next_ + lines * 64), per_step_((lines + steps - 1) / steps) {}
  inline __attribute__((always_inline)) void fetch() {
    for (int64_t i = 0; i < per_step_ && next_ < past_; ++i, next_ += 64) _mm_prefetch(next_, _MM_HINT_T1);
  }

 private:
  const char *next_, *past_;
  int64_t per_step_;
};

// How many of the `step` ids from `end` on the call will still come to.
template <class Job>
int64_t ids_after(int64_t end, int64_t step, const Job& job) {
  return std::max(int64_t{0}, std::min(step, std::min(job.end, job.vocabulary) - end));
}

// The exponentials of one block are made beside the product of the next one.
template <class Tiles, Keep keep>
void forward_step(const TileForward& job, int64_t begin, int64_t end, int64_t block, uint16_t* scratch,
                  Ahead& head_ahead) {
  const int64_t hidden_blocks = tile_blocks(job.hidden);
  const uint16_t* packed = job.packed_hidden + block * hidden_blocks * kBlockElements;
  const __m512 scale = _mm512_set1_ps(job.scale);
  const int64_t lines_per_step = (kTile + hidden_blocks - 1) / hidden_blocks;
  alignas(64) float logits[2][kBlockElements];
  RowSums sums;
  for (int half = 0; half < 2; ++half) {
    sums.shift[half] = _mm512_loadu_ps(job.shift_R + block * kTile + 16 * half);
    sums.sum[half] = sums.weighted[half] = _mm512_setzero_ps();
  }
  const auto out_of = [&](int64_t v) {
    return keep != Keep::sums ? job.exponentials + ((v / kTile) * job.row_blocks + block) * kBlockElements : nullptr;
  };
  int now = 0;
  for (int64_t v = begin; v < end; v += kTile, now ^= 1) {
    const HeadBlock head = head_block(job.head_VH, v, job.vocabulary, job.hidden, scratch);
    if (v == begin) {
      Tiles::template product<false>(head.rows, head.stride, kTile, packed, hidden_blocks, logits[now], kTile, Nothing{});
      continue;
    }
    const float* before = logits[now ^ 1];
    uint16_t* out = out_of(v - kTile);
    Tiles::template product<false>(head.rows, head.stride, kTile, packed, hidden_blocks, logits[now], kTile,
                                   [&](int64_t k) __attribute__((always_inline)) {
                                     head_ahead.fetch();
                                     const int64_t first = k * lines_per_step;
                                     for (int64_t i = first; i < first + lines_per_step && i < kTile; ++i) {
                                       exponentials_of<keep>(before + i * kTile, scale, sums, out + i * kTile);
                                     }
                                   });
  }
  const int64_t last = end - 1 - (end - 1) % kTile;
  const float* before = logits[now ^ 1];
  uint16_t* out = out_of(last);
  for (int64_t i = 0; i < kTile; ++i) {
    if (last + i < end) {
      exponentials_of<keep>(before + i * kTile, scale, sums, out + i * kTile);
    } else if (keep != Keep::sums) {
      _mm512_storeu_si512(out + i * kTile, _mm512_setzero_si512());
    }
  }
  for (int half = 0; half < 2; ++half) {
    add_to(job.sum_R + block * kTile + 16 * half, sums.sum[half]);
    add_to(job.weighted_R + block * kTile + 16 * half, sums.weighted[half]);
  }
}

template <class Tiles>
void forward(const TileForward& job, uint16_t* scratch) {
  typename Tiles::Session session;
  std::memset(job.sum_R, 0, static_cast<size_t>(job.row_blocks * kTile) * sizeof(double));
  std::memset(job.weighted_R, 0, static_cast<size_t>(job.row_blocks * kTile) * sizeof(double));
  for (int64_t v = job.begin; v < job.end; v += kVocabularyStep) {
    const int64_t end = v + kVocabularyStep < job.end ? v + kVocabularyStep : job.end;
    const int64_t ids_ahead = job.hidden <= kShortRow ? ids_after(end, kVocabularyStep, job) : 0;
    Ahead head(job.head_VH + end * job.hidden, ids_ahead * job.hidden / 32,
               job.row_blocks * tile_blocks(job.hidden) * tile_blocks(end - v));
    for (int64_t block = 0; block < job.row_blocks; ++block) {
      if (!job.exponentials) forward_step<Tiles, Keep::sums>(job, v, end, block, scratch, head);
      else if (job.bare) forward_step<Tiles, Keep::logits>(job, v, end, block, scratch, head);
      else forward_step<Tiles, Keep::exponentials>(job, v, end, block, scratch, head);
    }
  }
  _mm_sfence();
}

// Lanes are steps of kVocabularyStep ids, which forward() sums one by one: 16 of them at once.
void sum_row(const float* logits_V, int64_t ids, float shift, float scale, double* sum, double* weighted) {
  const __m512 shifts = _mm512_set1_ps(shift), scales = _mm512_set1_ps(scale);
  *sum = *weighted = 0;
  for (int64_t first = 0; first < ids; first += 16 * kVocabularyStep) {
    __m512 sums = _mm512_setzero_ps(), weighted_sums = sums;
    for (int64_t v = 0; v < kVocabularyStep; v += 16) {
      __m512i lines[16];
      for (int64_t step = 0; step < 16; ++step) {
        const int64_t at = first + step * kVocabularyStep + v;
        lines[step] = _mm512_castps_si512(_mm512_maskz_loadu_ps(static_cast<__mmask16>(first_columns(ids - at)), logits_V + at));
      }
      transpose16(lines);
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t steps = (ids - first - v - i + kVocabularyStep - 1) / kVocabularyStep;  // that have this id
        const __mmask16 there = static_cast<__mmask16>(first_columns(steps));
        __m512 sum_after = sums, weighted_after = weighted_sums;
        add_exponential(_mm512_castsi512_ps(lines[i]), shifts, scales, sum_after, weighted_after);
        sums = _mm512_mask_mov_ps(sums, there, sum_after);
        weighted_sums = _mm512_mask_mov_ps(weighted_sums, there, weighted_after);
      }
    }
    alignas(64) float parts[2][16];
    _mm512_store_ps(parts[0], sums);
    _mm512_store_ps(parts[1], weighted_sums);
    for (int64_t step = 0; step < 16; ++step) {
      *sum += static_cast<double>(parts[0][step]);
      *weighted += static_cast<double>(parts[1][step]);
    }
  }
}

template <class Tiles>
void largest_logits(const TileForward& job, uint16_t* scratch, float* largest_R) {
  const int64_t hidden_blocks = tile_blocks(job.hidden);
  alignas(64) float logits[kBlockElements];
  typename Tiles::Session session;
  for (int64_t r = 0; r < job.row_blocks * kTile; ++r) largest_R[r] = -__builtin_inff();
  for (int64_t v = job.begin; v < job.end; v += kTile) {
    const HeadBlock head = head_block(job.head_VH, v, job.vocabulary, job.hidden, scratch);
    for (int64_t block = 0; block < job.row_blocks; ++block) {
      Tiles::template product<false>(head.rows, head.stride, kTile,
                                     job.packed_hidden + block * hidden_blocks * kBlockElements, hidden_blocks, logits, kTile,
                                     Nothing{});
      for (int64_t i = 0; i < kTile && v + i < job.end; ++i) {
        for (int64_t r = 0; r < kTile; ++r) {
          float& largest = largest_R[block * kTile + r];
          const float z = logits[i * kTile + r];
          if (!(z <= largest) && largest == largest) largest = z;  // NaN comes in and stays
        }
      }
    }
  }
}

void entropy_gradient(const TileEntropy& job) {
  for (int64_t v = job.begin; v < job.end; v += kTile) {
    for (int64_t block = 0; block < job.row_blocks; ++block) {
      uint16_t* lines = job.exponentials + ((v / kTile) * job.row_blocks + block) * kBlockElements;
      const float *alpha = job.alpha_R + block * kTile, *beta = job.beta_R + block * kTile;
      for (int64_t i = 0; i < kTile; ++i) {
        const __m512i line = _mm512_loadu_si512(lines + i * kTile);
        __m512 e[2] = {widen_low(line), widen_high(line)};
        for (int half = 0; half < 2; ++half) {
          // The zeros of ids beyond the vocabulary must stay zeros.
          const __mmask16 there = _mm512_cmp_ps_mask(e[half], _mm512_setzero_ps(), _CMP_GT_OQ);
          const __m512 slope = _mm512_fmadd_ps(_mm512_loadu_ps(beta + 16 * half), log2_of(e[half]),
                                               _mm512_loadu_ps(alpha + 16 * half));
          e[half] = _mm512_maskz_mul_ps(there, e[half], slope);
        }
        _mm512_storeu_si512(lines + i * kTile, narrow(e[0], e[1]));
      }
    }
  }
}

// Moves the rows that take part together, within each block row of 32 ids.
void close_gaps(uint16_t* exponentials, int64_t v, const TileBackward& job) {
  uint16_t* blocks = exponentials + (v / kTile) * job.row_blocks * kBlockElements;
  for (int64_t i = 0; i < kTile; ++i) {
    alignas(64) uint16_t line[2 * kTile] = {};
    int64_t filled = 0, written = 0;
    for (int64_t block = 0; block < job.row_blocks; ++block) {
      const __m512i kept = _mm512_maskz_compress_epi16(
          job.keep[block], _mm512_loadu_si512(blocks + block * kBlockElements + i * kTile));
      _mm512_storeu_si512(line + filled, kept);
      filled += __builtin_popcount(job.keep[block]);
      if (filled < kTile) continue;
      _mm512_storeu_si512(blocks + written++ * kBlockElements + i * kTile, _mm512_load_si512(line));
      _mm512_store_si512(line, _mm512_load_si512(line + kTile));
      filled -= kTile;
    }
    if (filled > 0) {
      _mm512_storeu_si512(blocks + written * kBlockElements + i * kTile,
                          _mm512_maskz_mov_epi16(first_columns(filled), _mm512_load_si512(line)));
    }
  }
}

// headᵀ of a vocabulary step: [H / 32][steps][32 h][32 v].
inline void transpose_head(const uint16_t* head_VH, int64_t v, int64_t vocabulary, int64_t hidden, int64_t steps,
                           uint16_t* out) {
  const __m512i first = interleave_index(false), last = interleave_index(true);
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t h = 0; h < tile_blocks(hidden); ++h) {
      const __mmask32 columns = first_columns(hidden - h * kTile);
      uint16_t* block = out + (h * steps + step) * kBlockElements;
      const int64_t v0 = v + step * kTile;
      const auto line = [&](int64_t i) {
        return v0 + i < vocabulary ? _mm512_maskz_loadu_epi16(columns, head_VH + (v0 + i) * hidden + h * kTile)
                                   : _mm512_setzero_si512();
      };
      for (int half = 0; half < 2; ++half) {  // 16 columns at a time: more would not fit the registers
        __m512i lines[16];
        for (int64_t i = 0; i < 16; ++i) {
          lines[i] = _mm512_permutex2var_epi16(line(2 * i), half ? last : first, line(2 * i + 1));
        }
        transpose16(lines);
        for (int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(block + half * 512 + i * 32, lines[i]);
      }
    }
  }
}

// Two rows of a block of exponentials, interleaved: a step of the right operand of E W.
inline __attribute__((always_inline)) void interleave_pair(const uint16_t* e, int64_t i, uint16_t* out) {
  const __m512i a = _mm512_loadu_si512(e + i * 64), b = _mm512_loadu_si512(e + i * 64 + 32);
  _mm512_store_si512(out + i * 32, _mm512_permutex2var_epi16(a, interleave_index(false), b));
  _mm512_store_si512(out + 512 + i * 32, _mm512_permutex2var_epi16(a, interleave_index(true), b));
}

// A product with the weights of `step_ids` ids; the next block of exponentials is interleaved beside it.
template <class Tiles>
void grad_hidden(const TileBackward& job, uint16_t* scratch) {
  const int64_t hidden_blocks = tile_blocks(job.hidden), step_ids = transposed_ids(job.hidden);
  const int64_t pairs_per_step = (kTile / 2 + hidden_blocks - 1) / hidden_blocks;
  uint16_t* head_transposed = scratch;
  uint16_t* operands[2] = {scratch + step_ids * hidden_blocks * kTile, scratch + step_ids * (hidden_blocks + 1) * kTile};
  typename Tiles::Session session;
  for (int64_t v = job.begin; v < job.end; v += step_ids) {
    const int64_t end = std::min(v + step_ids, job.end), steps = tile_blocks(end - v), pairs = steps * kTile / 2;
    transpose_head(job.head_VH, v, job.vocabulary, job.hidden, steps, head_transposed);
    if (job.keep) {
      for (int64_t step = 0; step < steps; ++step) close_gaps(job.exponentials, v + step * kTile, job);
    }
    const auto interleave = [&](int64_t block, int64_t pair, uint16_t* operand) __attribute__((always_inline)) {
      const int64_t step = pair / 16, i = pair % 16;
      interleave_pair(job.exponentials + ((v / kTile + step) * job.row_blocks + block) * kBlockElements, i,
                      operand + step * kBlockElements);
    };
    for (int64_t pair = 0; pair < pairs; ++pair) interleave(0, pair, operands[0]);
    const int64_t ids_ahead = job.hidden <= kShortRow ? ids_after(end, step_ids, job) : 0;
    Ahead head(job.head_VH + end * job.hidden, ids_ahead * job.hidden / 32, job.active_blocks * hidden_blocks * steps);
    for (int64_t block = 0; block < job.active_blocks; ++block) {
      int64_t pair = block + 1 < job.active_blocks ? 0 : pairs;
      for (int64_t h = 0; h < hidden_blocks; ++h) {
        float* sums = job.grad_hidden_blocks + (block * hidden_blocks + h) * kBlockElements;
        Ahead next_sums(sums + kBlockElements, 64, steps);
        Tiles::template product<true>(head_transposed + h * steps * kBlockElements, kTile, kBlockElements,
                                      operands[block % 2], steps, sums, kTile, [&](int64_t) __attribute__((always_inline)) {
                                        head.fetch();
                                        next_sums.fetch();
                                        for (int64_t n = 0; n < pairs_per_step && pair < pairs; ++n, ++pair) {
                                          interleave(block + 1, pair, operands[(block + 1) % 2]);
                                        }
                                      });
      }
    }
  }
}

// Where the packed hidden states exceed the L2 cache, two blocks of ids share each of their columns.
template <class Tiles>
void grad_head(const TileBackward& job) {
  constexpr int64_t kPackedInCache = (int64_t{5} << 20) / 4;
  const int64_t hidden_blocks = tile_blocks(job.hidden), packed_bytes = hidden_blocks * job.active_blocks * kBlockElements * 2;
  const int64_t step_ids = packed_bytes <= kPackedInCache ? kTile : 2 * kTile;
  alignas(64) float corner[kBlockElements];
  typename Tiles::Session session;
  for (int64_t v = job.begin; v < job.end; v += step_ids) {
    const int64_t end = std::min(v + step_ids, job.end), ids_ahead = ids_after(end, step_ids, job);
    const int64_t steps = hidden_blocks * job.active_blocks * tile_blocks(end - v);
    Ahead exponentials(job.exponentials + (end / kTile) * job.row_blocks * kBlockElements,
                       job.keep ? 0 : ids_ahead * job.row_blocks, steps);
    Ahead targets(job.grad_head_VH + end * job.hidden, job.hidden <= kShortRow ? ids_ahead * job.hidden / 16 : 0, steps);
    for (int64_t h = 0; h < hidden_blocks; ++h) {
      const uint16_t* packed = job.packed_scaled + h * job.active_blocks * kBlockElements;
      const int64_t columns = std::min(kTile, job.hidden - h * kTile);
      for (int64_t w = v; w < end; w += kTile) {
        const uint16_t* e = job.exponentials + (w / kTile) * job.row_blocks * kBlockElements;
        float* target = job.grad_head_VH + w * job.hidden + h * kTile;
        const int64_t ids = std::min(kTile, job.vocabulary - w);
        if (ids == kTile && columns == kTile) {
          Tiles::template product<true>(e, kTile, kBlockElements, packed, job.active_blocks, target, job.hidden,
                                        [&](int64_t) __attribute__((always_inline)) {
                                          exponentials.fetch();
                                          targets.fetch();
                                        });
          continue;
        }
        Tiles::template product<false>(e, kTile, kBlockElements, packed, job.active_blocks, corner, kTile, Nothing{});
        for (int64_t i = 0; i < ids; ++i) {
          for (int64_t j = 0; j < columns; ++j) target[i * job.hidden + j] += corner[i * kTile + j];
        }
      }
    }
  }
}

void grad_rows(const TileGradRows& job, int64_t begin, int64_t end) {
  const int64_t hidden_blocks = tile_blocks(job.hidden);
  alignas(64) float rows[kTile][kTile];  // one block, transposed
  for (int64_t h = begin; h < end; ++h) {
    const __mmask32 there = first_columns(job.hidden - h * kTile);
    int64_t block = -1;
    for (int64_t j = 0; j < job.rows; ++j) {
      const int64_t r = job.positions_R ? job.positions_R[j] : j;
      if (r / kTile != block) {
        block = r / kTile;
        const float* from = job.grad_hidden_blocks + (block * hidden_blocks + h) * kBlockElements;
        for (int64_t corner = 0; corner < 4; ++corner) {
          const int64_t column = 16 * (corner / 2), row = 16 * (corner % 2);
          __m512i lines[16];
          for (int64_t i = 0; i < 16; ++i) lines[i] = _mm512_loadu_si512(from + (column + i) * kTile + row);
          transpose16(lines);
          for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(&rows[row + i][column], lines[i]);
        }
      }
      const __m512 c = _mm512_set1_ps(job.coefficients_R[r]);
      const __m512 low = _mm512_mul_ps(c, _mm512_load_ps(rows[r % kTile]));
      const __m512 high = _mm512_mul_ps(c, _mm512_load_ps(rows[r % kTile] + 16));
      const int64_t at = job.tokens_R[j] * job.hidden + h * kTile;
      if (job.grad_hidden_TH) {
        _mm512_mask_storeu_epi16(job.grad_hidden_TH + at, there, narrow(low, high));
      } else {
        _mm512_mask_storeu_ps(job.wide_grad_hidden_TH + at, static_cast<__mmask16>(there), low);
        _mm512_mask_storeu_ps(job.wide_grad_hidden_TH + at + 16, static_cast<__mmask16>(there >> 16), high);
      }
    }
  }
}

}  // namespace
}  // namespace archer::kernels
