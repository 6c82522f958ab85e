// Runs CUDA kernels that g++ compiled against cuda_emu.h, one block after the other.
//
// Every thread of a block is a fiber. Fibers switch only where threads wait for each other, at
// __syncthreads and at shuffles, and the order is unfair on purpose: a warp runs until all of its threads
// wait for another warp, and the warp that opens a barrier runs on alone to the next one. So a barrier
// that is missing shows as a wrong result. seed 0: the first warp and lane first; 1: the last first; else
// in random order.
//
// Shared memory starts as NaN, and what lies behind it is watched. A barrier that threads reach from different lines, one that some never
// reach, and a shuffle whose partner is elsewhere end the launch with a message. What cannot be
// seen here: the ordering of memory accesses within a warp, bank conflicts, and speed.
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <ucontext.h>
#include <vector>

#include "cuda_emu.h"

namespace {
constexpr size_t STACK = 128 << 10, GUARD = 4096;
constexpr char MARK = 0x5a;

struct Barrier {
  unsigned needed = 0, arrived = 0, opened = 0;
};
struct Warp {
  Barrier barrier;
  double value[32];
  int line[32];
};
struct Fiber {
  jmp_buf at;
  ucontext_t start;
  dim3 thread;
  unsigned lane;
  Warp* warp;
  bool started = false, done = false;
  const Barrier* waits = nullptr;
  unsigned since;  // how often the barrier had opened when the wait began
};

jmp_buf scheduler;
Fiber* current;
dim3 block;
Barrier block_barrier;
int barrier_line;
char* shared;
void (*body)(void**);
void** body_arguments;
const char* failure;
uint64_t random_state;

[[noreturn]] void fail(const char* message) {
  failure = message;
  _longjmp(scheduler, 1);
}

// Every thread that has not ended must arrive; the last one opens the barrier.
void arrive(Barrier& b) {
  Fiber* const me = current;
  if (++b.arrived == b.needed) {
    b.arrived = 0;
    b.opened++;
    return;
  }
  me->waits = &b;
  me->since = b.opened;
  if (!_setjmp(me->at)) _longjmp(scheduler, 1);
  me->waits = nullptr;
}

void leave(Barrier& b) {
  if (--b.needed && b.arrived == b.needed) {
    b.arrived = 0;
    b.opened++;
  }
}

void fiber_main() {
  body(body_arguments);
  current->done = true;
  leave(block_barrier);
  leave(current->warp->barrier);
  _longjmp(scheduler, 1);
}

void resume(Fiber* f) {
  current = f;
  if (_setjmp(scheduler)) return;
  if (f->started) _longjmp(f->at, 1);
  f->started = true;
  setcontext(&f->start);
}

unsigned below(unsigned n) {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (random_state >> 33) % n;
}

void run_block(std::vector<Fiber>& fibers, unsigned warps, int seed) {
  const unsigned threads = fibers.size();
  std::vector<unsigned> order(warps);
  for (unsigned left = threads; left && !failure;) {
    bool any = false;
    for (unsigned i = 0; i < warps; i++) order[i] = seed == 1 ? warps - 1 - i : i;
    if (seed > 1)
      for (unsigned i = warps; i > 1; i--) std::swap(order[i - 1], order[below(i)]);
    for (unsigned w : order) {
      const unsigned first = w * 32, count = threads - first < 32 ? threads - first : 32;
      for (bool moved = true; moved && !failure;) {
        moved = false;
        const unsigned turn = seed > 1 ? below(count) : 0;
        for (unsigned q = 0; q < count && !failure; q++) {
          Fiber* const f = &fibers[first + (seed == 1 ? count - 1 - q : (q + turn) % count)];
          if (f->done || (f->waits && f->waits->opened == f->since)) continue;
          moved = any = true;
          resume(f);
          left -= f->done;
        }
      }
    }
    if (!any) failure = "deadlock: some threads wait at a barrier that the others never reach";
  }
}
}  // namespace

extern "C" {
dim3 emu_block_size, emu_grid_size;
const dim3* emu_thread() { return &current->thread; }
const dim3* emu_block() { return &block; }
void* emu_shared() { return shared; }
unsigned emu_lane() { return current->lane; }

void emu_syncthreads(int line) {
  if (block_barrier.arrived == 0) barrier_line = line;
  if (barrier_line != line) fail("divergent __syncthreads: threads reach it from different lines");
  arrive(block_barrier);
}

double emu_shuffle(double value, unsigned source, int line) {
  Warp* const w = current->warp;
  const unsigned lane = current->lane;
  w->value[lane] = value;
  w->line[lane] = line;
  arrive(w->barrier);
  if (source > 31 || w->line[source] != line) fail("shuffle with a lane that is at another line or absent");
  const double result = w->value[source];
  arrive(w->barrier);
  return result;
}

// Return null, or what went wrong.
const char* emu_launch(void (*kernel)(void**), void** arguments, const unsigned* grid,
                       const unsigned* threads, size_t shared_bytes, int seed) {
  emu_grid_size = {grid[0], grid[1], grid[2]};
  emu_block_size = {threads[0], threads[1], threads[2]};
  body = kernel;
  body_arguments = arguments;
  failure = nullptr;
  random_state = 0x9e3779b97f4a7c15ull * (seed + 1);
  const unsigned n = threads[0] * threads[1] * threads[2], blocks = grid[0] * grid[1] * grid[2];
  std::unique_ptr<char[]> stacks(new char[n * STACK]);
  std::vector<char> memory(shared_bytes + 16 + GUARD);
  shared = (char*)(((uintptr_t)memory.data() + 15) / 16 * 16);
  for (unsigned k = 0; k < blocks && !failure; k++) {
    const unsigned id = seed == 1 ? blocks - 1 - k : k;
    block = {id % grid[0], id / grid[0] % grid[1], id / grid[0] / grid[1]};
    std::memset(shared, 0xff, shared_bytes);
    std::memset(shared + shared_bytes, MARK, GUARD);
    block_barrier = {n};
    std::vector<Warp> warps((n + 31) / 32);
    for (auto& w : warps) std::memset(w.line, 0, sizeof w.line);
    std::vector<Fiber> fibers(n);
    for (unsigned t = 0; t < n; t++) {
      Fiber& f = fibers[t];
      f.thread = {t % threads[0], t / threads[0] % threads[1], t / threads[0] / threads[1]};
      f.lane = t % 32;
      f.warp = &warps[t / 32];
      f.warp->barrier.needed++;
      getcontext(&f.start);
      f.start.uc_stack.ss_sp = &stacks[t * STACK];
      f.start.uc_stack.ss_size = STACK;
      f.start.uc_link = nullptr;
      makecontext(&f.start, fiber_main, 0);
    }
    run_block(fibers, warps.size(), seed);
    for (size_t i = 0; i < GUARD && !failure; i++)
      if (shared[shared_bytes + i] != MARK) failure = "a write beyond the end of shared memory";
  }
  return failure;
}
}
