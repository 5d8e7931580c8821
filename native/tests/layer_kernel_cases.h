// The case list of the layers' kernels, for any LayerDevice: every kernel and the product against float64, at sizes that fill neither
// warps nor blocks, with NaN where it must stay where it is. `next` gives the device for a case.
#pragma once
#include <cmath>
#include <functional>
#include <random>

#include "kernels/layer_device.h"
#include "tests/check.h"
#include "tests/device_array.h"
#include "tests/gpu_emulation.h"

namespace archer::layer_cases {

using Bits = std::vector<uint16_t>;
using Next = std::function<LayerDevice&()>;

inline std::mt19937_64& random() {
  static std::mt19937_64 engine(7);
  return engine;
}
inline std::vector<float> numbers(int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random());
  return values;
}
inline Bits bits(int64_t count) {
  Bits values;
  for (const float value : numbers(count)) values.push_back(gpu::to_bf16(value).bits);
  return values;
}
inline double wide(uint16_t value) { return static_cast<double>(bf16_to_float(value)); }

// Within the last place of bfloat16, or NaN like it.
inline void check_rounded(uint16_t got, double expected) {
  if (std::isnan(expected)) {
    CHECK(std::isnan(bf16_to_float(got)));
  } else {
    CHECK_NEAR(wide(got), expected, std::abs(expected) / 100 + 1e-5);
  }
}

inline void check_norm(LayerDevice& device, int64_t rows, int32_t columns, bool with_sum) {
  const auto n = static_cast<size_t>(columns);
  Bits x = bits(rows * columns);
  const Bits weight = bits(columns);
  const std::vector<float> dy = numbers(rows * columns), sum = numbers(rows * columns);
  const size_t nan_row = static_cast<size_t>(rows / 2);
  if (rows > 2) x[nan_row * n] = 0x7FC0;
  DeviceArray<uint16_t> x_there(device, x), weight_there(device, weight), out(device, Bits(x.size())), rounded(device, Bits(x.size()));
  DeviceArray<float> rstd(device, std::vector<float>(static_cast<size_t>(rows))), dy_there(device, dy), sum_there(device, sum);
  device.run(RmsNormRows{x_there.get(), weight_there.get(), out.get(), rstd.get(), rows, columns, 1e-6f});
  device.run(RmsNormRowsBackward{x_there.get(), weight_there.get(), rstd.get(), dy_there.get(), with_sum ? sum_there.get() : nullptr,
                                 rounded.get(), rows, columns});
  const int32_t per_block = rows > 8 ? 5 : 128;
  const int64_t blocks = blocks_for(rows, per_block);
  DeviceArray<float> partial(device, std::vector<float>(static_cast<size_t>(blocks) * n)), grad(device, std::vector<float>(n, 0.5f));
  device.run(ColumnSums{nullptr, dy_there.get(), x_there.get(), rstd.get(), partial.get(), rows, columns, per_block});
  device.run(AddPartialSums{partial.get(), grad.get(), static_cast<int32_t>(blocks), columns});
  const Bits got = out.read(), got_rounded = rounded.read();
  const std::vector<float> got_sum = sum_there.read(), got_grad = grad.read(), got_rstd = rstd.read();

  std::vector<double> dweight(n, 0.5);
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    double squares = 0, dot = 0;
    for (size_t c = 0; c < n; ++c) squares += wide(x[r * n + c]) * wide(x[r * n + c]);
    const double scale = 1.0 / std::sqrt(squares / columns + 1e-6);
    for (size_t c = 0; c < n; ++c) {
      dot += static_cast<double>(dy[r * n + c]) * wide(x[r * n + c]) * scale * wide(weight[c]);
      dweight[c] += static_cast<double>(dy[r * n + c]) * wide(x[r * n + c]) * scale;
    }
    if (!std::isnan(scale)) CHECK_NEAR(got_rstd[r] / scale, 1, 1e-5);
    for (size_t c = 0; c < n; ++c) {
      const size_t at = r * n + c;
      check_rounded(got[at], wide(x[at]) * scale * wide(weight[c]));
      const double dx = scale * (static_cast<double>(dy[at]) * wide(weight[c]) - wide(x[at]) * scale * dot / columns);
      const double total = dx + (with_sum ? static_cast<double>(sum[at]) : 0.0);
      if (!std::isnan(total)) {
        CHECK_NEAR(wide(got_rounded[at]), total, std::abs(total) / 200 + 1e-4);
        if (with_sum) CHECK_NEAR(got_sum[at], total, std::abs(total) * 1e-4 + 1e-4);
      } else {
        CHECK(std::isnan(bf16_to_float(got_rounded[at])));
      }
    }
  }
  for (size_t c = 0; c < n; ++c) {
    if (!std::isnan(dweight[c])) CHECK_NEAR(got_grad[c], dweight[c], 1e-3);
  }
}

inline void check_rotation(LayerDevice& device, int64_t rows, int32_t heads, int32_t head_dim) {
  const int64_t width = heads * head_dim, half = head_dim / 2;
  const Bits x = bits(rows * width), cosine = bits(9 * half), sine = bits(9 * half);
  const std::vector<float> grad = numbers(rows * width);
  std::vector<int32_t> positions;
  for (int64_t r = 0; r < rows; ++r) positions.push_back(static_cast<int32_t>(r * 5 % 9));
  DeviceArray<uint16_t> x_there(device, x), cosine_there(device, cosine), sine_there(device, sine), rounded(device, Bits(x.size()));
  DeviceArray<int32_t> positions_there(device, positions);
  DeviceArray<float> grad_there(device, grad);
  device.run(RotateRows{x_there.get(), cosine_there.get(), sine_there.get(), positions_there.get(), x_there.get(), rows, heads, head_dim});
  device.run(RotateRowsBackward{grad_there.get(), cosine_there.get(), sine_there.get(), positions_there.get(), rounded.get(), rows, heads,
                                head_dim});
  const Bits got = x_there.read(), got_rounded = rounded.read();
  const std::vector<float> got_grad = grad_there.read();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < heads * half; ++j) {
      const auto near = static_cast<size_t>(r * width + j / half * head_dim + j % half), far = near + static_cast<size_t>(half);
      const auto table = static_cast<size_t>(positions[static_cast<size_t>(r)] * half + j % half);
      const double c = wide(cosine[table]), s = wide(sine[table]), a = wide(x[near]), b = wide(x[far]);
      CHECK_NEAR(wide(got[near]), a * c - b * s, 0.03);
      CHECK_NEAR(wide(got[far]), b * c + a * s, 0.03);
      const double da = grad[near] * c + grad[far] * s, db = grad[far] * c - grad[near] * s;
      CHECK_NEAR(got_grad[near], da, 1e-5);
      CHECK_NEAR(got_grad[far], db, 1e-5);
      CHECK_NEAR(wide(got_rounded[near]), da, 0.03);
      CHECK_NEAR(wide(got_rounded[far]), db, 0.03);
    }
  }
}

inline void check_gated(LayerDevice& device, int64_t count) {
  Bits gate = bits(count), up = bits(count), dy = bits(count);
  gate[0] = gpu::to_bf16(-120.0f).bits;  // e^120 is infinite
  gate[1] = gpu::to_bf16(120.0f).bits;
  gate[2] = 0x7FC0;
  DeviceArray<uint16_t> gate_there(device, gate), up_there(device, up), dy_there(device, dy), out(device, Bits(gate.size())), again(device, gate);
  device.run(GatedProduct{gate_there.get(), up_there.get(), out.get(), count});
  device.run(GatedProductBackward{gate_there.get(), up_there.get(), dy_there.get(), again.get(), count});
  const Bits got = out.read(), got_again = again.read(), dgate = gate_there.read(), dup = up_there.read();
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = wide(gate[i]), u = wide(up[i]), d = wide(dy[i]), sigmoid = 1 / (1 + std::exp(-g));
    check_rounded(got[i], g * sigmoid * u);
    check_rounded(got_again[i], g * sigmoid * u);
    check_rounded(dup[i], d * g * sigmoid);
    check_rounded(dgate[i], d * u * sigmoid * (1 + g * (1 - sigmoid)));
  }
}

inline void check_product(LayerDevice& device, bool a_transposed, bool b_transposed, bool is_float, bool add) {
  const int64_t m = 5, n = 16, k = 24;
  const Bits a = bits(m * k), b = bits(k * n), bias = bits(n), residual = bits(m * n);
  DeviceArray<uint16_t> a_there(device, a), b_there(device, b), bias_there(device, bias), residual_there(device, residual);
  DeviceArray<uint16_t> out(device, Bits(static_cast<size_t>(m * n), 0x7FC0));
  DeviceArray<float> wide_out(device, std::vector<float>(static_cast<size_t>(m * n), 2.0f));
  if (add && !is_float) device.run(StartRows{bias_there.get(), residual_there.get(), out.get(), m, static_cast<int32_t>(n)});
  device.multiply({a_there.get(), b_there.get(), a_transposed, b_transposed, is_float ? static_cast<void*>(wide_out.get()) : out.get(),
                   is_float, add, m, n, k, 0.5f});
  const Bits got = out.read();
  const std::vector<float> got_wide = wide_out.read();
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) {
        sum += 0.5 * wide(a[static_cast<size_t>(a_transposed ? l * m + i : i * k + l)]) *
               wide(b[static_cast<size_t>(b_transposed ? j * k + l : l * n + j)]);
      }
      const auto at = static_cast<size_t>(i * n + j);
      if (is_float) {
        CHECK_NEAR(got_wide[at], sum + (add ? 2 : 0), 1e-5);
      } else {
        CHECK_NEAR(wide(got[at]), sum + (add ? wide(bias[static_cast<size_t>(j)]) + wide(residual[at]) : 0), 0.06);
      }
    }
  }
}

inline void check_bias_and_embedding(LayerDevice& device, int64_t rows, int32_t columns) {
  const Bits dy = bits(rows * columns);
  const std::vector<float> dx = numbers(rows * columns);
  DeviceArray<uint16_t> dy_there(device, dy);
  DeviceArray<float> dx_there(device, dx), grad(device, std::vector<float>(static_cast<size_t>(3 * columns), 1.0f));
  const int32_t per_block = rows_per_column_block(rows);
  const int64_t blocks = blocks_for(rows, per_block);
  DeviceArray<float> partial(device, std::vector<float>(static_cast<size_t>(blocks * columns)));
  device.run(ColumnSums{dy_there.get(), nullptr, nullptr, nullptr, partial.get(), rows, columns, per_block});
  device.run(AddPartialSums{partial.get(), grad.get(), static_cast<int32_t>(blocks), columns});
  // Rows 0 and 2 of the table: the first token, and the others from the last to the first.
  std::vector<int32_t> tokens{0};
  for (int64_t t = rows - 1; t > 0; --t) tokens.push_back(static_cast<int32_t>(t));
  DeviceArray<int32_t> ids(device, {1, 2}), begins(device, {0, 1, static_cast<int32_t>(rows)}), tokens_there(device, tokens);
  device.run(EmbeddingRowsBackward{dx_there.get(), ids.get(), begins.get(), tokens_there.get(), grad.get(), 2, columns});
  const std::vector<float> got = grad.read();
  for (int32_t c = 0; c < columns; ++c) {
    double bias = 1, others = 1;
    for (int64_t r = 0; r < rows; ++r) {
      bias += wide(dy[static_cast<size_t>(r * columns + c)]);
      if (r > 0) others += static_cast<double>(dx[static_cast<size_t>(r * columns + c)]);
    }
    CHECK_NEAR(got[static_cast<size_t>(c)], bias, 1e-3);
    CHECK_NEAR(got[static_cast<size_t>(columns + c)], 1 + static_cast<double>(dx[static_cast<size_t>(c)]), 1e-6);
    CHECK_NEAR(got[static_cast<size_t>(2 * columns + c)], others, 1e-3);
  }
}

inline void check_optimizer(LayerDevice& device, int32_t size) {
  std::vector<float> p = numbers(2 * size), m = numbers(2 * size), v = numbers(2 * size), g = numbers(2 * size);
  for (float& value : v) value = std::abs(value);
  DeviceArray<float> p_there(device, p), m_there(device, m), v_there(device, v), g_there(device, g);
  DeviceArray<uint16_t> compute(device, Bits(p.size()));
  std::vector<WeightBlock> blocks;
  for (const int32_t b : {0, 1}) {
    const int64_t at = static_cast<int64_t>(b) * size;
    blocks.push_back({p_there.get() + at, m_there.get() + at, v_there.get() + at, g_there.get() + at, compute.get() + at, size, b});
  }
  DeviceArray<WeightBlock> blocks_there(device, blocks);
  DeviceArray<double> sums(device, std::vector<double>(3));
  device.run(SquareSums{blocks_there.get(), sums.get(), 2});
  device.run(AddSquareSums{sums.get(), sums.get() + 2, 2});
  const double lr = 0.01, wd = 0.1, c1 = 0.1, c2 = 0.3, scale = 0.7;
  device.run(AdamwBlocks{blocks_there.get(), 2, 0.9f, 0.1f, 0.95f, 0.05f, static_cast<float>(1 - lr * wd), static_cast<float>(lr / c1),
                         static_cast<float>(1 / c2), 1e-8f, static_cast<float>(scale)});
  double squares = 0;
  for (const float value : g) squares += static_cast<double>(value) * static_cast<double>(value);
  CHECK_NEAR(sums.read()[2], squares, 1e-12 * squares);
  const std::vector<float> got_p = p_there.read(), got_m = m_there.read(), got_v = v_there.read();
  const Bits got = compute.read();
  for (size_t i = 0; i < p.size(); ++i) {
    const double grad = scale * g[i], first = 0.9 * m[i] + 0.1 * grad, second = 0.95 * v[i] + 0.05 * grad * grad;
    const double decayed = static_cast<double>(p[i]) * (i < static_cast<size_t>(size) ? 1.0 : 1 - lr * wd);
    const double step = lr / c1 * first / (std::sqrt(second) / c2 + 1e-8);
    CHECK_NEAR(got_m[i], first, 1e-6);
    CHECK_NEAR(got_v[i], second, 1e-6);
    CHECK_NEAR(got_p[i], decayed - step, 1e-6 + 1e-5 * std::abs(step));
    CHECK(got[i] == gpu::to_bf16(got_p[i]).bits);
  }
}

inline void check_kernels(const Next& next) {
  for (const bool with_sum : {true, false}) {
    check_norm(next(), 11, 24, with_sum);
    check_norm(next(), 5, 264, with_sum);  // more than a warp takes at a time
    check_norm(next(), 1, 8, with_sum);
    check_norm(next(), 2, 1000, with_sum);
  }
  check_rotation(next(), 7, 3, 16);
  check_rotation(next(), 3, 1, 80);
  check_gated(next(), 8);
  check_gated(next(), 1048);
  for (int which = 0; which < 16; ++which) check_product(next(), which & 1, which & 2, which & 4, which & 8);
  check_bias_and_embedding(next(), 131, 24);
  check_bias_and_embedding(next(), 2, 300);
  check_optimizer(next(), 1000);
  check_optimizer(next(), 4);
}

}  // namespace archer::layer_cases
