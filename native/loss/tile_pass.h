// The output head in tiles of 32 x 32, for bfloat16 on processors that multiply it (AVX512-BF16, AMX): the logits of a chunk
// are never written; their exponentials are, once, in bfloat16 (kernels/tile_head.h has the formulas). One pass over them,
// three products, whatever the classes depend on.
#pragma once
#include <array>

#include "kernels/tile_head.h"
#include "loss/head_pass.h"

namespace archer {

class TilePass : public HeadPass<float> {
 public:
  static bool available() { return kernels::tile_kernels() != nullptr; }

  TilePass(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T, double temperature,
           int64_t chunk_tokens, const JobControl* control, LossWorkspace& workspace);

  int64_t chunk() const { return chunk_; }
  static int64_t workspace_bytes(int64_t vocabulary, int64_t hidden, at::ScalarType dtype, int64_t rows, int threads, bool gradients);

  // Pass 1: (logp, H) of at most chunk() tokens. keep: their exponentials stay in the buffer, for backward().
  void forward(Rows rows, bool keep);

  // Pass 2 for the tokens `active`, which are rows `active_rows` of the buffer (ascending).
  void backward(Rows active, Rows active_rows, const std::vector<float>& grad_log_prob,
                const std::vector<float>& grad_entropy, at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH);

 private:
  struct RowStats {
    float shift;         // k
    float excess;        // (z of the sampled id - k) / T, nats: 0 but for a hopelessly improbable id
    double sum, weighted;  // S, X
  };

  kernels::TileRows tile_rows(Rows rows) const;
  uint16_t* scratch_of_threads();
  template <class Body>
  void for_each_share(Body body);
  void sum_exponentials(bool keep);
  void shift_to_largest();
  void multiply_back(const kernels::TileRows& rows, const std::vector<float>& coefficients, const uint32_t* keep,
                     at::Tensor& grad_head_VH);

  void write_grad_hidden(Rows active, Rows rows, const std::vector<float>& coefficients, at::Tensor& grad_hidden_TH);

  const kernels::TileKernels& kernels_;
  float temperature_;
  int64_t hidden_, chunk_, share_;
  std::vector<int64_t> rows_;       // the tokens in the buffer
  std::vector<RowStats> stats_;     // of the rows in the buffer
  std::vector<float> shifts_;       // padded to whole blocks
};

}  // namespace archer
