// The networks: of pairs, with their sum over the pairs of an atom, and of atoms. A block takes R rows through all layers.
#include "launch.h"
#include "operators.h"

#include "../constants.h"

#include <ATen/Dispatch.h>

namespace ampmm::gpu {
namespace {

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

constexpr int ATOMS = 2;  // rows of a block, where there are few

template <class T>
__global__ void linear_kernel(int n, int K, int n_columns, const T* x, const T* weight, int stride, bool backward, const T* bias, T* y) {
  constexpr int R = ATOMS;
  __shared__ Workspace<T, R> s;
  const int tiles = (n_columns + WIDTH - 1) / WIDTH, first = blockIdx.x / tiles * R, c0 = blockIdx.x % tiles * WIDTH, c = c0 + own_column();
  T acc[R / 2];
  clear(acc);
  multiply(acc, s, K, n_columns - c0, [&](int row, int k) { return first + row < n ? x[(first + row) * K + k] : T(0); },
           Weight<T>{weight + (backward ? c0 : c0 * stride), stride, backward});
  for (int r = 0; r < R / 2; ++r) {
    const int row = first + own_row<R>(r);
    if (row < n && c < n_columns) y[row * n_columns + c] = acc[r] + (bias ? bias[c] : T(0));
  }
}

template <class T>
struct NodeArguments {
  int n, n_features, H, n_out;  // n_out: of the last Linear, if it is there
  const T *x, *w1, *b1, *w2, *b2, *w3;
  T *z1, *z2;
};

template <class T>
__global__ void node_network_kernel(NodeArguments<T> a, T* y) {
  constexpr int R = ATOMS;
  __shared__ Workspace<T, R> s;
  const int first = blockIdx.x * R, h = own_column();
  const auto own = [&](int row, int k) { return s.rows[row][k]; };
  T acc[R / 2];
  clear(acc);
  multiply(acc, s, a.n_features, a.H, [&](int row, int k) { return first + row < a.n ? a.x[(first + row) * a.n_features + k] : T(0); },
           Weight<T>{a.w1, a.n_features, false});
  const auto activate = [&](const T* bias, T* kept) {
    for (int r = 0; r < R / 2; ++r) {
      const int row = own_row<R>(r), i = first + row;
      T value = 0;
      if (i < a.n && h < a.H) {
        kept[i * a.H + h] = acc[r] + bias[h];
        value = silu(acc[r] + bias[h]);
      }
      s.rows[row][h] = value;
    }
    clear(acc);
  };
  activate(a.b1, a.z1);
  multiply(acc, s, a.H, a.H, own, Weight<T>{a.w2, a.H, false});
  activate(a.b2, a.z2);
  if (a.w3) multiply(acc, s, a.H, a.n_out, own, Weight<T>{a.w3, a.H, false});
  for (int r = 0; r < R / 2; ++r) {
    const int row = own_row<R>(r), i = first + row;
    if (i < a.n && h < (a.w3 ? a.n_out : a.H)) y[i * (a.w3 ? a.n_out : a.H) + h] = a.w3 ? acc[r] : s.rows[row][h];
  }
}

template <class T>
__global__ void node_network_backward_kernel(NodeArguments<T> a, const T* by, T* by_x) {
  constexpr int R = ATOMS;
  __shared__ Workspace<T, R> s;
  const int first = blockIdx.x * R, h = own_column();
  const auto own = [&](int row, int k) { return s.rows[row][k]; };
  T acc[R / 2];
  clear(acc);
  if (a.w3)
    multiply(acc, s, a.n_out, a.H, [&](int row, int k) { return first + row < a.n ? by[(first + row) * a.n_out + k] : T(0); },
             Weight<T>{a.w3, a.H, true});
  else
    for (int r = 0; r < R / 2; ++r)
      if (const int i = first + own_row<R>(r); i < a.n && h < a.H) acc[r] = by[i * a.H + h];
  const auto through = [&](const T* kept) {
    for (int r = 0; r < R / 2; ++r) {
      const int row = own_row<R>(r), i = first + row;
      s.rows[row][h] = i < a.n && h < a.H ? acc[r] * silu_slope(kept[i * a.H + h]) : T(0);
    }
    clear(acc);
  };
  through(a.z2);
  multiply(acc, s, a.H, a.H, own, Weight<T>{a.w2, a.H, true});
  through(a.z1);
  for (int f0 = 0; f0 < a.n_features; f0 += WIDTH) {
    multiply(acc, s, a.H, a.n_features - f0, own, Weight<T>{a.w1 + f0, a.n_features, true});
    for (int r = 0; r < R / 2; ++r)
      if (const int i = first + own_row<R>(r); i < a.n && f0 + h < a.n_features) by_x[i * a.n_features + f0 + h] = acc[r];
    clear(acc);
  }
}

constexpr double NORM_EPSILON = 1.0e-4;  // as in ampmm/nn/multipoles.py

template <class T>
__global__ void norms_kernel(int n, int n_hidden, int order, const T* hidden, const T* multipoles, T* y) {
  const int width = n_hidden + order + 1, at = blockIdx.x * THREADS + threadIdx.x, i = at / width, c = at % width;
  if (i >= n) return;
  if (c < n_hidden) {
    y[at] = hidden[i * n_hidden + c];
    return;
  }
  const int k = c - n_hidden;
  T sum = T(NORM_EPSILON * NORM_EPSILON);
  for (int j = k * k; j < (k + 1) * (k + 1); ++j) {
    const T own = multipoles[i * (order + 1) * (order + 1) + j];
    sum += own * own;
  }
  y[at] = sqrt(sum) - T(NORM_EPSILON);
}

template <class T>
__global__ void norms_backward_kernel(int n, int n_hidden, int order, const T* multipoles, const T* by, T* by_hidden, T* by_multipoles) {
  const int C = (order + 1) * (order + 1), width = n_hidden + C, at = blockIdx.x * THREADS + threadIdx.x, i = at / width, c = at % width;
  if (i >= n) return;
  const T* own_by = by + i * (n_hidden + order + 1);
  if (c < n_hidden) {
    by_hidden[i * n_hidden + c] = own_by[c];
    return;
  }
  const int own = c - n_hidden;
  int k = 0;
  while ((k + 1) * (k + 1) <= own) ++k;
  T sum = T(NORM_EPSILON * NORM_EPSILON);
  for (int j = k * k; j < (k + 1) * (k + 1); ++j) sum += multipoles[i * C + j] * multipoles[i * C + j];
  by_multipoles[i * C + own] = own_by[n_hidden + k] * multipoles[i * C + own] / sqrt(sum);
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

template <class T>
NodeArguments<T> node_arguments(const Tensors& in, const Tensors& kept) {
  return {static_cast<int>(in[0].size(0)), static_cast<int>(in[0].size(1)), static_cast<int>(in[3].size(0)),
          in[5].defined() ? static_cast<int>(in[5].size(0)) : 0, data<const T>(in[0]), data<const T>(in[1]), data<const T>(in[2]),
          data<const T>(in[3]), data<const T>(in[4]), data<const T>(in[5]), data<T>(kept[0]), data<T>(kept[1])};
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

namespace {

Tensor linear_product(const Tensor& x, const Tensor& weight, bool backward, const Tensor& bias) {
  const int64_t n = x.size(0), n_columns = weight.size(backward ? 1 : 0);
  const Tensor y = at::empty({n, n_columns}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "linear", [&] {
    launch(x, linear_kernel<scalar_t>, blocks_of(n, ATOMS) * blocks_of(n_columns, WIDTH), THREADS, int(n), int(x.size(1)), int(n_columns),
           data<const scalar_t>(x), data<const scalar_t>(weight), int(weight.size(1)), backward, data<const scalar_t>(bias), data<scalar_t>(y));
  });
  return y;
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) { return linear_product(x, weight, false, bias); }

Tensor linear_backward(const Tensor& by, const Tensor& weight) { return linear_product(by, weight, true, Tensor()); }

Tensors node_network(const Tensors& in) {
  const int64_t n = in[0].size(0), H = in[3].size(0);
  const Tensor z1 = at::empty({n, H}, in[0].options()), z2 = at::empty_like(z1);
  const Tensor y = at::empty({n, in[5].defined() ? in[5].size(0) : H}, in[0].options());
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "node_network", [&] {
    launch(y, node_network_kernel<scalar_t>, blocks_of(n, ATOMS), THREADS, node_arguments<scalar_t>(in, {z1, z2}), data<scalar_t>(y));
  });
  return {y, z1, z2};
}

Tensor node_network_backward(const Tensors& in, const Tensors& kept, const Tensor& by) {
  const Tensor r = at::empty_like(in[0]);
  AT_DISPATCH_FLOATING_TYPES(by.scalar_type(), "node_network_backward", [&] {
    launch(by, node_network_backward_kernel<scalar_t>, blocks_of(in[0].size(0), ATOMS), THREADS, node_arguments<scalar_t>(in, kept),
           data<const scalar_t>(by), data<scalar_t>(r));
  });
  return r;
}

Tensor with_norms(const Tensor& hidden, const Tensor& multipoles, int64_t order) {
  const int64_t n = hidden.size(0), n_hidden = hidden.size(1);
  const Tensor y = at::empty({n, n_hidden + order + 1}, hidden.options());
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "with_norms", [&] {
    launch(y, norms_kernel<scalar_t>, blocks_of(y.numel(), THREADS), THREADS, int(n), int(n_hidden), int(order), data<const scalar_t>(hidden),
           data<const scalar_t>(multipoles), data<scalar_t>(y));
  });
  return y;
}

Tensors with_norms_backward(const Tensor& multipoles, const Tensor& by, int64_t n_hidden, int64_t order) {
  const int64_t n = multipoles.size(0);
  const Tensor hidden = at::empty({n, n_hidden}, by.options()), r = at::empty_like(multipoles);
  AT_DISPATCH_FLOATING_TYPES(by.scalar_type(), "with_norms_backward", [&] {
    launch(by, norms_backward_kernel<scalar_t>, blocks_of(n * (n_hidden + multipoles.size(1)), THREADS), THREADS, int(n), int(n_hidden),
           int(order), data<const scalar_t>(multipoles), data<const scalar_t>(by), data<scalar_t>(hidden), data<scalar_t>(r));
  });
  return {hidden, r};
}

}  // namespace ampmm::gpu
