// The features of QM-QM pairs: a block takes one pair, as ../anisotropic.cpp takes a tile of them.
#include "launch.h"
#include "operators.h"

#include <ATen/Dispatch.h>

namespace ampmm::gpu {
namespace {

constexpr int MAX_WEIGHTS = 64;

// Where the contractions of ../anisotropic.cpp lie: S(rank, l) is M^l contracted l - rank times.
struct Layout {
  int K;
  __device__ int side(int rank) const {
    int at = 0;
    for (int k = 0; k < rank; ++k) at += (K + 1 - k) * (2 * k + 1);
    return at;
  }
  __device__ int scalar(int rank) const {
    int at = 0;
    for (int k = 0; k < rank; ++k) at += (K + 1 - k) * (K + 1 - k);
    return at;
  }
  __device__ int table(int l) const {
    int at = 0;
    for (int k = 1; k < l; ++k) at += (2 * k + 1) * (2 * k - 1) * 3;
    return at;
  }
  __device__ int row(int rank, int l) const { return side(rank) + (l - rank) * (2 * rank + 1); }
};

constexpr int SIDE = 30;     // rows of a side, and scalars, at most
constexpr int ANISOTROPIC_THREADS = 64;  // of a block, for one pair: both sides' rows have a thread each

// One pair's contractions, scalars and weights.
template <class T>
struct Contracted {
  T S[2][SIDE], G[SIDE], w[MAX_WEIGHTS], r[3];
};

template <class T>
__device__ void contract(Contracted<T>& s, const Layout& y, int p, const T* multipoles, const T* unit, const T* radial, const T* by_center,
                         const T* by_neighbor, const T* matrix, const int64_t* centers, const int64_t* neighbors, const T* table,
                         int n_weights, int n_radial) {
  const int t = threadIdx.x, C = (y.K + 1) * (y.K + 1);
  const int64_t i = centers[p], j = neighbors[p];
  if (t < 3) s.r[t] = unit[3 * p + t];
  if (t < 2 * C) {
    const int c = t % C;
    int l = 0;
    while ((l + 1) * (l + 1) <= c) ++l;
    s.S[t / C][y.row(l, l) + c - l * l] = multipoles[(t < C ? i : j) * C + c];
  }
  for (int k = t; k < n_weights; k += ANISOTROPIC_THREADS) {
    T w = by_center[i * n_weights + k] + by_neighbor[j * n_weights + k];
    for (int n = 0; n < n_radial; ++n) w += matrix[k * n_radial + n] * radial[p * n_radial + n];
    s.w[k] = w;
  }
  __syncthreads();
  for (int step = 1; step <= y.K; ++step) {
    const int count = (y.K - step + 1) * (y.K - step + 1);
    if (t < 2 * count) {
      const int o = t % count;
      int rank = 0;
      while ((rank + 1) * (rank + 1) <= o) ++rank;
      const int c = o - rank * rank, l = rank + step, from = y.row(rank + 1, l);
      const T *x = s.S[t / count], *factor = table + y.table(rank + 1) + 3 * c;
      T sum = 0;
      for (int e = 0; e < 2 * rank + 3; ++e, factor += 3 * (2 * rank + 1))
        sum += x[from + e] * (factor[0] * s.r[0] + factor[1] * s.r[1] + factor[2] * s.r[2]);
      s.S[t / count][y.row(rank, l) + c] = sum;
    }
    __syncthreads();
  }
  const int n_scalars = y.scalar(y.K + 1);
  if (t < n_scalars) {
    int rank = 0;
    while (y.scalar(rank + 1) <= t) ++rank;
    const int n = y.K + 1 - rank, o = t - y.scalar(rank), width = 2 * rank + 1;
    const T *a = s.S[0] + y.side(rank) + o / n * width, *b = s.S[1] + y.side(rank) + o % n * width;
    T sum = 0;
    for (int c = 0; c < width; ++c) sum += a[c] * b[c];
    s.G[t] = sum;
  }
  __syncthreads();
}

template <class T>
__global__ void anisotropic_kernel(int order, const T* multipoles, const T* unit, const T* radial, const T* by_center, const T* by_neighbor,
                                   const T* matrix, const int64_t* centers, const int64_t* neighbors, const T* table, int n_weights,
                                   int n_radial, T* x) {
  __shared__ Contracted<T> s;
  const Layout y{order};
  const int p = blockIdx.x, n_scalars = y.scalar(order + 1);
  contract(s, y, p, multipoles, unit, radial, by_center, by_neighbor, matrix, centers, neighbors, table, n_weights, n_radial);
  for (int k = threadIdx.x; k < n_weights * n_scalars; k += ANISOTROPIC_THREADS)
    x[static_cast<int64_t>(p) * n_weights * n_scalars + k] = s.w[k / n_scalars] * s.G[k % n_scalars];
}

template <class T>
__global__ void anisotropic_backward_kernel(int order, const T* multipoles, const T* unit, const T* radial, const T* by_center,
                                            const T* by_neighbor, const T* matrix, const int64_t* centers, const int64_t* neighbors,
                                            const T* table, int n_weights, int n_radial, const T* by_x, T* by_multipoles, T* by_unit,
                                            T* by_radial) {
  __shared__ Contracted<T> s;
  __shared__ T A[2][SIDE], aG[SIDE], aw[MAX_WEIGHTS], parts[ANISOTROPIC_THREADS][3];
  const Layout y{order};
  const int p = blockIdx.x, t = threadIdx.x, n_scalars = y.scalar(order + 1), n_side = y.side(order + 1), C = (order + 1) * (order + 1);
  contract(s, y, p, multipoles, unit, radial, by_center, by_neighbor, matrix, centers, neighbors, table, n_weights, n_radial);
  const T* by = by_x + static_cast<int64_t>(p) * n_weights * n_scalars;
  if (t < n_scalars) {
    T sum = 0;
    for (int k = 0; k < n_weights; ++k) sum += by[k * n_scalars + t] * s.w[k];
    aG[t] = sum;
  }
  for (int k = t; k < n_weights; k += ANISOTROPIC_THREADS) {
    T sum = 0;
    for (int g = 0; g < n_scalars; ++g) sum += by[k * n_scalars + g] * s.G[g];
    aw[k] = sum;
  }
  __syncthreads();
  for (int n = t; n < n_radial; n += ANISOTROPIC_THREADS) {
    T sum = 0;
    for (int k = 0; k < n_weights; ++k) sum += aw[k] * matrix[k * n_radial + n];
    by_radial[p * n_radial + n] = sum;
  }
  if (t < 2 * n_side) {  // through the scalars
    const int side = t / n_side, row = t % n_side;
    int rank = 0;
    while (y.side(rank + 1) <= row) ++rank;
    const int n = order + 1 - rank, width = 2 * rank + 1, a = (row - y.side(rank)) / width, c = (row - y.side(rank)) % width;
    T sum = 0;
    for (int b = 0; b < n; ++b)
      sum += aG[y.scalar(rank) + (side == 0 ? a * n + b : b * n + a)] * s.S[1 - side][y.side(rank) + b * width + c];
    A[side][row] = sum;
  }
  T gx = 0, gy = 0, gz = 0;
  for (int rank = 0; rank < order; ++rank) {  // through the contractions, from the lowest ranks up
    __syncthreads();
    const int width = 2 * rank + 3, count = (order - rank) * width;
    if (t < 2 * count) {
      const int side = t / count, l = rank + 1 + t % count / width, e = t % width, own = y.row(rank + 1, l) + e, to = y.row(rank, l);
      const T x = s.S[side][own], *factor = table + y.table(rank + 1) + 3 * e * (2 * rank + 1);
      T sum = 0;
      for (int c = 0; c < 2 * rank + 1; ++c, factor += 3) {
        const T az = A[side][to + c];
        sum += az * (factor[0] * s.r[0] + factor[1] * s.r[1] + factor[2] * s.r[2]);
        gx += az * factor[0] * x;
        gy += az * factor[1] * x;
        gz += az * factor[2] * x;
      }
      A[side][own] += sum;
    }
  }
  parts[t][0] = gx;
  parts[t][1] = gy;
  parts[t][2] = gz;
  __syncthreads();
  if (t < 3) {
    T sum = 0;
    for (int k = 0; k < ANISOTROPIC_THREADS; ++k) sum += parts[k][t];
    by_unit[3 * p + t] = sum;
  }
  if (t < 2 * C) {
    const int c = t % C;
    int l = 0;
    while ((l + 1) * (l + 1) <= c) ++l;
    atomicAdd(by_multipoles + (t < C ? centers[p] : neighbors[p]) * C + c, A[t / C][y.row(l, l) + c - l * l]);
  }
}

}  // namespace

Tensor anisotropic(const Tensors& in, int64_t order) {
  const int64_t n = in[1].size(0), n_weights = in[5].size(0);
  int64_t n_scalars = 0;
  for (int64_t k = 1; k <= order + 1; ++k) n_scalars += k * k;
  TORCH_CHECK(n_weights <= MAX_WEIGHTS, "matrix: expected at most ", MAX_WEIGHTS, " radial weights on a GPU, got ", n_weights);
  const Tensor x = at::empty({n, n_weights * n_scalars}, in[1].options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "anisotropic", [&] {
    launch(x, anisotropic_kernel<scalar_t>, n, ANISOTROPIC_THREADS, int(order), data<const scalar_t>(in[0]), data<const scalar_t>(in[1]),
           data<const scalar_t>(in[2]), data<const scalar_t>(in[3]), data<const scalar_t>(in[4]), data<const scalar_t>(in[5]),
           data<const int64_t>(in[6]), data<const int64_t>(in[7]), data<const scalar_t>(in[8]), int(n_weights), int(in[5].size(1)),
           data<scalar_t>(x));
  });
  return x;
}

Tensors anisotropic_backward(const Tensors& in, int64_t order, const Tensor& by) {
  const Tensor multipoles = at::zeros_like(in[0]), unit = at::empty_like(in[1]), radial = at::empty_like(in[2]);
  AT_DISPATCH_FLOATING_TYPES(by.scalar_type(), "anisotropic_backward", [&] {
    launch(by, anisotropic_backward_kernel<scalar_t>, in[1].size(0), ANISOTROPIC_THREADS, int(order), data<const scalar_t>(in[0]),
           data<const scalar_t>(in[1]), data<const scalar_t>(in[2]), data<const scalar_t>(in[3]), data<const scalar_t>(in[4]),
           data<const scalar_t>(in[5]), data<const int64_t>(in[6]), data<const int64_t>(in[7]), data<const scalar_t>(in[8]),
           int(in[5].size(0)), int(in[5].size(1)), data<const scalar_t>(by), data<scalar_t>(multipoles), data<scalar_t>(unit),
           data<scalar_t>(radial));
  });
  return {multipoles, unit, radial};
}

}  // namespace ampmm::gpu
