// The scheduler. Responses run in one order, in which those expected to be longest come first; of it
//   running_    is the stretch that is decoded together,
//   preempted_  the stretch behind it: sequences that had to give their pages to older ones, their tokens kept,
//   groups_     the rest: prompts whose samples have not (all) been started, of which only the first can be open, that is
//               prefilled, with its pages and logits at hand.
// A sequence takes pages of the cache as it grows. Where none is free, the open group gives up its pages, then the youngest
// running sequence: the oldest always gets on, as the pool holds the longest sequence there can be. Room goes to the
// oldest that waits, so nobody starves; and it must leave a page for everyone who runs, so nobody is thrown out at once.
// Numbers drawn are keyed by position: when and beside whom a response runs does not change it.
#include "generate/scheduler.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/profile.h"
#include "generate/page_pool.h"
#include "generate/plan.h"
#include "generate/responses.h"

namespace archer {
namespace {

// A response that has begun: its newest token, not yet in the cache, belongs at `position`.
struct Sequence {
  int64_t response;
  int32_t token;
  int32_t position;
  PageTable pages;  // none while it is preempted, and after its end
};

struct Group {
  int64_t prompt;
  int64_t num_started = 0;
  PageTable pages;                    // of the prompt, while the group is open
  std::optional<int64_t> logits_row;  // of the decoder: every sample's first token is drawn from it
  bool is_open() const { return logits_row.has_value(); }
};

// Sequences that are prefilled together.
struct Batch {
  PackedSequences sequences{{}, {0}};
  std::vector<PrefillTarget> targets;
  bool has_space(int64_t length, int64_t max_rows) const {
    return targets.empty() || (sequences.num_tokens() + length <= kPrefillTokens &&
                               static_cast<int64_t>(targets.size()) < max_rows);
  }
};

class Generation {
 public:
  Generation(Decoder& decoder, const GenerateRequest& request, JobControl* control)
      : decoder_(decoder),
        request_(request),
        control_(control),
        num_samples_(request.num_samples),
        max_running_(std::min(most_running(request), decoder.max_rows())),
        responses_(request),
        pool_(decoder.num_pages()) {
    for (const int64_t prompt : longest_first(request)) groups_.push_back({prompt, 0, {}, {}});
    stats_.num_pages = pool_.num_free();
    if (control_) control_->total = request.prompts.num_sequences() * num_samples_ * request.max_new_tokens;
  }

  GenerateResult run() {
    for (admit(); !running_.empty(); admit()) {
      make_room();
      visit();
    }
    require(pool_.num_used() == 0, kInternal, std::to_string(pool_.num_used()) + " pages were not given back");
    stats_.most_pages = pool_.most_used();
    return responses_.flatten(stats_);
  }

 private:
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t prompt_length(int64_t prompt) const { return request_.prompts.length(prompt); }

  // How many sequences may join `num_running` ones when `num_pages` more have been taken: for each of all of them one page
  // must be left to grow into. A single one may always run.
  int64_t room(int64_t num_running, int64_t num_pages) const {
    const int64_t by_pages = pool_.num_free() - num_pages - num_running;
    return std::min(max_running_ - num_running, std::max<int64_t>(by_pages, num_running == 0 ? 1 : 0));
  }

  // ---- pages ----

  // The whole pages of a prompt as a running sample of it holds them; empty where there is none.
  Pages pages_of_sibling(int64_t prompt) const {
    for (const Sequence& sequence : running_) {
      if (sequence.response / num_samples_ != prompt) continue;
      return Pages(sequence.pages).first(static_cast<size_t>(prompt_length(prompt) / kKvPage));
    }
    return {};
  }

  // Pages for `length` positions, of which the first are shared.
  PageTable take_pages(Pages shared, int64_t length) {
    PageTable pages(shared.begin(), shared.end());
    for (const int32_t page : pages) pool_.share(page);
    while (static_cast<int64_t>(pages.size()) < pages_for(length)) pages.push_back(pool_.take());
    return pages;
  }

  void release(PageTable& pages) {
    for (const int32_t page : pages) pool_.release(page);
    pages.clear();
  }

  // Tokens that the next visit may draw for a sequence.
  int64_t tokens_ahead(const Sequence& sequence) const {
    return std::min(decoder_.tokens_per_visit(), responses_.budget(sequence.response));
  }

  // Pages of its own for the positions of the next visit; false where none is free. The page in which the prompt ends is
  // shared until a sample writes into it.
  bool reserve(Sequence& sequence) {
    const int64_t end = pages_for(sequence.position + tokens_ahead(sequence));
    for (auto index = static_cast<size_t>(sequence.position / kKvPage); static_cast<int64_t>(index) < end; ++index) {
      const bool is_new = index == sequence.pages.size();
      if (!is_new && !pool_.is_shared(sequence.pages[index])) continue;
      if (pool_.num_free() == 0) return false;
      const int32_t page = pool_.take();
      if (is_new) {
        sequence.pages.push_back(page);
      } else {
        decoder_.copy_page(sequence.pages[index], page, sequence.position % kKvPage);
        pool_.release(std::exchange(sequence.pages[index], page));
      }
    }
    return true;
  }

  void close(Group& group) {
    release(group.pages);
    group.logits_row.reset();
  }

  // Who came last gives up its pages.
  void give_way() {
    if (!groups_.empty() && groups_.front().is_open()) return close(groups_.front());
    preempted_.push_front(std::move(running_.back()));
    running_.pop_back();
    release(preempted_.front().pages);
    ++stats_.num_preemptions;
  }

  void make_room() {
    for (size_t i = 0; i < running_.size(); ++i) {
      while (i < running_.size() && !reserve(running_[i])) give_way();
    }
  }

  // ---- who runs ----

  void admit() {
    while (resume() || start()) {
    }
  }

  // Preempted sequences run on, the oldest first. Their tokens are prefilled, all but the newest, which is decoded as it
  // would have been. False where none could.
  bool resume() {
    Batch batch;
    while (!preempted_.empty()) {
      Sequence& sequence = preempted_.front();
      const int64_t prompt = sequence.response / num_samples_;
      const Pages shared = pages_of_sibling(prompt);
      const int64_t num_new = pages_for(sequence.position) - static_cast<int64_t>(shared.size());
      if (room(num_running(), num_new) <= 0 || !batch.has_space(sequence.position, decoder_.max_rows())) break;
      sequence.pages = take_pages(shared, sequence.position);
      add(batch, prompt, responses_.ids(sequence.response), sequence.pages, shared);
      running_.push_back(std::move(sequence));
      preempted_.pop_front();
    }
    if (batch.targets.empty()) return false;
    prefill(batch);
    return true;
  }

  // Samples of the open group, or else of prompts that are prefilled now. False where none could be started.
  bool start() {
    if (!preempted_.empty() || groups_.empty() || room(num_running(), 0) <= 0) return false;
    if (groups_.front().is_open()) {
      start_samples();
    } else if (!prefill_groups()) {
      return false;
    }
    while (!groups_.empty() && groups_.front().num_started == num_samples_) groups_.pop_front();
    return true;
  }

  // As many prompts as there is room for. Only the last of them can stay open: the next one joins only if room is left for
  // all samples of those before it.
  bool prefill_groups() {
    Batch batch;
    int64_t num_planned = num_running();
    for (Group& group : groups_) {
      const int64_t length = prompt_length(group.prompt);
      const Pages shared = pages_of_sibling(group.prompt);
      const int64_t num_new = pages_for(length) - static_cast<int64_t>(shared.size());
      if (room(num_planned, num_new) <= 0 || !batch.has_space(length, decoder_.max_rows())) break;
      group.pages = take_pages(shared, length);
      add(batch, group.prompt, {}, group.pages, shared);
      num_planned += num_samples_ - group.num_started;
    }
    if (batch.targets.empty()) return false;
    prefill(batch);
    for (size_t i = 0; i < batch.targets.size(); ++i) groups_[i].logits_row = static_cast<int64_t>(i);
    start_samples();
    for (Group& group : groups_) {
      if (!group.is_open()) continue;
      decoder_.keep_logits(*group.logits_row);
      group.logits_row = Decoder::kKeptRow;
      break;
    }
    return true;
  }

  // Draws first tokens of the open groups' samples, in their order and while there is room: one that ends with its first
  // token never runs, and leaves its room to the next.
  void start_samples() {
    for (;;) {
      std::vector<Draw> draws;
      std::vector<Group*> of_draws;
      int64_t left = room(num_running(), 0);
      for (Group& group : groups_) {
        if (group.num_started == num_samples_) continue;
        if (left <= 0 || !group.is_open()) break;
        for (int64_t j = group.num_started; j < num_samples_ && left > 0; ++j, --left) {
          draws.push_back(responses_.next_draw(*group.logits_row, group.prompt * num_samples_ + j));
          of_draws.push_back(&group);
        }
      }
      if (draws.empty()) return;
      const std::vector<SampledToken> tokens = decoder_.draw(draws);
      for (size_t i = 0; i < tokens.size(); ++i) {
        Group& group = *of_draws[i];
        const int64_t response = group.prompt * num_samples_ + group.num_started++, length = prompt_length(group.prompt);
        if (!accept(response, tokens[i])) {
          running_.push_back({response, tokens[i].id, static_cast<int32_t>(length), take_pages(group.pages, length)});
        }
        if (group.num_started == num_samples_) close(group);
      }
    }
  }

  // ---- the model ----

  void add(Batch& batch, int64_t prompt, const std::vector<int32_t>& generated, Pages pages, Pages shared) const {
    std::vector<int32_t>& ids = batch.sequences.ids;
    const auto begin = request_.prompts.ids.begin() + request_.prompts.offsets[prompt];
    ids.insert(ids.end(), begin, begin + prompt_length(prompt));
    if (!generated.empty()) ids.insert(ids.end(), generated.begin(), generated.end() - 1);
    batch.sequences.offsets.push_back(static_cast<int32_t>(ids.size()));
    batch.targets.push_back({pages, static_cast<int64_t>(shared.size()) * kKvPage});
  }

  void prefill(const Batch& batch) {
    decoding_.reset();
    stats_.prefill_tokens += batch.sequences.num_tokens();
    decoder_.prefill(batch.sequences, batch.targets);
  }

  void visit() {
    if (control_) control_->check();
    if (!decoding_) decoding_.emplace("decode");
    std::vector<Continuation> rows;
    int64_t num_steps = 0;
    for (const Sequence& sequence : running_) {
      rows.push_back({sequence.token, sequence.position, responses_.budget(sequence.response),
                      responses_.next_draw(0, sequence.response), sequence.pages});
      num_steps = std::max(num_steps, tokens_ahead(sequence));
    }
    stats_.decode_steps += num_steps;
    stats_.most_running = std::max(stats_.most_running, num_running());
    const std::vector<SampledToken> tokens = decoder_.decode(rows);
    const auto per_visit = static_cast<size_t>(decoder_.tokens_per_visit());
    for (size_t i = 0; i < running_.size(); ++i) {
      Sequence& sequence = running_[i];
      for (size_t t = i * per_visit; t < (i + 1) * per_visit && tokens[t].id >= 0; ++t) {
        sequence.token = tokens[t].id;
        ++sequence.position;
        if (!accept(sequence.response, tokens[t])) continue;
        release(sequence.pages);  // what it drew behind a stop string is dropped
        break;
      }
    }
    std::erase_if(running_, [](const Sequence& sequence) { return sequence.pages.empty(); });
  }

  bool accept(int64_t response, const SampledToken& token) {
    const bool is_last = responses_.accept(response, token);
    if (control_) control_->done = responses_.num_tokens();
    return is_last;
  }

  Decoder& decoder_;
  const GenerateRequest& request_;
  JobControl* control_;
  const int64_t num_samples_;
  const int64_t max_running_;
  Responses responses_;
  PagePool pool_;
  std::vector<Sequence> running_;    // oldest first, like all three
  std::deque<Sequence> preempted_;
  std::deque<Group> groups_;
  GenerateStats stats_;
  std::optional<ProfileSpan> decoding_;  // from one prefill to the next: a span per token would be too many
};

}  // namespace

GenerateResult schedule(Decoder& decoder, const GenerateRequest& request, JobControl* control) {
  return Generation(decoder, request, control).run();
}

}  // namespace archer
