// See head_run.h.
#include "head/head_run.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace archer {
namespace {

constexpr int64_t kChunkBytes = int64_t{1280} << 20, kLeastRows = 2048, kMostRows = 4096, kRowTile = 128,
                  kFewestRows = 16;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Whether the tokens are neighbours in order, so that their rows of a [T, ...] matrix are one block.
bool is_range(Tokens tokens) {
  for (size_t k = 1; k < tokens.size(); ++k) {
    if (tokens[k] != tokens[k - 1] + 1) return false;
  }
  return true;
}

// Parts of one block of device memory, one after the other.
class Parts {
 public:
  template <typename T>
  T* take(int64_t count) {
    const size_t at = bytes_;
    bytes_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 256));
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  size_t bytes() const { return bytes_; }
  void place(void* base) {
    base_ = static_cast<char*>(base);
    bytes_ = 0;
  }

 private:
  char* base_ = nullptr;
  size_t bytes_ = 0;
};

int64_t choose_chunk(const HeadLossOptions& options, int64_t rows, int64_t row_bytes, HeadWorkspace& workspace) {
  if (options.chunk_tokens > 0) return options.chunk_tokens;
  int64_t most = std::clamp(kChunkBytes / row_bytes, kLeastRows, kMostRows);
  const auto held = static_cast<int64_t>(workspace.slot_bytes(HeadWorkspace::kLogits));
  if (std::min(rows, most) * row_bytes > held) {
    // Half of what is free: the products and the caller want some, too.
    const int64_t budget = static_cast<int64_t>(workspace.device().free_bytes()) / 2 + held;
    while (most > kFewestRows && std::min(rows, most) * row_bytes > budget) most /= 2;
  }
  const int64_t chunks = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::min(most, round_up(std::max<int64_t>(1, (rows + chunks - 1) / chunks), kRowTile));
}

}  // namespace

HeadWorkspace::~HeadWorkspace() {
  for (void* memory : memory_) device_.release(memory);
  device_.release_host(host_memory_);
}

void* HeadWorkspace::get_host(size_t bytes) {
  if (bytes > host_bytes_) {
    device_.release_host(host_memory_);
    host_memory_ = nullptr;
    host_bytes_ = 0;
    host_memory_ = device_.allocate_host(bytes);
    host_bytes_ = bytes;
  }
  return host_memory_;
}

void* HeadWorkspace::get(Slot slot, size_t bytes) {
  if (bytes > bytes_[slot]) {
    device_.release(memory_[slot]);  // free first: both would be alive otherwise
    memory_[slot] = nullptr;
    bytes_[slot] = 0;
    memory_[slot] = device_.allocate(bytes);
    bytes_[slot] = bytes;
  }
  return memory_[slot];
}

size_t HeadWorkspace::size_bytes() const {
  size_t sum = 0;
  for (const size_t bytes : bytes_) sum += bytes;
  return sum;
}

HeadRun::HeadRun(const DeviceHead& head, std::span<const int32_t> ids_T, double temperature,
                 std::vector<int32_t> tokens, const HeadLossOptions& options, HeadWorkspace& workspace,
                 const JobControl* control)
    : head_(head), device_(workspace.device()), workspace_(workspace), control_(control),
      tokens_(std::move(tokens)), temperature_(static_cast<float>(temperature)), logits_type_(options.logits_type),
      stride_(round_up(head.vocabulary, 8)) {
  const int64_t row_bytes = stride_ * (logits_type_ == LogitsType::float32 ? 4 : 2);
  const int64_t rows = num_rows();
  chunk_ = choose_chunk(options, rows, row_bytes, workspace);
  const int64_t most = most_rows();
  logits_ = workspace.get(HeadWorkspace::kLogits, static_cast<size_t>(most * row_bytes));
  Parts parts;
  arrays_.lay_out(parts, rows, most);
  const size_t bytes = parts.bytes();
  parts.place(workspace.get(HeadWorkspace::kRowData, bytes));
  arrays_.lay_out(parts, rows, most);

  stats_ = static_cast<RowStats*>(workspace.get_host(tokens_.size() * (sizeof(RowStats) + 1)));
  flags_ = reinterpret_cast<uint8_t*>(stats_ + tokens_.size());

  std::vector<int32_t> ids(tokens_.size());
  for (size_t k = 0; k < ids.size(); ++k) ids[k] = ids_T[static_cast<size_t>(tokens_[k])];
  upload(arrays_.tokens, tokens_);
  upload(arrays_.ids, ids);
}

void HeadRun::logits(int64_t begin, int64_t count) {
  if (control_) control_->check();
  begin_ = begin;
  count_ = count;
  hidden_ = hidden_rows(Tokens(tokens_).subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
                        arrays_.tokens + begin);
  device_.multiply_logits(hidden_, head_.head_VH, logits_, logits_type_, stride_, count, head_.hidden_size,
                          head_.vocabulary);
}

HeadRowsParams HeadRun::params() const {
  HeadRowsParams p;
  p.logits = logits_;
  p.logits_type = logits_type_;
  p.stride = stride_;
  p.vocabulary = static_cast<int32_t>(head_.vocabulary);
  p.num_rows = static_cast<int32_t>(count_);
  p.ids = arrays_.ids + begin_;
  p.temperature = temperature_;
  p.stats = arrays_.stats + begin_;
  p.flags = arrays_.flags + begin_;
  return p;
}

void HeadRun::statistics() { device_.run_rows(HeadRowsMode::statistics, params()); }

void HeadRun::queue_fetch(int64_t begin, int64_t end) {
  const auto count = static_cast<size_t>(end - begin);
  device_.download(stats_ + begin, arrays_.stats + begin, count * sizeof(RowStats));
  device_.download(flags_ + begin, arrays_.flags + begin, count);
  device_.mark();
}

void HeadRun::finish_fetch(int64_t begin, int64_t end) {
  device_.wait_for_mark();
  for (int64_t k = begin; k < end; ++k) {
    const uint8_t fault = flags_[k] & kRowFaults;
    if (fault == 0) continue;
    const std::string token = std::to_string(tokens_[static_cast<size_t>(k)]);
    throw ArcherError(kNumeric, fault & kRowNotFinite
                                    ? "The logits of token " + token + " hold NaN or +inf; the hidden state or the "
                                      "head is not finite."
                                    : "The id of token " + token + " has probability 0.");
  }
}

void HeadRun::gradient(const std::vector<int32_t>& active, const std::vector<float>& grad_log_prob,
              const std::vector<float>& grad_entropy) {
  if (active.empty()) return;
  upload(arrays_.chunk_rows, active);
  upload(arrays_.grad_log_prob, grad_log_prob);
  HeadRowsParams p = params();
  p.num_rows = static_cast<int32_t>(active.size());
  p.rows = arrays_.chunk_rows;
  p.grad_log_prob = arrays_.grad_log_prob;
  if (!grad_entropy.empty()) {
    upload(arrays_.grad_entropy, grad_entropy);
    p.grad_entropy = arrays_.grad_entropy;
  }
  device_.run_rows(HeadRowsMode::gradient, p);
  close_gaps_and_multiply(active);
}

std::vector<int32_t> HeadRun::active_rows() {
  device_.download(flags_ + begin_, arrays_.flags + begin_, static_cast<size_t>(count_));
  device_.synchronize();
  std::vector<int32_t> active;
  for (int64_t j = 0; j < count_; ++j) {
    if (flags_[begin_ + j] & kRowActive) active.push_back(static_cast<int32_t>(j));
  }
  return active;
}

void HeadRun::multiply_all() {
  multiply(hidden_, Tokens(tokens_).subspan(static_cast<size_t>(begin_), static_cast<size_t>(count_)),
           arrays_.tokens + begin_);
}

void HeadRun::close_gaps_and_multiply(const std::vector<int32_t>& active) {
  if (active.empty()) return;
  const auto num_active = static_cast<int32_t>(active.size());
  std::vector<int32_t> slots(active.size()), gaps, movers, slot_tokens(active.size());
  for (int32_t j = 0; j < num_active; ++j) slots[static_cast<size_t>(j)] = j;
  size_t next = 0;
  for (int32_t j = 0; j < num_active; ++j) {
    if (next < active.size() && active[next] == j) {
      ++next;
    } else {
      gaps.push_back(j);
    }
  }
  movers.assign(active.begin() + static_cast<std::ptrdiff_t>(next), active.end());
  for (size_t m = 0; m < gaps.size(); ++m) slots[static_cast<size_t>(gaps[m])] = movers[m];
  for (size_t j = 0; j < slots.size(); ++j) slot_tokens[j] = tokens_[static_cast<size_t>(begin_ + slots[j])];
  upload(arrays_.slot_tokens, slot_tokens);
  if (!gaps.empty()) {
    upload(arrays_.move_to, gaps);
    upload(arrays_.move_from, movers);
    CopyRowsParams p;
    p.to = logits_;
    p.from = logits_;
    p.to_pitch = p.from_pitch = gradient_stride() * 2;
    p.to_rows = arrays_.move_to;
    p.from_rows = arrays_.move_from;
    p.row_bytes = head_.vocabulary * 2;
    p.num_rows = static_cast<int32_t>(gaps.size());
    device_.copy_rows(p);
  }
  const bool as_they_were = gaps.empty();
  const uint16_t* hidden = as_they_were ? hidden_ : hidden_rows(slot_tokens, arrays_.slot_tokens);
  multiply(hidden, slot_tokens, arrays_.slot_tokens);
}

int64_t HeadRun::most_rows() const { return std::min(chunk_, std::max<int64_t>(num_rows(), 1)); }

// Hidden states of some tokens: where they lie, or gathered.
const uint16_t* HeadRun::hidden_rows(Tokens tokens, const int32_t* device_tokens) {
  if (is_range(tokens)) return head_.hidden_TH + tokens.front() * head_.hidden_size;
  const auto bytes = static_cast<size_t>(most_rows() * head_.hidden_size * 2);
  CopyRowsParams p;
  p.to = workspace_.get(HeadWorkspace::kHidden, bytes);
  p.from = head_.hidden_TH;
  p.from_rows = device_tokens;
  p.to_pitch = p.from_pitch = p.row_bytes = head_.hidden_size * 2;
  p.num_rows = static_cast<int32_t>(tokens.size());
  device_.copy_rows(p);
  return static_cast<const uint16_t*>(p.to);
}

// Both backward products over the first tokens.size() gradient rows, which belong to these tokens.
void HeadRun::multiply(const uint16_t* hidden, Tokens tokens, const int32_t* device_tokens) {
  if (control_) control_->check();
  const auto rows = static_cast<int64_t>(tokens.size());
  const auto* dlogits = static_cast<const uint16_t*>(logits_);
  device_.multiply_grad_head(dlogits, gradient_stride(), hidden, head_.grad_head_VH, rows, head_.hidden_size,
                             head_.vocabulary);
  const int64_t pitch = head_.hidden_size * (head_.grad_hidden_is_float ? 4 : 2);
  char* grad_hidden = static_cast<char*>(head_.grad_hidden_TH);
  const bool in_place = is_range(tokens);
  void* target = in_place ? grad_hidden + tokens.front() * pitch
                          : workspace_.get(HeadWorkspace::kGradHidden, static_cast<size_t>(most_rows() * pitch));
  device_.multiply_grad_hidden(dlogits, gradient_stride(), head_.head_VH, target, head_.grad_hidden_is_float, rows,
                               head_.hidden_size, head_.vocabulary);
  if (!in_place) {
    CopyRowsParams p;
    p.to = grad_hidden;
    p.from = target;
    p.to_rows = device_tokens;
    p.to_pitch = p.from_pitch = p.row_bytes = pitch;
    p.num_rows = static_cast<int32_t>(rows);
    device_.copy_rows(p);
  }
  backward_rows_ += rows;
}

}  // namespace archer
