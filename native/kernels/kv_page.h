// The page of a KV cache: kKvPage positions of a sequence, whose keys lie in one piece [kKvPage, D] for each key/value head, and
// whose values do. A page is the block of keys in which both attention kernels work, so that a table of pages changes where a block
// is read and nothing else: the same sums in the same order as over keys in one piece.
// Position t is line t % kKvPage of page table[t / kKvPage]. Tables are plain integers: a GPU can take them as they are, and so can
// a training forward over shared prompts, with the responses' blocks of keys in place of pages: the prompt's whole blocks once for
// all responses of a group, the block in which the prompt ends and a response begins once for each response, as in the cache.
#pragma once
#include <cstdint>

namespace archer::kernels {

constexpr int64_t kKvPage = 64;

}  // namespace archer::kernels
