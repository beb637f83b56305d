// The networks of pairs, with their sum over the pairs of an atom.
#include "layers.h"

#include "../constants.h"

#include <ATen/Dispatch.h>

namespace ampmm::gpu {
namespace {

constexpr int ORDERS = MAX_ORDER + 1;

// Pointers may be null where a tensor is not there. C: columns of the sum.
template <class T>
struct PairArguments {
  int n, n_features, n_leading, H, n_coefficients, lowest, C;
  const T *features, *leading, *center_part, *neighbor_part, *scale, *tensors, *w1, *w2, *b2, *w3;
  const int64_t *centers, *neighbors;
  T *z1, *z2, *coefficients;
  int stride;  // columns of w1; leading ones come first
  int first_column;  // of w1, that belongs to `features`
  __device__ int component(int k) const { return (lowest + k) * (lowest + k); }  // the first one of coefficient k
};

template <class T, int R>
__global__ void pair_sum_kernel(PairArguments<T> a, T* y) {
  __shared__ Workspace<T, R> s;
  __shared__ T scaled[R][ORDERS];
  const int first = blockIdx.x * R, h = own_column(), m = a.n - first < R ? a.n - first : R;
  T acc[R / 2];
  clear(acc);
  if (a.leading)
    multiply(acc, s, a.n_leading, a.H, [&](int row, int k) { return row < m ? a.leading[static_cast<int64_t>(first + row) * a.n_leading + k] : T(0); },
             Weight<T>{a.w1, a.stride, false});
  multiply(acc, s, a.n_features, a.H, [&](int row, int k) { return row < m ? a.features[static_cast<int64_t>(first + row) * a.n_features + k] : T(0); },
           Weight<T>{a.w1 + a.first_column, a.stride, false});
  for (int r = 0; r < R / 2; ++r) {
    const int row = own_row<R>(r), p = first + row;
    T value = 0;
    if (row < m && h < a.H) {
      const T z = acc[r] + a.center_part[a.centers[p] * a.H + h] + (a.neighbor_part ? a.neighbor_part[a.neighbors[p] * a.H + h] : T(0));
      if (a.z1) a.z1[static_cast<int64_t>(p) * a.H + h] = z;
      value = silu(z);
    }
    s.rows[row][h] = value;
  }
  clear(acc);
  multiply(acc, s, a.H, a.H, [&](int row, int k) { return s.rows[row][k]; }, Weight<T>{a.w2, a.H, false});
  for (int r = 0; r < R / 2; ++r) {
    const int row = own_row<R>(r), p = first + row;
    T value = 0;
    if (row < m && h < a.H) {
      const T z = acc[r] + a.b2[h];
      if (a.z2) a.z2[static_cast<int64_t>(p) * a.H + h] = z;
      value = silu(z);
    }
    s.rows[row][h] = value;
  }
  __syncthreads();
  if (!a.w3) {  // messages
    T sum = 0;
    for (int r = 0; r < R / 2; ++r) {
      const int row = own_row<R>(r), p = first + row;
      if (row >= m || h >= a.H) break;
      sum += a.scale[p] * s.rows[row][h];
      if (r + 1 == R / 2 || row + 1 == m || a.centers[p + 1] != a.centers[p]) {
        atomicAdd(y + a.centers[p] * a.H + h, sum);
        sum = 0;
      }
    }
    return;
  }
  for (int at = threadIdx.x; at < R * a.n_coefficients; at += THREADS) {
    const int row = at / a.n_coefficients, k = at % a.n_coefficients, p = first + row;
    if (row >= m) continue;
    T sum = 0;
    for (int j = 0; j < a.H; ++j) sum += s.rows[row][j] * a.w3[k * a.H + j];
    if (a.coefficients) a.coefficients[p * a.n_coefficients + k] = sum;
    scaled[row][k] = sum * a.scale[p];
  }
  __syncthreads();
  const int c = threadIdx.x;
  if (c >= a.C || c < a.component(0)) return;
  int k = 0;
  while (a.component(k + 1) <= c) ++k;
  T sum = 0;
  for (int row = 0; row < m; ++row) {
    const int p = first + row;
    sum += scaled[row][k] * a.tensors[p * a.C + c];
    if (row + 1 == m || a.centers[p + 1] != a.centers[p]) {
      atomicAdd(y + a.centers[p] * a.C + c, sum);
      sum = 0;
    }
  }
}

template <class T>
struct PairGradients {
  T *features, *leading, *center_part, *neighbor_part, *scale, *tensors;
};

template <class T, int R>
__global__ void pair_sum_backward_kernel(PairArguments<T> a, const T* by, PairGradients<T> to) {
  __shared__ Workspace<T, R> s;
  __shared__ T by_coefficients[R][ORDERS];
  const int first = blockIdx.x * R, h = own_column(), m = a.n - first < R ? a.n - first : R;
  if (a.w3) {
    for (int at = threadIdx.x; at < R * a.n_coefficients; at += THREADS) {
      const int row = at / a.n_coefficients, k = at % a.n_coefficients, p = first + row;
      T sum = 0;
      if (row < m) {
        const T factor = a.coefficients[p * a.n_coefficients + k] * a.scale[p];
        for (int c = a.component(k); c < a.component(k + 1); ++c) {
          const T g = by[a.centers[p] * a.C + c];
          sum += g * a.tensors[p * a.C + c];
          if (to.tensors) to.tensors[p * a.C + c] = g * factor;
        }
      }
      by_coefficients[row][k] = sum;
    }
    __syncthreads();
    const int p = first + threadIdx.x;
    if (static_cast<int>(threadIdx.x) < m) {
      T sum = 0;
      for (int k = 0; k < a.n_coefficients; ++k) sum += by_coefficients[threadIdx.x][k] * a.coefficients[p * a.n_coefficients + k];
      if (to.scale) to.scale[p] = sum;
      if (to.tensors)
        for (int c = 0; c < a.component(0); ++c) to.tensors[p * a.C + c] = 0;
    }
  } else {
    for (int r = 0; r < R / 2; ++r) {
      const int row = own_row<R>(r), p = first + row;
      s.rows[row][h] = row < m && h < a.H ? by[a.centers[p] * a.H + h] * silu(a.z2[static_cast<int64_t>(p) * a.H + h]) : T(0);
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < m && to.scale) {
      T sum = 0;
      for (int j = 0; j < a.H; ++j) sum += s.rows[threadIdx.x][j];
      to.scale[first + threadIdx.x] = sum;
    }
    __syncthreads();
  }
  for (int r = 0; r < R / 2; ++r) {  // by the argument of the second activation
    const int row = own_row<R>(r), p = first + row;
    T value = 0;
    if (row < m && h < a.H) {
      if (a.w3)
        for (int k = 0; k < a.n_coefficients; ++k) value += by_coefficients[row][k] * a.w3[k * a.H + h];
      else
        value = by[a.centers[p] * a.H + h];
      value *= a.scale[p] * silu_slope(a.z2[static_cast<int64_t>(p) * a.H + h]);
    }
    s.rows[row][h] = value;
  }
  T acc[R / 2];
  clear(acc);
  multiply(acc, s, a.H, a.H, [&](int row, int k) { return s.rows[row][k]; }, Weight<T>{a.w2, a.H, true});
  T sum = 0;
  for (int r = 0; r < R / 2; ++r) {
    const int row = own_row<R>(r), p = first + row;
    T value = 0;
    if (row < m && h < a.H) {
      value = acc[r] * silu_slope(a.z1[static_cast<int64_t>(p) * a.H + h]);
      if (to.neighbor_part) atomicAdd(to.neighbor_part + a.neighbors[p] * a.H + h, value);
      sum += value;
      if (r + 1 == R / 2 || row + 1 == m || a.centers[p + 1] != a.centers[p]) {
        if (to.center_part) atomicAdd(to.center_part + a.centers[p] * a.H + h, sum);
        sum = 0;
      }
    }
    s.rows[row][h] = value;
  }
  const int from = to.leading ? 0 : a.n_leading, end = a.n_leading + (to.features ? a.n_features : 0);
  for (int f0 = from; f0 < end; f0 += WIDTH) {
    clear(acc);
    // Without leading features their columns of w1 are passed over.
    const T* w = a.w1 + (a.leading ? f0 : a.first_column + f0);
    multiply(acc, s, a.H, end - f0, [&](int row, int k) { return s.rows[row][k]; }, Weight<T>{w, a.stride, true});
    const int f = f0 + h;
    for (int r = 0; r < R / 2; ++r) {
      const int row = own_row<R>(r);
      const int64_t p = first + row;
      if (row >= m || f >= end) continue;
      if (f < a.n_leading)
        to.leading[p * a.n_leading + f] = acc[r];
      else
        to.features[p * a.n_features + f - a.n_leading] = acc[r];
    }
  }
}

template <class T>
PairArguments<T> pair_arguments(const Tensors& in, int64_t lowest, const Tensors& kept) {
  const Tensor &features = in[0], &leading = in[1], &w1 = in[8], &w3 = in[11];
  PairArguments<T> a;
  a.n = static_cast<int>(features.size(0));
  a.n_features = static_cast<int>(features.size(1));
  a.n_leading = leading.defined() ? static_cast<int>(leading.size(1)) : 0;
  a.H = static_cast<int>(in[9].size(0));
  a.n_coefficients = w3.defined() ? static_cast<int>(w3.size(0)) : 0;
  a.lowest = static_cast<int>(lowest);
  a.C = w3.defined() ? static_cast<int>(in[7].size(1)) : a.H;
  a.features = data<const T>(features);
  a.leading = data<const T>(leading);
  a.center_part = data<const T>(in[2]);
  a.neighbor_part = data<const T>(in[3]);
  a.centers = data<const int64_t>(in[4]);
  a.neighbors = data<const int64_t>(in[5]);
  a.scale = data<const T>(in[6]);
  a.tensors = data<const T>(in[7]);
  a.w1 = data<const T>(w1);
  a.w2 = data<const T>(in[9]);
  a.b2 = data<const T>(in[10]);
  a.w3 = data<const T>(w3);
  a.z1 = data<T>(kept[0]);
  a.z2 = data<T>(kept[1]);
  a.coefficients = data<T>(kept[2]);
  a.stride = static_cast<int>(w1.size(1));
  a.first_column = a.stride - a.n_features;
  return a;
}

// Calls f with the number of rows of a block: more of them share what is read of the weights, fewer keep more of the GPU busy.
template <class T, class F>
void with_rows(int64_t n, const F& f) {
  if constexpr (sizeof(T) == 4) {
    if (n > 8192) return f(std::integral_constant<int, 32>());
    if (n > 1280) return f(std::integral_constant<int, 16>());
  }
  f(std::integral_constant<int, 8>());
}

}  // namespace

Tensors pair_sum(const Tensors& in, int64_t lowest) {
  const int64_t n = in[0].size(0), H = in[9].size(0), N = in[2].size(0);
  const auto options = in[0].options();
  const Tensor w3 = in[11], y = at::zeros({N, w3.defined() ? in[7].size(1) : H}, options);
  const Tensors kept{at::empty({n, H}, options), at::empty({n, H}, options), w3.defined() ? at::empty({n, w3.size(0)}, options) : Tensor()};
  AT_DISPATCH_FLOATING_TYPES(in[0].scalar_type(), "pair_sum", [&] {
    const auto a = pair_arguments<scalar_t>(in, lowest, kept);
    with_rows<scalar_t>(n, [&](auto rows) {
      launch(y, pair_sum_kernel<scalar_t, decltype(rows)::value>, blocks_of(n, rows), THREADS, a, data<scalar_t>(y));
    });
  });
  return {y, kept[0], kept[1], kept[2]};
}

Tensors pair_sum_backward(const Tensors& in, const Tensors& kept, const Tensor& by, int64_t lowest, const std::vector<bool>& wanted) {
  const int64_t n = in[0].size(0);
  const auto made = [&](bool is_wanted, const Tensor& like) { return is_wanted && like.defined() ? at::empty_like(like) : Tensor(); };
  const auto zeros = [&](bool is_wanted, const Tensor& like) { return is_wanted && like.defined() ? at::zeros_like(like) : Tensor(); };
  const Tensors r{made(wanted[0], in[0]), made(wanted[1], in[1]), zeros(wanted[2], in[2]),
                  zeros(wanted[3], in[3]), made(wanted[6], in[6]), made(wanted[7], in[7])};
  AT_DISPATCH_FLOATING_TYPES(by.scalar_type(), "pair_sum_backward", [&] {
    const auto a = pair_arguments<scalar_t>(in, lowest, kept);
    const PairGradients<scalar_t> to{data<scalar_t>(r[0]), data<scalar_t>(r[1]), data<scalar_t>(r[2]),
                                     data<scalar_t>(r[3]), data<scalar_t>(r[4]), data<scalar_t>(r[5])};
    with_rows<scalar_t>(n, [&](auto rows) {
      launch(by, pair_sum_backward_kernel<scalar_t, decltype(rows)::value>, blocks_of(n, rows), THREADS, a, data<const scalar_t>(by), to);
    });
  });
  return r;
}

}  // namespace ampmm::gpu
