// The head's loss on a device (head/head_loss.h): its flows, chunks and compaction over the emulated device, against
// float64.
#include <algorithm>

#include "tests/emulated_device.h"
// After the emulation's primitives.
#include "core/error.h"
#include "tests/expect_error.h"
#include "tests/head_loss_cases.h"

using namespace archer;
using head_cases::Batch;
using head_cases::make_batch;

namespace {

// Nothing waits where the classes are known beforehand; with compaction one wait per chunk; memory is allocated once.
void waits_and_memory() {
  const Batch batch = make_batch(131, 8, 77, 1.0);
  const auto in_loss = [&](size_t begin, size_t end) {
    return std::count(batch.mask.begin() + static_cast<std::ptrdiff_t>(begin),
                      batch.mask.begin() + static_cast<std::ptrdiff_t>(end), 1);
  };
  const int64_t live = in_loss(0, 41) + in_loss(58, 92);  // tokens 41 .. 57 have A = 0
  CHECK(live > 40 && live < in_loss(0, 92));
  LossOptions options;
  options.knowledge().kl_coef = 0;
  EmulatedDevice device;
  HeadWorkspace workspace(device);
  HeadLossOptions head_options;
  head_options.chunk_tokens = 10;
  const auto synchronisations = [&] {
    const int before = device.num_synchronisations;
    head_cases::run(device, workspace, batch, options, head_options);
    return device.num_synchronisations - before - 2;  // two of them read the gradients
  };
  CHECK(synchronisations() == 1 && device.num_mark_waits == 1);
  const size_t allocations = device.num_allocations(), bytes = workspace.size_bytes();
  head_options.compact_clipped = true;
  const int64_t products = device.product_rows;
  CHECK(synchronisations() == 1 + (live + 9) / 10);
  const int64_t compacted = device.product_rows - products;
  CHECK(compacted > 0 && compacted < products);
  CHECK(device.num_allocations() == allocations && workspace.size_bytes() == bytes);
  CHECK(products == live);  // A = 0 takes part in no backward product
}

// Left-out rows: their garbage is never read.
void masked_rows() {
  Batch batch = make_batch(131, 8, 78, 1.0);
  const LossOptions options;
  EmulatedDevice device;
  HeadWorkspace workspace(device);
  const auto clean = head_cases::run(device, workspace, batch, options, {});
  for (size_t t = 0; t < batch.num_tokens(); ++t) {
    if (batch.mask[t]) continue;
    for (int64_t h = 0; h < batch.hidden_size; ++h)
      batch.hidden_TH[t * static_cast<size_t>(batch.hidden_size) + static_cast<size_t>(h)] = 0x7FC0;
    batch.ids[t] = -5;
    batch.old_log_probs[t] = batch.ref_log_probs[t] = batch.old_entropies[t] = NAN;
  }
  const auto dirty = head_cases::run(device, workspace, batch, options, {});
  CHECK(dirty.result.loss == clean.result.loss);
  CHECK(dirty.grad_hidden_TH == clean.grad_hidden_TH && dirty.grad_head_VH == clean.grad_head_VH);
}

void gradients_add_up() {
  const Batch batch = make_batch(31, 8, 79, 1.0);
  EmulatedDevice device;
  HeadWorkspace workspace(device);
  const auto once = head_cases::run(device, workspace, batch, {}, {});
  DeviceArray<uint16_t> hidden(device, batch.hidden_TH), head(device, batch.head_VH);
  DeviceArray<float> grad_head(device, once.grad_head_VH), grad_hidden(device, once.grad_hidden_TH);
  DeviceHead d{hidden.get(), head.get(), static_cast<int64_t>(batch.num_tokens()), 8, 31, grad_hidden.get(), true,
               grad_head.get()};
  head_loss(d, batch.view(), {}, {}, workspace);
  const auto twice = grad_head.read();
  for (size_t i = 0; i < twice.size(); ++i)
    CHECK_NEAR(twice[i], 2 * once.grad_head_VH[i], 1e-6 * (1 + std::abs(once.grad_head_VH[i])));
  CHECK(grad_hidden.read() == once.grad_hidden_TH);

  // Without gradients: the same loss, no product beyond the logits.
  d.grad_head_VH = nullptr;
  const int products = device.num_products;
  const auto alone = head_loss(d, batch.view(), {}, {}, workspace);
  CHECK(device.num_products == products + 1 && alone.backward_rows == 0);
  CHECK_NEAR(alone.loss, once.result.loss, 1e-9);
}

// In two halves: begin queues all and waits for nothing, finish makes the same result.
void two_halves() {
  const Batch batch = make_batch(31, 8, 83, 1.0);
  EmulatedDevice device;
  HeadWorkspace workspace(device);
  const auto whole = head_cases::run(device, workspace, batch, {}, {});
  DeviceArray<uint16_t> hidden(device, batch.hidden_TH), head(device, batch.head_VH);
  DeviceArray<float> grad_head(device, std::vector<float>(batch.head_VH.size(), 0.0f)),
      grad_hidden(device, std::vector<float>(batch.hidden_TH.size(), 0.0f));
  const DeviceHead d{hidden.get(), head.get(), static_cast<int64_t>(batch.num_tokens()), 8, 31, grad_hidden.get(), true,
                     grad_head.get()};
  const int waits = device.num_synchronisations + device.num_mark_waits;
  const auto pending = begin_head_loss(d, batch.view(), {}, {}, workspace);
  CHECK(device.num_synchronisations + device.num_mark_waits == waits);
  CHECK(grad_head.read() == whole.grad_head_VH);
  const auto result = pending->finish();
  CHECK(result.loss == whole.result.loss && result.log_probs == whole.result.log_probs);
}

// The parts that a caller with another class rule uses: scores, then gradients for coefficients of its own.
void parts() {
  const LossOptions options = head_cases::option_list()[1].options;
  const Batch batch = make_batch(131, 8, 80, options.temperature);
  EmulatedDevice device;
  HeadWorkspace workspace(device);
  HeadLossOptions head_options;
  head_options.chunk_tokens = 9;
  const auto whole = head_cases::run(device, workspace, batch, options, head_options);
  DeviceArray<uint16_t> hidden(device, batch.hidden_TH), head(device, batch.head_VH);
  DeviceArray<float> grad_head(device, std::vector<float>(batch.head_VH.size(), 0.0f)),
      grad_hidden(device, std::vector<float>(batch.hidden_TH.size(), 5.0f));
  const DeviceHead d{hidden.get(), head.get(), static_cast<int64_t>(batch.num_tokens()), 8, 131, grad_hidden.get(),
                     true, grad_head.get()};
  const auto scores = score_tokens_on(d, batch.ids, options.temperature, head_options, workspace);
  std::vector<float> log_probs(scores.log_probs.begin(), scores.log_probs.end()),
      entropies(scores.entropies.begin(), scores.entropies.end());
  const auto terms = token_loss<float>(log_probs, entropies, batch.view(), options);
  CHECK(terms.loss == whole.result.loss);
  const int64_t rows = backward_on(d, batch.ids, options.temperature, terms.grad_log_prob, terms.grad_entropy,
                                   head_options, workspace);
  CHECK(rows == whole.result.backward_rows);
  const auto as_doubles = [](const std::vector<float>& values) {
    return std::vector<double>(values.begin(), values.end());
  };
  CHECK(head_cases::relative_error(grad_head.read(), as_doubles(whole.grad_head_VH)) <= 1e-6);
  CHECK(head_cases::relative_error(grad_hidden.read(), as_doubles(whole.grad_hidden_TH)) <= 1e-6);
}

void errors() {
  const Batch good = make_batch(31, 8, 81, 1.0);
  EmulatedDevice device;
  HeadWorkspace workspace(device);
  const auto with = [&](auto change, LossOptions options = {}, HeadLossOptions head_options = {}) {
    Batch batch = good;
    change(batch);
    head_cases::run(device, workspace, batch, options, head_options);
  };
  expect_error(kShape, "ids[1] is 31", [&] { with([](Batch& b) { b.ids[1] = 31; }); });
  expect_error(kShape, "ids holds 91", [&] { with([](Batch& b) { b.ids.pop_back(); }); });
  expect_error(kShape, "head_weight is [31, 0]", [&] { with([](Batch& b) { b.hidden_size = 0; }); });
  LossOptions current;
  current.entropy_source = EntropySource::current;
  for (const LossOptions& options : {LossOptions{}, current}) {
    expect_error(kNumeric, "logits of token 8",
                 [&] { with([](Batch& b) { b.hidden_TH[8 * 8] = 0x7FC0; }, options); });
  }
  expect_error(kConfig, "temperature is 0", [&] {
    LossOptions options;
    options.temperature = 0;
    with([](Batch&) {}, options);
  });
  expect_error(kConfig, "chunk_tokens is -1", [&] {
    HeadLossOptions options;
    options.chunk_tokens = -1;
    with([](Batch&) {}, {}, options);
  });
  JobControl control;
  control.cancelled = true;
  expect_error(kAborted, "aborted", [&] { head_cases::run(device, workspace, good, {}, {}, true, &control); });

  // A chunk that is asked for and does not fit is an error; an automatic one shrinks.
  EmulatedOptions small;
  small.free_bytes = 120000;
  EmulatedDevice small_device(small);
  HeadWorkspace small_workspace(small_device);
  Batch wide = make_batch(400, 8, 82, 1.0);
  HeadLossOptions whole;
  whole.chunk_tokens = 92;
  expect_error(kOom, "full", [&] { head_cases::run(small_device, small_workspace, wide, {}, whole); });

  Batch nothing;
  nothing.hidden_size = 8;
  nothing.vocabulary = 31;
  nothing.head_VH = good.head_VH;
  CHECK(head_cases::run(device, workspace, nothing, {}, {}).result.loss == 0);
}

// Where memory is short, an automatic chunk is smaller.
void automatic_chunks() {
  const Batch batch = make_batch(400, 8, 82, 1.0);
  const auto exact = head_cases::exact_loss(batch, {});
  for (const size_t free : {size_t{1} << 30, size_t{150000}}) {
    EmulatedOptions small;
    small.free_bytes = free;
    EmulatedDevice device(small);
    HeadWorkspace workspace(device);
    head_cases::Worst worst;
    const auto outcome = head_cases::run(device, workspace, batch, {}, {});
    head_cases::compare(outcome, exact, batch, "automatic chunk", true, worst);
    const auto rows = std::count(batch.mask.begin(), batch.mask.end(), 1);
    CHECK(workspace.slot_bytes(HeadWorkspace::kLogits) == static_cast<size_t>(free > 150000 ? rows : 32) * 1600);
  }
}

}  // namespace

int main() {
  waits_and_memory();
  masked_rows();
  gradients_add_up();
  two_halves();
  parts();
  errors();
  automatic_chunks();
  EmulatedDevice device;
  head_cases::check_all(device, 131, 8);
  return check::finish();
}
