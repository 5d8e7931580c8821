// The primitives of the GPU kernels (kernels/gpu_primitives.cuh) on the CPU: every GPU thread is a fiber, so that the
// kernels' own source runs, thread by thread, between barriers. One cluster runs at a time; its threads take turns,
// and each runs until it waits. What real hardware leaves open is made visible: shared memory begins as NaN; an
// asynchronous copy leaves NaN in its place until the thread waits for it, and reads its source only then; threads
// that wait at different barriers for ever end the program.
#pragma once
#undef _FORTIFY_SOURCE  // its longjmp refuses to jump between stacks
#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define ARCHER_DEVICE inline
#define ARCHER_UNROLL

namespace archer {

inline float bf16_to_float(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

}  // namespace archer

namespace archer::gpu {

struct alignas(16) Float4 { float x, y, z, w; };
struct alignas(16) Word4 { uint32_t x, y, z, w; };
struct alignas(8) Word2 { uint32_t x, y; };
struct Bf16 { uint16_t bits; };

namespace emulation {

// Where threads of one group wait for each other.
struct Barrier {
  int size = 0, arrived = 0;
  uint64_t generation = 0;
};

struct Copy { void* to; const void* from; size_t bytes; int commit; };

struct Block {
  std::vector<char> shared;
  char* base = nullptr;
  Barrier barrier;
  std::vector<Barrier> warps;
  std::vector<Word4> exchange;  // [threads], what a thread shows the others of its warp
};

struct Fiber {
  int block = 0, thread = 0;    // block of the cluster
  bool begun = false, done = false;
  std::unique_ptr<char[]> stack;
  ucontext_t start{};
  jmp_buf at{};
  std::vector<Copy> copies;
  int commits = 0;
  Barrier* waits = nullptr;     // runs on once the barrier's generation is beyond `seen`
  uint64_t seen = 0;
};

// Who goes on first among those that may: a missing barrier may show in one order alone.
enum class Order {
  in_turn,      // every thread once, then again
  reversed,     // the same from the last thread to the first
  first_block,  // a block runs until all its threads wait, then the next one
  last_block,   // the same from the last block to the first
};

class Machine {
 public:
  static Machine*& current() {
    static Machine* machine = nullptr;
    return machine;
  }

  // Runs `body` on num_blocks blocks of num_threads threads, `cluster` of them at a time.
  void launch(int num_blocks, int num_threads, int cluster, size_t shared_bytes, const std::function<void()>& body) {
    num_blocks_ = num_blocks;
    num_threads_ = num_threads;
    body_ = &body;
    current() = this;
    prepare(cluster, shared_bytes);
    for (first_block_ = 0; first_block_ < num_blocks; first_block_ += cluster) run_cluster();
    current() = nullptr;
  }

  Order order = Order::in_turn;

  Fiber& fiber() { return *running_; }
  Block& block() { return blocks_[static_cast<size_t>(running_->block)]; }
  Block& peer(int rank) { return blocks_[static_cast<size_t>(rank)]; }
  int block_rank() const { return first_block_ + running_->block; }
  int num_blocks() const { return num_blocks_; }
  Barrier& cluster_barrier() { return cluster_; }

  void wait(Barrier& barrier) {
    Fiber& self = *running_;
    self.waits = &barrier;
    self.seen = barrier.generation;
    if (++barrier.arrived == barrier.size) {
      barrier.arrived = 0;
      ++barrier.generation;
    }
    if (_setjmp(self.at) == 0) leave();
    arrived_at_fiber();
    self.waits = nullptr;
  }

 private:
  static constexpr size_t kStackBytes = size_t{64} << 10;

  void prepare(int cluster, size_t shared_bytes) {
    blocks_.assign(static_cast<size_t>(cluster), Block{});
    for (Block& block : blocks_) {
      block.shared.resize(shared_bytes + 128);
      const auto address = reinterpret_cast<uintptr_t>(block.shared.data());
      block.base = block.shared.data() + (128 - address % 128) % 128;
      block.barrier.size = num_threads_;
      block.warps.resize(static_cast<size_t>((num_threads_ + 31) / 32));
      for (Barrier& warp : block.warps) warp.size = 32;
      block.exchange.resize(static_cast<size_t>(num_threads_));
    }
    cluster_ = Barrier{};
    cluster_.size = num_threads_ * cluster;
    const auto count = static_cast<size_t>(num_threads_ * cluster);
    if (fibers_.size() < count) fibers_.resize(count);
    num_fibers_ = count;
  }

  void run_cluster() {
    for (Block& block : blocks_) std::memset(block.shared.data(), 0xFF, block.shared.size());
    for (size_t f = 0; f < num_fibers_; ++f) {
      Fiber& fiber = fibers_[f];
      fiber.block = static_cast<int>(f) / num_threads_;
      fiber.thread = static_cast<int>(f) % num_threads_;
      fiber.begun = fiber.done = false;
      fiber.waits = nullptr;
      fiber.copies.clear();
      fiber.commits = 0;
      if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
    }
    const bool backwards = order == Order::reversed || order == Order::last_block;
    const bool by_block = order == Order::first_block || order == Order::last_block;
    const size_t num_turns = by_block ? blocks_.size() : 1, per_turn = num_fibers_ / num_turns;
    for (size_t left = num_fibers_; left > 0;) {
      const size_t progress_before = steps_;
      for (size_t turn = 0; turn < num_turns; ++turn) {
        for (size_t before = steps_ - 1; before != steps_ && left > 0;) {
          before = steps_;
          for (size_t f = turn * per_turn; f < (turn + 1) * per_turn; ++f) {
            Fiber& fiber = fibers_[backwards ? num_fibers_ - 1 - f : f];
            if (fiber.done || (fiber.waits && fiber.waits->generation == fiber.seen)) continue;
            ++steps_;
            enter(fiber);
            left -= fiber.done;
          }
        }
      }
      if (steps_ == progress_before) {
        std::printf("gpu emulation: %zu threads wait at barriers that the others never reach\n", left);
        std::abort();
      }
    }
  }

  void enter(Fiber& fiber) {
    running_ = &fiber;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack_, fiber.stack.get(), kStackBytes);
#endif
    if (_setjmp(scheduler_) == 0) {
      if (fiber.begun) _longjmp(fiber.at, 1);
      fiber.begun = true;
      getcontext(&fiber.start);
      fiber.start.uc_stack.ss_sp = fiber.stack.get();
      fiber.start.uc_stack.ss_size = kStackBytes;
      fiber.start.uc_link = nullptr;
      makecontext(&fiber.start, &Machine::begin, 0);
      setcontext(&fiber.start);
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
  }

  static void begin() {
    Machine& machine = *current();
    machine.arrived_at_fiber();
    (*machine.body_)();
    machine.running_->done = true;
    machine.leave();
  }

  [[noreturn]] void leave() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, scheduler_stack_, scheduler_stack_bytes_);
#endif
    _longjmp(scheduler_, 1);
  }

  void arrived_at_fiber() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
  }

  std::vector<Block> blocks_;
  std::vector<Fiber> fibers_;
  size_t num_fibers_ = 0, steps_ = 1;
  Barrier cluster_;
  Fiber* running_ = nullptr;
  jmp_buf scheduler_{};
  const std::function<void()>* body_ = nullptr;
  int num_blocks_ = 0, num_threads_ = 0, first_block_ = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
#endif
};

inline Machine& machine() { return *Machine::current(); }

inline void queue_copy(void* to, const void* from, size_t bytes) {
  Fiber& fiber = machine().fiber();
  std::memset(to, 0xFF, bytes);
  fiber.copies.push_back({to, from, bytes, fiber.commits});
}

}  // namespace emulation

inline int thread_rank() { return emulation::machine().fiber().thread; }
inline int block_rank() { return emulation::machine().block_rank(); }
inline int num_blocks() { return emulation::machine().num_blocks(); }
inline char* shared_memory() { return emulation::machine().block().base; }

inline void block_barrier() { emulation::machine().wait(emulation::machine().block().barrier); }
template <int kCluster>
void cluster_barrier() { emulation::machine().wait(emulation::machine().cluster_barrier()); }

template <int kCluster, typename T>
T* peer_shared(T* own, int rank) {
  auto& machine = emulation::machine();
  return reinterpret_cast<T*>(machine.peer(rank).base + (reinterpret_cast<char*>(own) - machine.block().base));
}

// Shows `own` to the warp's other threads; `read` gets what each of them shows.
template <typename T, typename Read>
auto with_warp(const T& own, Read read) {
  static_assert(sizeof(T) <= sizeof(Word4));
  auto& machine = emulation::machine();
  auto& block = machine.block();
  const auto thread = static_cast<size_t>(machine.fiber().thread);
  auto& warp = block.warps[thread / 32];
  std::memcpy(&block.exchange[thread], &own, sizeof own);
  machine.wait(warp);
  const auto result = read([&](int lane) {
    T shown;
    std::memcpy(&shown, &block.exchange[thread / 32 * 32 + static_cast<size_t>(lane)], sizeof shown);
    return shown;
  });
  machine.wait(warp);
  return result;
}
template <typename T>
T shuffle_xor(T value, int mask) {
  return with_warp(value, [&](auto of_lane) { return of_lane((thread_rank() % 32) ^ mask); });
}
inline float shuffle_from_0(float value) {
  return with_warp(value, [](auto of_lane) { return of_lane(0); });
}

// Products and sums in float32, in another order than a tensor core's.
inline void multiply_8x8x16(float (&sum)[2], uint32_t a_near, uint32_t a_far, uint32_t b_near, uint32_t b_far) {
  const auto dot = [](uint32_t a, uint32_t b) {
    return bf16_to_float(static_cast<uint16_t>(a)) * bf16_to_float(static_cast<uint16_t>(b)) +
           bf16_to_float(static_cast<uint16_t>(a >> 16)) * bf16_to_float(static_cast<uint16_t>(b >> 16));
  };
  const int g = thread_rank() % 32 / 4, q = thread_rank() % 4;
  const std::array<float, 2> products = with_warp(Word4{a_near, a_far, b_near, b_far}, [&](auto of_lane) {
    std::array<float, 2> of_columns{};
    for (int k = 0; k < 4; ++k) {
      const Word4 a = of_lane(4 * g + k);
      for (int j = 0; j < 2; ++j) {
        const Word4 b = of_lane(4 * (2 * q + j) + k);
        of_columns[static_cast<size_t>(j)] += dot(a.x, b.z) + dot(a.y, b.w);
      }
    }
    return of_columns;
  });
  sum[0] += products[0];
  sum[1] += products[1];
}

inline void multiply_16x8x16(float (&sum)[4], const Word4& a, uint32_t b_near, uint32_t b_far) {
  float upper[2] = {sum[0], sum[1]}, lower[2] = {sum[2], sum[3]};
  multiply_8x8x16(upper, a.x, a.z, b_near, b_far);
  multiply_8x8x16(lower, a.y, a.w, b_near, b_far);
  sum[0] = upper[0], sum[1] = upper[1], sum[2] = lower[0], sum[3] = lower[1];
}

inline Word4 load_transposed(const void* row) {
  const int g = thread_rank() % 32 / 4, q = thread_rank() % 4;
  return with_warp(row, [&](auto of_lane) {
    const auto element = [&](int block, int i, int j) {
      uint16_t bits;
      std::memcpy(&bits, static_cast<const char*>(of_lane(8 * block + i)) + j * 2, sizeof bits);
      return static_cast<uint32_t>(bits);
    };
    const auto word = [&](int block) { return element(block, 2 * q, g) | element(block, 2 * q + 1, g) << 16; };
    return Word4{word(0), word(1), word(2), word(3)};
  });
}

inline void copy_async_16(void* shared, const void* global) { emulation::queue_copy(shared, global, 16); }
inline void copy_async_element(float* shared, const float* global) { emulation::queue_copy(shared, global, 4); }
inline void copy_async_element(Bf16* shared, const Bf16* global) { *shared = *global; }
inline void copy_commit() { ++emulation::machine().fiber().commits; }
template <int kPending>
void copy_wait() {
  auto& fiber = emulation::machine().fiber();
  size_t kept = 0;
  for (const auto& copy : fiber.copies) {
    if (copy.commit < fiber.commits - kPending) {
      std::memcpy(copy.to, copy.from, copy.bytes);
    } else {
      fiber.copies[kept++] = copy;
    }
  }
  fiber.copies.resize(kept);
}

inline Word4 load_16(const void* global) {
  Word4 words;
  std::memcpy(&words, global, sizeof words);
  return words;
}
inline void store_8(void* global, const Word2& words) { std::memcpy(global, &words, sizeof words); }
inline void store_16(void* global, const Word4& words) { std::memcpy(global, &words, sizeof words); }

inline Bf16 to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {0x7FFF};  // as the GPU does
  return {static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}
inline uint32_t pack_bf16(float low, float high) {
  return to_bf16(low).bits | static_cast<uint32_t>(to_bf16(high).bits) << 16;
}

}  // namespace archer::gpu
