// The "gemm-floor": the three products of the output head without any loss between them, each by the fastest candidate
// and number of rows at a time that this machine has:
//   logits_RV = hidden_RH head_VHᵀ;  grad_hidden_RH = dlogits_RV head_VH;  grad_head_VH = dlogits_RVᵀ hidden_RH
// TO ADD A KERNEL: append one GemmCandidate per product to gemm_candidates() in gemm_floor.cpp. `run` has the signature
// of head_logits, head_grad_hidden and head_grad_weight in core/head_gemm.h; nothing else needs to change.
// Legend: T tokens, R rows done at once, H hidden size, V vocabulary. Matrices are row-major and contiguous.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace archer::bench {

enum class HeadProduct { logits, grad_hidden, grad_weight };

struct GemmCandidate {
  std::string name;     // as the results show it
  HeadProduct product;
  at::ScalarType output;  // dtype of the result, which is allocated beforehand
  // (hidden, head, logits), (dlogits, head, grad_hidden) or (dlogits, hidden, grad_head). Whatever the candidate packs
  // or converts happens inside: weights change with every update.
  std::function<void(const at::Tensor&, const at::Tensor&, at::Tensor&)> run;
  // A grad_weight candidate that overwrites its result instead of adding to it: only ever given all T rows.
  bool overwrites = false;
};

// Those that run on this machine, for inputs of `dtype` (float32 or bfloat16).
std::vector<GemmCandidate> gemm_candidates(at::ScalarType dtype);

class GemmFloor {
 public:
  // Allocates random dlogits and the results. hidden_TH and head_VH are used as they are.
  GemmFloor(const at::Tensor& hidden_TH, const at::Tensor& head_VH);

  // Times every candidate with every number of rows (best of `repeats`, hopeless ones once) and keeps the best of each
  // product.
  void choose(int repeats = 3);

  // The chosen three once, in seconds. Throws where choose() has not run.
  double run();

  // "logits: mkl x 512 rows, ..." and the seconds of each in the last run().
  std::string description() const;
  std::string description_json() const;

 private:
  struct Choice {
    GemmCandidate candidate;
    int64_t rows = 0;
    double seconds = 0;
  };
  double time(const GemmCandidate& candidate, int64_t rows);
  at::Tensor& result(HeadProduct product, at::ScalarType dtype);

  at::Tensor hidden_TH_, head_VH_, dlogits_TV_;
  at::Tensor results_[3][2];  // [product][float32 or bfloat16], made when first needed
  std::vector<Choice> chosen_;
};

}  // namespace archer::bench
