// Spans: nothing while profiling is off, in the order of their ends while it is on, bounded where nobody fetches them.
#include "core/profile.h"

#include <string>

#include "check.h"

using namespace archer;

int main() {
  int64_t lost = -1;
  { const ProfileSpan unseen("off"); }
  CHECK(Profile::take(lost).empty() && lost == 0);

  Profile::switch_on(true);
  {
    const ProfileSpan outer("outer");
    const ProfileSpan inner("inner", 3);
  }
  const std::vector<Span> spans = Profile::take(lost);
  CHECK(spans.size() == 2 && lost == 0);
  CHECK(std::string(spans[0].name) == "inner" && spans[0].index == 3);
  CHECK(std::string(spans[1].name) == "outer" && spans[1].index == -1);
  CHECK(spans[1].begin_ns <= spans[0].begin_ns && spans[0].begin_ns <= spans[0].end_ns && spans[0].end_ns <= spans[1].end_ns);
  CHECK(Profile::take(lost).empty());

  for (size_t i = 0; i < Profile::kMostSpans + 5; ++i) const ProfileSpan one("many");
  CHECK(Profile::take(lost).size() == Profile::kMostSpans);
  CHECK(lost == 5);

  // A span that began before profiling was switched off still counts; one that began while it was off does not.
  {
    const ProfileSpan begun("begun");
    Profile::switch_on(false);
    const ProfileSpan unseen("off");
  }
  CHECK(Profile::take(lost).size() == 1);
  return check::finish();
}
