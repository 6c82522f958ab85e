// Lets g++ compile a CUDA C source, to run it on the CPU: see cuda_emu.cpp.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

using std::tanh;
struct dim3 { unsigned x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };

extern "C" {
const dim3* emu_thread();
const dim3* emu_block();
extern dim3 emu_block_size, emu_grid_size;
void* emu_shared();
void emu_syncthreads(int line);
// Hand `value` to the lane `source` turns to, and take that of lane `source`.
double emu_shuffle(double value, unsigned source, int line);
unsigned emu_lane();
}
#define threadIdx (*emu_thread())
#define blockIdx (*emu_block())
#define blockDim emu_block_size
#define gridDim emu_grid_size
#define DYNAMIC_SHARED(type, name) type* name = (type*)emu_shared()
#define __syncthreads() emu_syncthreads(__LINE__)
#define __shfl_xor_sync(mask, value, with) (float)emu_shuffle(value, emu_lane() ^ (with), __LINE__)
#define __shfl_sync(mask, value, source, width) \
  (float)emu_shuffle(value, (emu_lane() & ~((width) - 1u)) + (source), __LINE__)

namespace emu {
template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*(std::decay_t<A>*)arguments[I]...);
}
template <class... A>
void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<A...>());
}
}  // namespace emu
#define EMU_EXPORT(kernel) \
  extern "C" void emu_run_##kernel(void** arguments) { emu::call(kernel, arguments); }
