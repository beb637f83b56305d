// The networks of atoms, where there are few of them, and what they are given.
#include "layers.h"

#include "../constants.h"

#include <ATen/Dispatch.h>

namespace ampmm::gpu {
namespace {

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
NodeArguments<T> node_arguments(const Tensors& in, const Tensors& kept) {
  return {static_cast<int>(in[0].size(0)), static_cast<int>(in[0].size(1)), static_cast<int>(in[3].size(0)),
          in[5].defined() ? static_cast<int>(in[5].size(0)) : 0, data<const T>(in[0]), data<const T>(in[1]), data<const T>(in[2]),
          data<const T>(in[3]), data<const T>(in[4]), data<const T>(in[5]), data<T>(kept[0]), data<T>(kept[1])};
}

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
