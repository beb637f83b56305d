// How kernels are launched: on the GPU; or, where the library is built for tests (AMPMM_EMULATED_GPU), on the CPU, a block at a time,
// its threads taking turns from one barrier to the next.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#ifdef AMPMM_EMULATED_GPU

#include <functional>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__  // in attributes of the standard library, too: nothing may stand for it
#define __shared__ static  // blocks run one after another
#define __align__(n) alignas(n)

namespace ampmm::gpu {

struct Place {
  int x = 0;
};
extern Place threadIdx, blockIdx, blockDim, gridDim;

void run_block(int threads, const std::function<void()>& thread);
void __syncthreads();

template <class T>
inline T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}

template <class Kernel, class... Arguments>
void launch(const at::Tensor&, Kernel kernel, int64_t blocks, int threads, const Arguments&... arguments) {
  gridDim.x = static_cast<int>(blocks);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<int>(block);
    run_block(threads, [&] { kernel(arguments...); });
  }
}

template <class T>
inline void sine_cosine_of_pi(T d, T* s, T* c) {
  *s = std::sin(T(3.14159265358979323846) * d);
  *c = std::cos(T(3.14159265358979323846) * d);
}

}  // namespace ampmm::gpu

#else

#include <c10/cuda/CUDAStream.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

namespace ampmm::gpu {

// On the device of `like`, in torch's current stream, so that a CUDA graph records it.
template <class... Parameters, class... Arguments>
void launch(const at::Tensor& like, void (*kernel)(Parameters...), int64_t blocks, int threads, const Arguments&... arguments) {
  if (blocks == 0) return;
  const c10::cuda::CUDAGuard guard(like.device());
  kernel<<<static_cast<unsigned>(blocks), threads, 0, c10::cuda::getCurrentCUDAStream()>>>(arguments...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

__device__ __forceinline__ void sine_cosine_of_pi(float d, float* s, float* c) { sincospif(d, s, c); }
__device__ __forceinline__ void sine_cosine_of_pi(double d, double* s, double* c) { sincospi(d, s, c); }

}  // namespace ampmm::gpu

#endif

namespace ampmm::gpu {

using at::Tensor;

inline int64_t blocks_of(int64_t n, int64_t each) { return (n + each - 1) / each; }

// The pointer of a tensor that may be undefined.
template <class T>
inline T* data(const Tensor& x) {
  return x.defined() ? x.data_ptr<std::remove_const_t<T>>() : nullptr;
}

template <class T>
__device__ __forceinline__ T silu(T x) {
  return x / (T(1) + exp(-x));
}

template <class T>
__device__ __forceinline__ T silu_slope(T x) {
  const T s = T(1) / (T(1) + exp(-x));
  return s * (T(1) + x * (T(1) - s));
}

}  // namespace ampmm::gpu
