// Memory that libtorch has freed, back to the system. glibc keeps blocks below 32 MiB, and most buffers of a forward are: what one
// phase of a step has used would stay beside what the next one needs.
#pragma once
#include <malloc.h>

namespace archer {

inline void return_freed_memory() { malloc_trim(0); }

}  // namespace archer
