// What every operator shares: tiles, threads, access to pairs laid out component by component, products of matrices.
#pragma once

#include "constants.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ampmm {

using at::Tensor;

// Pairs handled at once: their activations of 128 numbers, 128 kB an array in single precision, stay in a core's cache.
constexpr int64_t TILE = 256;

// Per-pair matrices (n, c) are stored component by component, strides (1, n): loops over pairs then run over vectors.
inline Tensor new_columns(int64_t n, int64_t c, const Tensor& like) { return at::empty({c, n}, like.options()).t(); }
inline Tensor zero_columns(int64_t n, int64_t c, const Tensor& like) { return at::zeros({c, n}, like.options()).t(); }
inline std::vector<Tensor> contiguous(std::vector<Tensor> x) {
  for (auto& each : x) each = each.contiguous();
  return x;
}
inline Tensor as_columns(const Tensor& x) { return x.dim() == 2 ? x.t().contiguous().t() : x.contiguous(); }

// The inputs as kernels read them: `a` and `b` component by component, the others row by row.
inline std::vector<Tensor> laid_out(std::vector<Tensor> in, size_t a, size_t b) {
  for (size_t k = 0; k < in.size(); ++k)
    if (in[k].defined()) in[k] = k == a || k == b ? as_columns(in[k]) : in[k].contiguous();
  return in;
}

// Component c of pairs from `first` on, of a matrix stored as above.
template <class T>
inline T* column(const Tensor& x, int64_t c, int64_t first = 0) {
  return x.defined() ? x.data_ptr<T>() + c * x.size(0) + first : nullptr;
}

// How many of n pairs to handle at once, `largest` at most: as many tiles for each thread, as few as that allows.
inline int64_t tile_size(int64_t n, int64_t largest) {
  const int64_t threads = std::max(1, at::get_num_threads()), rounds = (n + largest * threads - 1) / (largest * threads);
  const int64_t shared = (n + rounds * threads - 1) / std::max<int64_t>(1, rounds * threads);
  return std::min(largest, std::max<int64_t>(16, (shared + 15) / 16 * 16));  // whole vectors
}

// Runs f(first, count, thread) for tiles of n pairs, each thread a contiguous share, in the same order every time.
template <class F>
void for_tiles(int64_t n, int64_t largest, const F& f) {
  const int64_t tile = tile_size(n, largest), tiles = (n + tile - 1) / tile;
  at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    const int thread = at::get_thread_num();
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t * tile;
      f(first, std::min(tile, n - first), thread);
    }
  });
}

// Calls f(begin, end, i) for every run of one index i among m: lists come ordered by their centers, and what is the same for all
// pairs of a center makes loops over them vector loops.
template <class F>
inline void for_runs(const int64_t* index, int64_t m, const F& f) {
  for (int64_t begin = 0, end; begin < m; begin = end) {
    for (end = begin + 1; end < m && index[end] == index[begin];) ++end;
    f(begin, end, index[begin]);
  }
}

// A sum that every thread adds to on its own.
struct Sum {
  Tensor parts;  // (threads, ...)
  Sum() = default;
  Sum(std::vector<int64_t> shape, const Tensor& like) {
    shape.insert(shape.begin(), std::max(1, at::get_num_threads()));
    parts = at::zeros(shape, like.options());
  }
  Tensor of(int thread) const { return parts[thread]; }
  template <class T>
  T* data(int thread) const { return parts.defined() ? parts.data_ptr<T>() + thread * parts.stride(0) : nullptr; }
  Tensor total() const { return !parts.defined() ? Tensor() : parts.size(0) == 1 ? parts[0] : parts.sum(0); }
};

// out = a b, or out += a b; by torch's BLAS where its library lets others see that, without the way through the dispatcher, which
// takes as long as a small product.
void product(Tensor out, const Tensor& a, const Tensor& b);
void add_product(Tensor out, const Tensor& a, const Tensor& b);

// exp(x) to the precision of T, written so that a loop of it is vectorised. Outside of the range it saturates.
inline float exponential(float x) {
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  const float n = __builtin_rintf(x * 1.44269504088896341f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return y * scale;
}

inline double exponential(double x) {
  x = x > 709.0 ? 709.0 : x;
  x = x < -708.0 ? -708.0 : x;
  const double n = __builtin_rint(x * 1.4426950408889634074);
  const double r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  double y = 1.0 / 6227020800.0;  // Taylor: |r| <= ln 2 / 2, the rest is below 1e-17
  y = y * r + 1.0 / 479001600.0;
  y = y * r + 1.0 / 39916800.0;
  y = y * r + 1.0 / 3628800.0;
  y = y * r + 1.0 / 362880.0;
  y = y * r + 1.0 / 40320.0;
  y = y * r + 1.0 / 5040.0;
  y = y * r + 1.0 / 720.0;
  y = y * r + 1.0 / 120.0;
  y = y * r + 1.0 / 24.0;
  y = y * r + 1.0 / 6.0;
  y = y * r + 0.5;
  y = y * r + 1.0;
  y = y * r + 1.0;
  const int64_t bits = (static_cast<int64_t>(n) + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return y * scale;
}

template <class T>
inline T sigmoid(T x) { return T(1) / (T(1) + exponential(-x)); }

// Throws unless all tensors are on the CPU.
inline void check_cpu(const Tensor& x, const char* name) {
  TORCH_CHECK(x.device().is_cpu(), name, ": the native operators run on the CPU only, got a tensor on ", x.device());
}

}  // namespace ampmm
