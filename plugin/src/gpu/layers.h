// What the networks of pairs and of atoms share: a block takes R rows through all layers, a product of matrices after the other.
#pragma once

#include "launch.h"
#include "operators.h"

namespace ampmm::gpu {

constexpr int WIDTH = static_cast<int>(MAX_WIDTH), CHUNK = 32;
constexpr int THREADS = 2 * WIDTH;  // one for each column of one half of the rows

template <class T>
struct __align__(4 * sizeof(T)) Four {
  T v[4];
};

// What a block shares. `rows` holds what one layer gives to the next.
template <class T, int R>
struct Workspace {
  T weights[CHUNK][WIDTH + 1];
  __align__(32) T x[R][CHUNK + 4];
  T rows[R][WIDTH + 4];
};

__device__ __forceinline__ int own_column() { return threadIdx.x % WIDTH; }
template <int R>
__device__ __forceinline__ int own_row(int r) {
  return threadIdx.x / WIDTH * (R / 2) + r;
}

// A Linear's weight (n_out, n_in), or the part of it from some column on, as the right-hand side of a product.
template <class T>
struct Weight {
  const T* data;
  int stride;     // n_in of the whole
  bool backward;  // y = x W in the place of y = x W^T
  __device__ T operator()(int k, int column) const { return backward ? data[k * stride + column] : data[column * stride + k]; }
};

// acc[r] += sum over k of x(row, k) weight(k, column), for the thread's rows and its column, chunk by chunk of k: while one is multiplied
// the next is on its way from memory. All threads of the block have to come here; x may read `rows`.
template <class T, int R, class X>
__device__ void multiply(T (&acc)[R / 2], Workspace<T, R>& s, int K, int n_columns, const X& x, const Weight<T>& weight) {
  constexpr int HELD = CHUNK * WIDTH / THREADS, HELD_X = (R * CHUNK + THREADS - 1) / THREADS;
  T held[HELD], held_x[HELD_X];
  const int t = threadIdx.x;
  const auto fetch = [&](int k0) {
    for (int i = 0; i < HELD; ++i) {
      const int at = i * THREADS + t, k = k0 + (weight.backward ? at / WIDTH : at % CHUNK), column = weight.backward ? at % WIDTH : at / CHUNK;
      held[i] = k < K && column < n_columns ? weight(k, column) : T(0);
    }
    for (int i = 0; i < HELD_X; ++i) {
      const int at = i * THREADS + t, k = k0 + at % CHUNK;
      held_x[i] = at < R * CHUNK && k < K ? x(at / CHUNK, k) : T(0);
    }
  };
  __syncthreads();
  fetch(0);
  for (int k0 = 0; k0 < K; k0 += CHUNK) {
    for (int i = 0; i < HELD; ++i) {
      const int at = i * THREADS + t;
      if (weight.backward)
        s.weights[at / WIDTH][at % WIDTH] = held[i];
      else
        s.weights[at % CHUNK][at / CHUNK] = held[i];
    }
    for (int i = 0; i < HELD_X; ++i) {
      const int at = i * THREADS + t;
      if (at < R * CHUNK) s.x[at / CHUNK][at % CHUNK] = held_x[i];
    }
    __syncthreads();
    if (k0 + CHUNK < K) fetch(k0 + CHUNK);
    for (int k = 0; k < CHUNK; k += 4) {
      T w[4];
      for (int i = 0; i < 4; ++i) w[i] = s.weights[k + i][own_column()];
      for (int r = 0; r < R / 2; ++r) {
        const Four<T> own = *reinterpret_cast<const Four<T>*>(&s.x[own_row<R>(r)][k]);
        acc[r] += own.v[0] * w[0] + own.v[1] * w[1] + own.v[2] * w[2] + own.v[3] * w[3];
      }
    }
    __syncthreads();
  }
}

template <class T, int R>
__device__ __forceinline__ void clear(T (&acc)[R]) {
  for (int r = 0; r < R; ++r) acc[r] = 0;
}

}  // namespace ampmm::gpu
