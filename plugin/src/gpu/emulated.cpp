// The threads of an emulated block, as fibers of one thread of the CPU.
#ifdef AMPMM_EMULATED_GPU

#include "launch.h"

#include <ucontext.h>

#include <memory>
#include <vector>

namespace ampmm::gpu {

Place threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t STACK = 64 * 1024;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = true;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
const std::function<void()>* work = nullptr;

void run_fiber(int k) {
  (*work)();
  fibers[k].done = true;
  swapcontext(&fibers[k].context, &scheduler);
}

}  // namespace

void __syncthreads() { swapcontext(&fibers[threadIdx.x].context, &scheduler); }

void run_block(int threads, const std::function<void()>& thread) {
  work = &thread;
  blockDim.x = threads;
  if (fibers.size() < static_cast<size_t>(threads)) fibers = std::vector<Fiber>(threads);  // nobody runs now
  for (int k = 0; k < threads; ++k) {
    Fiber& own = fibers[k];
    if (!own.stack) own.stack.reset(new char[STACK]);
    getcontext(&own.context);
    own.context.uc_stack.ss_sp = own.stack.get();
    own.context.uc_stack.ss_size = STACK;
    own.context.uc_link = nullptr;
    own.done = false;
    makecontext(&own.context, reinterpret_cast<void (*)()>(run_fiber), 1, k);
  }
  for (bool running = true, upwards = true; running; upwards = !upwards) {
    int waiting = 0, finished = 0;
    for (int turn = 0; turn < threads; ++turn) {
      const int k = upwards ? turn : threads - 1 - turn;  // a barrier that is missing then shows
      if (fibers[k].done) continue;
      threadIdx.x = k;
      swapcontext(&scheduler, &fibers[k].context);
      ++(fibers[k].done ? finished : waiting);
    }
    TORCH_CHECK(!waiting || !finished, "some threads of a block ended while others waited at a barrier");
    running = waiting > 0;
  }
}

}  // namespace ampmm::gpu

#endif
