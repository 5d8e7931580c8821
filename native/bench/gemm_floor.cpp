// Candidates for the three products, and the choice of the best; see gemm_floor.h.
#include "bench/gemm_floor.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "bench/process_stats.h"
#include "core/error.h"
#include "core/head_gemm.h"
#include "core/linear.h"
#include "core/linear_gradients.h"
#include "kernels/tile_head.h"

// MKL inside libtorch_cpu.so, as core/head_gemm.cpp declares it; here it is called on the whole matrix at once.
extern "C" void cblas_gemm_bf16bf16f32(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha,
                                       const uint16_t* a, int lda, const uint16_t* b, int ldb, float beta, float* c,
                                       int ldc) __attribute__((weak));

namespace archer::bench {
namespace {

constexpr double kHopeless = 1.3;  // a first try this much slower than the best is not repeated
constexpr const char* kProductNames[] = {"logits", "grad_hidden", "grad_weight"};

const uint16_t* bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }
int size(const at::Tensor& tensor, int dim) { return static_cast<int>(tensor.size(dim)); }

// c = op(a) b (+ c), b transposed where told; leading dimensions are the row lengths.
void mkl(const at::Tensor& a, bool trans_a, const at::Tensor& b, bool trans_b, float beta, at::Tensor& c) {
  constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;
  cblas_gemm_bf16bf16f32(kRowMajor, trans_a ? kTrans : kNoTrans, trans_b ? kTrans : kNoTrans, size(c, 0), size(c, 1),
                         size(a, trans_a ? 0 : 1), 1.0f, bits(a), size(a, 1), bits(b), size(b, 1), beta,
                         c.data_ptr<float>(), size(c, 1));
}

// Our own tiles, without the loss in them. Operands stand in the kernels' layout: the numbers of `dlogits` are read in
// another order (they are random), and packing of the small operand is part of the product.
class OwnTiles {
 public:
  static void logits(const at::Tensor& hidden, const at::Tensor& head, at::Tensor& out) {
    const kernels::TileKernels& own = *kernels::tile_kernels();
    const Sizes s(hidden.size(0), head);
    uint16_t* packed = buffer(kPacked, s.rows_by_hidden);
    own.pack_hidden(s.rows(hidden), packed);
    const std::vector<float> shift(static_cast<size_t>(s.row_blocks * kernels::kTile), 0.0f);
    uint16_t* z = enough(out, s.rows_by_vocabulary);
    share_out(s, [&](int64_t begin, int64_t end, uint16_t* scratch, int64_t) {
      std::vector<double> unused(2 * shift.size());
      own.forward({bits(head), s.vocabulary, s.hidden, s.row_blocks, begin, end, packed, shift.data(), 1.0f, z,
                   unused.data(), unused.data() + shift.size(), true},
                  scratch);
    });
  }

  static void grad_hidden(const at::Tensor& dlogits, const at::Tensor& head, at::Tensor& grad) {
    const Sizes s(dlogits.size(0), head);
    static at::Tensor sums;
    const int64_t threads = at::get_num_threads();
    if (!sums.defined() || sums.numel() < threads * s.rows_by_hidden) sums = at::zeros({threads * s.rows_by_hidden});
    uint16_t* z = enough(dlogits, s.rows_by_vocabulary);
    share_out(s, [&](int64_t begin, int64_t end, uint16_t* scratch, int64_t thread) {
      kernels::tile_kernels()->grad_hidden(job(s, head, z, begin, end, nullptr, nullptr,
                                               sums.data_ptr<float>() + thread * s.rows_by_hidden), scratch);
    });
    grad.copy_(sums.narrow(0, 0, grad.numel()).view_as(grad));
  }

  static void grad_weight(const at::Tensor& dlogits, const at::Tensor& hidden, at::Tensor& grad) {
    const Sizes s(dlogits.size(0), grad);
    uint16_t* packed = buffer(kPackedScaled, s.rows_by_hidden);
    const std::vector<float> ones(static_cast<size_t>(hidden.size(0)), 1.0f);
    kernels::tile_kernels()->pack_scaled_hidden(s.rows(hidden), ones.data(), packed);
    uint16_t* z = enough(dlogits, s.rows_by_vocabulary);
    share_out(s, [&](int64_t begin, int64_t end, uint16_t*, int64_t) {
      kernels::tile_kernels()->grad_head(job(s, grad, z, begin, end, packed, grad.data_ptr<float>(), nullptr));
    });
  }

 private:
  enum Buffer { kPacked, kPackedScaled, kScratch, kWide, kBuffers };

  struct Sizes {
    int64_t vocabulary, hidden, row_blocks, rows_by_hidden, rows_by_vocabulary;
    mutable std::vector<int64_t> tokens;
    Sizes(int64_t num_rows, const at::Tensor& head)
        : vocabulary(head.size(0)), hidden(head.size(1)), row_blocks(kernels::tile_blocks(num_rows)),
          rows_by_hidden(row_blocks * kernels::tile_blocks(hidden) * kernels::kBlockElements),
          rows_by_vocabulary(row_blocks * kernels::tile_blocks(vocabulary) * kernels::kBlockElements) {
      for (int64_t t = 0; t < num_rows; ++t) tokens.push_back(t);
    }
    kernels::TileRows rows(const at::Tensor& hidden_TH) const {
      return {bits(hidden_TH), tokens.data(), static_cast<int64_t>(tokens.size()), hidden};
    }
  };

  static uint16_t* buffer(Buffer which, int64_t elements) {
    static at::Tensor buffers[kBuffers];
    at::Tensor& own = buffers[which];
    if (!own.defined() || own.numel() < elements) own = at::zeros({elements}, at::TensorOptions().dtype(at::kBFloat16));
    return static_cast<uint16_t*>(own.data_ptr());
  }

  // The tensor's own memory where the padded layout fits into it.
  static uint16_t* enough(const at::Tensor& matrix, int64_t elements) {
    return matrix.numel() >= elements ? static_cast<uint16_t*>(matrix.data_ptr()) : buffer(kWide, elements);
  }

  static kernels::TileBackward job(const Sizes& s, const at::Tensor& head, uint16_t* z, int64_t begin, int64_t end,
                                   const uint16_t* packed, float* grad_head, float* sums) {
    return {static_cast<const uint16_t*>(head.const_data_ptr()), s.vocabulary, s.hidden, s.row_blocks, s.row_blocks,
            nullptr, begin, end, z, packed, grad_head, sums};
  }

  template <typename Body>
  static void share_out(const Sizes& s, Body body) {
    const int64_t threads = at::get_num_threads(), step = kernels::kVocabularyStep;
    const int64_t steps = (s.vocabulary + step - 1) / step, own = kernels::tile_scratch_elements(s.hidden);
    uint16_t* scratch = buffer(kScratch, threads * own);
    at::parallel_for(0, threads, 1, [&](int64_t first, int64_t past) {
      for (int64_t thread = first; thread < past; ++thread) {
        body(thread * steps / threads * step, std::min((thread + 1) * steps / threads * step, s.vocabulary),
             scratch + thread * own, thread);
      }
    });
  }
};

}  // namespace

std::vector<GemmCandidate> gemm_candidates(at::ScalarType dtype) {
  using at::Tensor;
  std::vector<GemmCandidate> list = {
      {"libtorch mm", HeadProduct::logits, dtype,
       [](const Tensor& hidden, const Tensor& head, Tensor& logits) { at::mm_out(logits, hidden, head.t()); }},
      {"libtorch mm", HeadProduct::grad_hidden, dtype,
       [](const Tensor& dlogits, const Tensor& head, Tensor& grad) { at::mm_out(grad, dlogits, head); }},
      {"libtorch mm", HeadProduct::grad_weight, dtype,
       [](const Tensor& dlogits, const Tensor& hidden, Tensor& grad) { at::mm_out(grad, dlogits.t(), hidden); }, true},
      {"libtorch addmm", HeadProduct::grad_weight, dtype,
       [](const Tensor& dlogits, const Tensor& hidden, Tensor& grad) { grad.addmm_(dlogits.t(), hidden); }},
  };
  list.push_back({"head_gemm", HeadProduct::logits, at::kFloat, head_logits});
  list.push_back({"head_gemm", HeadProduct::grad_hidden, at::kFloat, head_grad_hidden});
  list.push_back({"head_gemm", HeadProduct::grad_weight, at::kFloat, head_grad_weight});
  if (dtype == at::kBFloat16 && cblas_gemm_bf16bf16f32) {
    list.push_back({"mkl", HeadProduct::logits, at::kFloat,
                    [](const Tensor& hidden, const Tensor& head, Tensor& logits) {
                      mkl(hidden, false, head, true, 0, logits);
                    }});
    list.push_back({"mkl", HeadProduct::grad_hidden, at::kFloat,
                    [](const Tensor& dlogits, const Tensor& head, Tensor& grad) {
                      mkl(dlogits, false, head, false, 0, grad);
                    }});
    list.push_back({"mkl", HeadProduct::grad_weight, at::kFloat,
                    [](const Tensor& dlogits, const Tensor& hidden, Tensor& grad) {
                      mkl(dlogits, true, hidden, false, 1, grad);
                    }});
  }
  if (dtype == at::kBFloat16 && kernels::tile_kernels()) {
    list.push_back({"own tiles", HeadProduct::logits, at::kBFloat16, OwnTiles::logits});
    list.push_back({"own tiles", HeadProduct::grad_hidden, at::kFloat, OwnTiles::grad_hidden});
    list.push_back({"own tiles", HeadProduct::grad_weight, at::kFloat, OwnTiles::grad_weight});
    // Of the layers.
    list.push_back({"own linear", HeadProduct::logits, at::kBFloat16,
                    [](const Tensor& x, const Tensor& weight, Tensor& y) { linear_products(x, {{weight, {}, y, {}}}); }});
    list.push_back({"own linear", HeadProduct::grad_hidden, at::kFloat,
                    [](const Tensor& dy, const Tensor& weight, Tensor& dx) { linear_grad_input(dy, weight, false, dx); }});
    list.push_back({"own linear", HeadProduct::grad_weight, at::kFloat,
                    [](const Tensor& dy, const Tensor& x, Tensor& dw) { linear_grad_weight(dy, x, dw); }});
  }
  return list;
}

GemmFloor::GemmFloor(const at::Tensor& hidden_TH, const at::Tensor& head_VH)
    : hidden_TH_(hidden_TH), head_VH_(head_VH),
      dlogits_TV_(at::empty({hidden_TH.size(0), head_VH.size(0)}, hidden_TH.options())) {
  dlogits_TV_.normal_(0, 1e-3);
}

at::Tensor& GemmFloor::result(HeadProduct product, at::ScalarType dtype) {
  at::Tensor& tensor = results_[static_cast<int>(product)][dtype == at::kBFloat16];
  if (!tensor.defined()) {
    const int64_t rows = product == HeadProduct::grad_weight ? head_VH_.size(0) : hidden_TH_.size(0);
    const int64_t columns = product == HeadProduct::logits ? head_VH_.size(0) : head_VH_.size(1);
    tensor = at::zeros({rows, columns}, at::TensorOptions().dtype(dtype));
  }
  return tensor;
}

double GemmFloor::time(const GemmCandidate& candidate, int64_t rows) {
  at::Tensor& whole = result(candidate.product, candidate.output);
  const int64_t num_tokens = hidden_TH_.size(0);
  const double began = wall_seconds();
  for (int64_t t = 0; t < num_tokens; t += rows) {
    const int64_t n = std::min(rows, num_tokens - t);
    const at::Tensor hidden_RH = hidden_TH_.narrow(0, t, n);
    // The same rows of the buffers for every chunk, as a loss in chunks has them: they may stay in the cache.
    const at::Tensor dlogits_RV = dlogits_TV_.narrow(0, 0, n);
    at::Tensor logits_or_grad = candidate.product == HeadProduct::grad_weight ? whole : whole.narrow(0, 0, n);
    switch (candidate.product) {
      case HeadProduct::logits: candidate.run(hidden_RH, head_VH_, logits_or_grad); break;
      case HeadProduct::grad_hidden: candidate.run(dlogits_RV, head_VH_, logits_or_grad); break;
      case HeadProduct::grad_weight: candidate.run(dlogits_RV, hidden_RH, logits_or_grad); break;
    }
  }
  return wall_seconds() - began;
}

void GemmFloor::choose(int repeats) {
  const int64_t num_tokens = hidden_TH_.size(0);
  chosen_.clear();
  for (const auto product : {HeadProduct::logits, HeadProduct::grad_hidden, HeadProduct::grad_weight}) {
    Choice best;
    best.seconds = std::numeric_limits<double>::infinity();
    for (const GemmCandidate& candidate : gemm_candidates(hidden_TH_.scalar_type())) {
      if (candidate.product != product) continue;
      time(candidate, num_tokens);  // first touch of the buffers, kernels made by oneDNN
      for (const int64_t rows : {num_tokens, int64_t{1024}, int64_t{512}, int64_t{256}, int64_t{128}}) {
        if (rows > num_tokens || (rows != num_tokens && candidate.overwrites)) continue;
        double seconds = time(candidate, rows);
        for (int i = 1; i < repeats && seconds < kHopeless * best.seconds; ++i) {
          seconds = std::min(seconds, time(candidate, rows));
        }
        if (seconds < best.seconds) best = {candidate, rows, seconds};
        if (rows == num_tokens && num_tokens <= 128) break;
      }
    }
    chosen_.push_back(best);
  }
}

double GemmFloor::run() {
  require(chosen_.size() == 3, kInternal, "GemmFloor::run() without choose()");
  double total = 0;
  for (Choice& choice : chosen_) total += choice.seconds = time(choice.candidate, choice.rows);
  return total;
}

std::string GemmFloor::description() const {
  std::string text;
  for (const Choice& choice : chosen_) {
    text += (text.empty() ? "" : ", ") + std::string(kProductNames[static_cast<int>(choice.candidate.product)]) +
            ": " + choice.candidate.name + " x " + std::to_string(choice.rows) + " rows " +
            json_number(1e3 * choice.seconds) + " ms";
  }
  return text;
}

std::string GemmFloor::description_json() const {
  std::string text;
  for (const Choice& choice : chosen_) {
    text += (text.empty() ? "{" : ", ") + json_text(kProductNames[static_cast<int>(choice.candidate.product)]) +
            ": {\"kernel\": " + json_text(choice.candidate.name) + ", \"rows\": " + std::to_string(choice.rows) +
            ", \"seconds\": " + json_number(choice.seconds) + "}";
  }
  return text + "}";
}

}  // namespace archer::bench
