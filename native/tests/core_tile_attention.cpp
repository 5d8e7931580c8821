// Attention through tiles against float64, with every instruction set, over lengths, head sizes and groups; and its promise:
// the same bits for a query whether it comes alone over the pages of a cache or among others over a pack, whatever lies behind it.
#include <ATen/ATen.h>

#include <cstdio>
#include <limits>

#include "core/attention.h"
#include "kernels/cpu_isa.h"

#include "check.h"

using namespace archer;

namespace {

struct Case {
  int64_t length, group, head_dim;
  double spread;  // of the queries: 100 makes nearly one-hot weights
};

constexpr int64_t kKvHeads = 2;

const uint16_t* bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }
uint16_t* mutable_bits(const at::Tensor& tensor) { return static_cast<uint16_t*>(tensor.data_ptr()); }
float scale_of(int64_t head_dim) { return static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim))); }

struct Packed {
  at::Tensor q, k, v;       // [T, K * G, D], [T, K, D]
  at::Tensor out, lse;      // [T, K * G, D], [T, K * G]
};

// Queries [begin, end) of every head, in stretches as the kernel wants them.
void run(const Case& c, const Packed& p, int64_t begin, int64_t end) {
  const int64_t heads = kKvHeads * c.group;
  for (int64_t kv_head = 0; kv_head < kKvHeads; ++kv_head) {
    for (int64_t first = begin; first < end;) {
      const int64_t past = std::min(end, (first / kernels::kKeyBlock + 1) * kernels::kKeyBlock);
      const int64_t head = first * heads + kv_head * c.group, key = kv_head * c.head_dim;
      tile_attention({bits(p.q) + head * c.head_dim, bits(p.k) + key, bits(p.v) + key, mutable_bits(p.out) + head * c.head_dim,
                      p.lse.data_ptr<float>() + head, heads * c.head_dim, kKvHeads * c.head_dim, heads, c.group, c.head_dim,
                      first, past, scale_of(c.head_dim)});
      first = past;
    }
  }
}

Packed random_case(const Case& c) {
  const auto random = [&](int64_t heads, double scale) {
    return (at::randn({c.length, heads, c.head_dim}, at::kDouble) * scale).to(at::kBFloat16);
  };
  Packed p{random(kKvHeads * c.group, c.spread), random(kKvHeads, 1), random(kKvHeads, 1), {}, {}};
  p.out = at::full_like(p.q, NAN);
  p.lse = at::full({c.length, kKvHeads * c.group}, NAN, at::kFloat);
  return p;
}

struct Worst {
  double out = 0, lse = 0;
};

void against_float64(const Case& c, const Packed& p, Worst& worst) {
  const at::Tensor q = p.q.to(at::kDouble).transpose(0, 1);
  const auto expand = [&](const at::Tensor& x) { return x.to(at::kDouble).repeat_interleave(c.group, 1).transpose(0, 1); };
  const at::Tensor hidden = at::ones({c.length, c.length}, at::kBool).triu(1);
  const at::Tensor scores = (at::matmul(q, expand(p.k).transpose(1, 2)) / std::sqrt(static_cast<double>(c.head_dim)))
                                .masked_fill(hidden, -std::numeric_limits<double>::infinity());
  const at::Tensor out = at::matmul(scores.softmax(-1), expand(p.v)).transpose(0, 1);
  const at::Tensor lse = scores.logsumexp({-1}).transpose(0, 1);
  const auto error = [](const at::Tensor& a, const at::Tensor& b) {
    return ((a.to(at::kDouble) - b).norm() / b.norm()).item<double>();
  };
  const double out_error = error(p.out, out), lse_error = (p.lse.to(at::kDouble) - lse).abs().max().item<double>();
  CHECK(out_error <= 5e-3);                            // bfloat16 weights and a bfloat16 result: 2^-9 each at most
  CHECK(lse_error <= 1e-6 * (10 + 10 * c.spread));     // float32 scores of the size of the spread
  worst.out = std::max(worst.out, out_error);
  worst.lse = std::max(worst.lse, lse_error);
}

// Query t of one kv head over a cache in scattered pages, NaN behind position t, one token at a time.
void as_decoding_would(const Case& c, const Packed& p, int64_t t) {
  constexpr int64_t kPages = 5, kPage = kernels::kKvPage;
  const int32_t pages[] = {3, 0, 4, 2};  // 200 positions at most
  const int64_t heads = kKvHeads * c.group;
  for (int64_t kv_head = 0; kv_head < kKvHeads; ++kv_head) {
    const auto cached = [&](const at::Tensor& x) {
      at::Tensor pool = at::full({kPages, kPage, c.head_dim}, NAN, at::kBFloat16);
      for (int64_t first = 0; first <= t; first += kPage) {
        const int64_t count = std::min(kPage, t + 1 - first);
        pool[pages[first / kPage]].narrow(0, 0, count).copy_(x.narrow(0, first, count).select(1, kv_head));
      }
      return pool;
    };
    const at::Tensor keys = cached(p.k), values = cached(p.v), q = p.q[t].narrow(0, kv_head * c.group, c.group).contiguous();
    at::Tensor out = at::full_like(q, NAN);
    tile_attention({bits(q), bits(keys), bits(values), mutable_bits(out), nullptr, heads * c.head_dim, c.head_dim, 0, c.group,
                    c.head_dim, t, t + 1, scale_of(c.head_dim), pages, kPage * c.head_dim});
    CHECK(at::equal(out, p.out[t].narrow(0, kv_head * c.group, c.group)));
    at::Tensor alone = at::full_like(q, NAN);  // head by head
    for (int64_t g = 0; g < c.group; ++g) {
      tile_attention({bits(q) + g * c.head_dim, bits(keys), bits(values), mutable_bits(alone) + g * c.head_dim, nullptr, 0,
                      c.head_dim, 0, 1, c.head_dim, t, t + 1, scale_of(c.head_dim), pages, kPage * c.head_dim});
    }
    CHECK(at::equal(alone, out));
  }
}

void one_case(const Case& c, Worst& worst) {
  const Packed p = random_case(c);
  run(c, p, 0, c.length);
  against_float64(c, p, worst);
  for (const int64_t t : {int64_t{0}, c.length / 2, c.length - 1}) as_decoding_would(c, p, t);
  // The middle third, over keys that change behind it.
  Packed again = p;
  const int64_t begin = c.length / 3, end = 2 * c.length / 3 + 1;
  again.k = p.k.clone();
  again.v = p.v.clone();
  again.k.narrow(0, end, c.length - end).fill_(-7);
  again.v.narrow(0, end, c.length - end).fill_(1e30);
  again.out = at::full_like(p.out, NAN);
  again.lse = at::full_like(p.lse, NAN);
  run(c, again, begin, end);
  CHECK(at::equal(again.out.narrow(0, begin, end - begin), p.out.narrow(0, begin, end - begin)));
  CHECK(at::equal(again.lse.narrow(0, begin, end - begin), p.lse.narrow(0, begin, end - begin)));
}

}  // namespace

int main() {
  bool any = false;
  for (const CpuIsa isa : {CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    any = true;
    at::manual_seed(1);
    Worst worst, steep;
    constexpr int64_t kHeadDims[] = {64, 6, 128, 33, 80}, kGroups[] = {3, 1, 7, 20};
    for (int64_t length = 1; length <= 200; length += length < 70 ? 1 : 9) {
      one_case({length, kGroups[length % 4], kHeadDims[length % 5], 1}, worst);
      one_case({length, kGroups[length / 5 % 4], kHeadDims[(length + 2) % 5], 100}, steep);
    }
    std::printf("%s: relative error %.2g, of logsumexp %.2g; nearly one-hot %.2g, %.2g\n", cpu_isa_name(isa), worst.out, worst.lse,
                steep.out, steep.lse);
  }
  if (!any) {
    std::printf("this processor has neither AVX512-BF16 nor AMX\n");
    return 77;
  }
  return check::finish();
}
