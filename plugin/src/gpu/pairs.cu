// What is computed pair by pair: geometry, features, Coulomb sums, sums of forces, and the lists of pairs.
#include "geometry.h"
#include "operators.h"

#include <ATen/Dispatch.h>

namespace ampmm::gpu {
namespace {

constexpr int PAIRS = 128;  // of a block with a thread each
constexpr int MAX_WEIGHTS = 64;

// Adds rows (PAIRS, COLUMNS) of the block's pairs to the atoms they belong to: a thread for each column, an atomic addition for each run.
template <class T, int COLUMNS>
__device__ void add_runs(T (*rows)[COLUMNS], const int64_t* centers, int m, int n_columns, int stride, T* to) {
  __syncthreads();
  const int c = threadIdx.x;
  if (c < n_columns) {
    T sum = 0;
    for (int p = 0; p < m; ++p) {
      sum += rows[p][c];
      if (p + 1 == m || centers[p + 1] != centers[p]) {
        atomicAdd(to + centers[p] * stride + c, sum);
        sum = 0;
      }
    }
  }
  __syncthreads();
}

template <class T>
__global__ void geometry_kernel(const T* vectors, int n, T cutoff, int exponent, int n_radial, int order, T* unit, T* tensors,
                                T* radial, T* envelope) {
  const int p = blockIdx.x * PAIRS + threadIdx.x;
  if (p >= n) return;
  const Point<T> t(vectors + 3 * p, cutoff, exponent);
  unit[3 * p] = t.x;
  unit[3 * p + 1] = t.y;
  unit[3 * p + 2] = t.z;
  t.tensors(order, tensors + p * (order + 1) * (order + 1));
  t.radial(n_radial, cutoff, [&](int k, T value, T) { radial[p * n_radial + k] = value; });
  envelope[p] = t.e;
}

template <class T>
__global__ void geometry_backward_kernel(const T* vectors, int n, T cutoff, int exponent, int n_radial, int order, const T* by_unit,
                                         const T* by_tensors, const T* by_radial, const T* by_envelope, T* by_vectors) {
  const int p = blockIdx.x * PAIRS + threadIdx.x;
  if (p >= n) return;
  const Point<T> t(vectors + 3 * p, cutoff, exponent);
  T r = 0, x = 0, y = 0, z = 0;
  if (by_envelope) r += by_envelope[p] * t.de;
  if (by_radial) t.radial(n_radial, cutoff, [&](int k, T, T slope) { r += by_radial[p * n_radial + k] * slope; });
  if (by_unit) {
    x = by_unit[3 * p];
    y = by_unit[3 * p + 1];
    z = by_unit[3 * p + 2];
  }
  if (by_tensors) t.add_tensors(order, by_tensors + p * (order + 1) * (order + 1), x, y, z);
  t.by_vector(r, x, y, z, by_vectors + 3 * p);
}

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

constexpr int MAX_WEIGHTS_MM = 16;

template <class T>
__device__ void polarized_weights(int p, const T* radial, const T* by_center, const T* matrix, int64_t center, int n_weights, int n_radial,
                                  T* w) {
  for (int k = 0; k < n_weights; ++k) {
    T sum = by_center[center * n_weights + k];
    for (int n = 0; n < n_radial; ++n) sum += matrix[k * n_radial + n] * radial[p * n_radial + n];
    w[k] = sum;
  }
}

template <class T>
__device__ void polarized_scalars(int order, const T* multipole, const T* tensor, T q, T* scalars) {
  for (int l = 0; l <= order; ++l) {
    T sum = 0;
    for (int c = l * l; c < (l + 1) * (l + 1); ++c) sum += multipole[c] * tensor[c];
    scalars[l] = sum * q;
  }
}

template <class T>
__global__ void polarized_kernel(int n, int order, const T* multipoles, const T* tensors, const T* radial, const T* charges,
                                 const T* by_center, const T* matrix, const int64_t* centers, int n_weights, int n_radial, T* x) {
  const int p = blockIdx.x * PAIRS + threadIdx.x, C = (order + 1) * (order + 1), n_features = (order + 1) * n_weights + n_radial;
  if (p >= n) return;
  T w[MAX_WEIGHTS_MM], scalars[MAX_ORDER + 1];
  polarized_weights(p, radial, by_center, matrix, centers[p], n_weights, n_radial, w);
  polarized_scalars(order, multipoles + centers[p] * C, tensors + p * C, charges[p], scalars);
  T* to = x + static_cast<int64_t>(p) * n_features;
  for (int l = 0; l <= order; ++l)
    for (int k = 0; k < n_weights; ++k) *to++ = scalars[l] * w[k];
  for (int k = 0; k < n_radial; ++k) *to++ = radial[p * n_radial + k];
}

template <class T>
__global__ void polarized_backward_kernel(int n, int order, const T* multipoles, const T* tensors, const T* radial, const T* charges,
                                          const T* by_center, const T* matrix, const int64_t* centers, int n_weights, int n_radial,
                                          const T* by_x, T* by_multipoles, T* by_tensors, T* by_radial) {
  __shared__ T rows[PAIRS][MAX_COMPONENTS + 1];
  const int first = blockIdx.x * PAIRS, p = first + threadIdx.x, C = (order + 1) * (order + 1);
  const int m = n - first < PAIRS ? n - first : PAIRS;
  if (p < n) {
    T w[MAX_WEIGHTS_MM], by_w[MAX_WEIGHTS_MM], scalars[MAX_ORDER + 1], by_scalars[MAX_ORDER + 1];
    const T *multipole = multipoles + centers[p] * C, *tensor = tensors + p * C;
    const T* by = by_x + static_cast<int64_t>(p) * ((order + 1) * n_weights + n_radial);
    polarized_weights(p, radial, by_center, matrix, centers[p], n_weights, n_radial, w);
    polarized_scalars(order, multipole, tensor, charges[p], scalars);
    for (int k = 0; k < n_weights; ++k) by_w[k] = 0;
    for (int l = 0; l <= order; ++l) {
      T sum = 0;
      for (int k = 0; k < n_weights; ++k) {
        const T g = *by++;
        sum += g * w[k];
        by_w[k] += g * scalars[l];
      }
      by_scalars[l] = sum * charges[p];
      for (int c = l * l; c < (l + 1) * (l + 1); ++c) {
        by_tensors[p * C + c] = by_scalars[l] * multipole[c];
        rows[threadIdx.x][c] = by_scalars[l] * tensor[c];
      }
    }
    for (int k = 0; k < n_radial; ++k) {
      T sum = by[k];
      for (int j = 0; j < n_weights; ++j) sum += by_w[j] * matrix[j * n_radial + k];
      by_radial[p * n_radial + k] = sum;
    }
  }
  add_runs(rows, centers + first, m, C, C, by_multipoles);
}

template <class T>
__global__ void potential_kernel(int n, const T* vectors, const T* source, const int64_t* centers, const int64_t* neighbors, T k, T a4, T a6,
                                 T shift, T cutoff, T* potential, T* gradients) {
  __shared__ T rows[PAIRS][1];
  const int first = blockIdx.x * PAIRS, p = first + threadIdx.x, m = n - first < PAIRS ? n - first : PAIRS;
  if (p < n) {
    const T *v = vectors + 3 * p, r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2], r = sqrt(r2), inverse = T(1) / r;
    const T own = r < cutoff ? source[neighbors[p]] : T(0);
    rows[threadIdx.x][0] = own * (inverse + r2 * (k + r2 * (a4 + r2 * a6)) - shift);
    const T slope = own * inverse * (r * (2 * k + r2 * (4 * a4 + r2 * 6 * a6)) - inverse * inverse);
    for (int c = 0; c < 3; ++c) gradients[3 * p + c] = slope * v[c];
  }
  add_runs(rows, centers + first, m, 1, 1, potential);
}

template <class T>
__global__ void sums_kernel(int n, const T* values, const int64_t* centers, const int64_t* neighbors, T* by_center, T* by_neighbor) {
  __shared__ T rows[PAIRS][3];
  const int first = blockIdx.x * PAIRS, p = first + threadIdx.x, m = n - first < PAIRS ? n - first : PAIRS;
  if (p < n)
    for (int c = 0; c < 3; ++c) {
      rows[threadIdx.x][c] = values[3 * p + c];
      atomicAdd(by_neighbor + 3 * neighbors[p] + c, values[3 * p + c]);
    }
  add_runs(rows, centers + first, m, 3, 3, by_center);
}

// The nearest image, as OpenMM takes it, of the vector from r to s; its square.
__device__ double nearest(const double* r, const double* s, const double* box, double* v) {
  for (int c = 0; c < 3; ++c) v[c] = s[c] - r[c];
  if (box)
    for (int axis = 2; axis >= 0; --axis) {
      const double turns = rint(v[axis] / box[3 * axis + axis]);
      for (int c = 0; c <= axis; ++c) v[c] -= turns * box[3 * axis + c];
    }
  return v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
}

constexpr int SEARCHERS = 256;  // threads of a block, for one center

__global__ void count_kernel(const double* positions, const double* others, int n_others, const double* box, double limit, bool distinct,
                             int* counts) {
  __shared__ int sums[SEARCHERS];
  double v[3];
  int own = 0;
  for (int j = threadIdx.x; j < n_others; j += SEARCHERS)
    own += nearest(positions + 3 * blockIdx.x, others + 3 * j, box, v) < limit && !(distinct && j == static_cast<int>(blockIdx.x));
  sums[threadIdx.x] = own;
  __syncthreads();
  for (int half = SEARCHERS / 2; half; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) counts[blockIdx.x] = sums[0];
}

template <class T>
__global__ void list_kernel(const double* positions, const double* others, int n_others, const double* box, double limit, bool distinct,
                            const int* counts, int n, int capacity, int64_t filling, T away, int64_t* centers, int64_t* neighbors, T* vectors,
                            int64_t* n_near) {
  __shared__ int ranks[2][SEARCHERS], before, total;
  const int t = threadIdx.x, i = blockIdx.x;
  if (t == 0) {
    before = total = 0;
    for (int k = 0; k < n; ++k) {
      if (k < i) before += counts[k];
      total += counts[k];
    }
    if (i == 0) *n_near = total;
  }
  __syncthreads();
  int place = before;  // of the first that this round finds
  for (int first = 0; first < n_others; first += SEARCHERS) {
    const int j = first + t;
    double v[3];
    const bool near = j < n_others && nearest(positions + 3 * i, others + 3 * j, box, v) < limit && !(distinct && j == i);
    int now = 0;
    ranks[0][t] = near;
    __syncthreads();
    for (int step = 1; step < SEARCHERS; step *= 2, now = 1 - now) {
      ranks[1 - now][t] = ranks[now][t] + (t >= step ? ranks[now][t - step] : 0);
      __syncthreads();
    }
    const int to = place + ranks[now][t] - 1;
    if (near && to < capacity) {
      centers[to] = i;
      neighbors[to] = j;
      for (int c = 0; c < 3; ++c) vectors[3 * to + c] = static_cast<T>(v[c]);
    }
    place += ranks[now][SEARCHERS - 1];
    __syncthreads();
  }
  for (int to = total + i * SEARCHERS + t; to < capacity; to += n * SEARCHERS) {
    centers[to] = n - 1;
    neighbors[to] = filling;
    for (int c = 0; c < 3; ++c) vectors[3 * to + c] = away;
  }
}

}  // namespace

Tensors geometry(const Tensor& vectors, const GeometrySettings& s) {
  const int64_t n = vectors.size(0), C = (s.order + 1) * (s.order + 1);
  const Tensor unit = at::empty({n, 3}, vectors.options()), tensors = at::empty({n, C}, vectors.options());
  const Tensor radial = at::empty({n, s.n_radial}, vectors.options()), envelope = at::empty({n}, vectors.options());
  AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "geometry", [&] {
    launch(vectors, geometry_kernel<scalar_t>, blocks_of(n, PAIRS), PAIRS, data<const scalar_t>(vectors), int(n), scalar_t(s.cutoff),
           int(s.exponent), int(s.n_radial), int(s.order), data<scalar_t>(unit), data<scalar_t>(tensors), data<scalar_t>(radial),
           data<scalar_t>(envelope));
  });
  return {unit, tensors, radial, envelope};
}

Tensor geometry_backward(const Tensor& vectors, const Tensors& by, const GeometrySettings& s) {
  const Tensor r = at::empty_like(vectors);
  AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "geometry_backward", [&] {
    launch(vectors, geometry_backward_kernel<scalar_t>, blocks_of(vectors.size(0), PAIRS), PAIRS, data<const scalar_t>(vectors),
           int(vectors.size(0)), scalar_t(s.cutoff), int(s.exponent), int(s.n_radial), int(s.order), data<const scalar_t>(by[0]),
           data<const scalar_t>(by[1]), data<const scalar_t>(by[2]), data<const scalar_t>(by[3]), data<scalar_t>(r));
  });
  return r;
}

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

namespace {

int order_of(const Tensor& packed) {
  int order = 0;
  while ((order + 1) * (order + 1) < packed.size(1)) ++order;
  return order;
}

}  // namespace

Tensor polarized(const Tensors& in) {
  const int64_t n = in[1].size(0), n_weights = in[5].size(0), n_radial = in[5].size(1);
  const int order = order_of(in[0]);
  TORCH_CHECK(n_weights <= MAX_WEIGHTS_MM, "matrix: expected at most ", MAX_WEIGHTS_MM, " radial weights on a GPU, got ", n_weights);
  const Tensor x = at::empty({n, (order + 1) * n_weights + n_radial}, in[1].options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "polarized", [&] {
    launch(x, polarized_kernel<scalar_t>, blocks_of(n, PAIRS), PAIRS, int(n), order, data<const scalar_t>(in[0]), data<const scalar_t>(in[1]),
           data<const scalar_t>(in[2]), data<const scalar_t>(in[3]), data<const scalar_t>(in[4]), data<const scalar_t>(in[5]),
           data<const int64_t>(in[6]), int(n_weights), int(n_radial), data<scalar_t>(x));
  });
  return x;
}

Tensors polarized_backward(const Tensors& in, const Tensor& by) {
  const int64_t n = in[1].size(0);
  const Tensor multipoles = at::zeros_like(in[0]), tensors = at::empty_like(in[1]), radial = at::empty_like(in[2]);
  AT_DISPATCH_FLOATING_TYPES(by.scalar_type(), "polarized_backward", [&] {
    launch(by, polarized_backward_kernel<scalar_t>, blocks_of(n, PAIRS), PAIRS, int(n), order_of(in[0]), data<const scalar_t>(in[0]),
           data<const scalar_t>(in[1]), data<const scalar_t>(in[2]), data<const scalar_t>(in[3]), data<const scalar_t>(in[4]),
           data<const scalar_t>(in[5]), data<const int64_t>(in[6]), int(in[5].size(0)), int(in[5].size(1)), data<const scalar_t>(by),
           data<scalar_t>(multipoles), data<scalar_t>(tensors), data<scalar_t>(radial));
  });
  return {multipoles, tensors, radial};
}

std::tuple<Tensor, Tensor> charge_potential(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors,
                                            int64_t n_atoms, at::ArrayRef<double> w) {
  const int64_t n = vectors.size(0);
  const Tensor potential = at::zeros({n_atoms}, vectors.options()), gradients = at::empty({n, 3}, vectors.options());
  AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "charge_potential", [&] {
    launch(vectors, potential_kernel<scalar_t>, blocks_of(n, PAIRS), PAIRS, int(n), data<const scalar_t>(vectors), data<const scalar_t>(source),
           data<const int64_t>(centers), data<const int64_t>(neighbors), scalar_t(w[0]), scalar_t(w[1]), scalar_t(w[2]), scalar_t(w[3]),
           scalar_t(w[4]), data<scalar_t>(potential), data<scalar_t>(gradients));
  });
  return {potential, gradients};
}

std::tuple<Tensor, Tensor> sums_over_pairs(const Tensor& values, const Tensor& centers, const Tensor& neighbors, int64_t n_centers,
                                           int64_t n_neighbors) {
  const Tensor all = at::zeros({n_centers + n_neighbors, 3}, values.options());
  const Tensor by_center = all.slice(0, 0, n_centers), by_neighbor = all.slice(0, n_centers);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "sums_over_pairs", [&] {
    launch(values, sums_kernel<scalar_t>, blocks_of(values.size(0), PAIRS), PAIRS, int(values.size(0)), data<const scalar_t>(values),
           data<const int64_t>(centers), data<const int64_t>(neighbors), data<scalar_t>(by_center), data<scalar_t>(by_neighbor));
  });
  return {by_center, by_neighbor};
}

Tensors padded_pairs(const Tensor& positions, const Tensor& others, const Tensor& box, const Tensor& like, const Padding& padding) {
  const int64_t n = positions.size(0), capacity = padding.capacity;
  const double limit = padding.cutoff * padding.cutoff;
  const Tensor counts = at::empty({n}, positions.options().dtype(at::kInt)), near = at::empty({}, positions.options().dtype(at::kLong));
  const Tensor centers = at::empty({capacity}, near.options()), neighbors = at::empty({capacity}, near.options());
  const Tensor vectors = at::empty({capacity, 3}, like.options());
  launch(positions, count_kernel, n, SEARCHERS, data<const double>(positions), data<const double>(others), int(others.size(0)),
         data<const double>(box), limit, padding.distinct, data<int>(counts));
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "padded_pairs", [&] {
    launch(positions, list_kernel<scalar_t>, n, SEARCHERS, data<const double>(positions), data<const double>(others), int(others.size(0)),
           data<const double>(box), limit, padding.distinct, data<const int>(counts), int(n), int(capacity), padding.neighbor,
           scalar_t(padding.away), data<int64_t>(centers), data<int64_t>(neighbors), data<scalar_t>(vectors), data<int64_t>(near));
  });
  return {centers, neighbors, vectors, near};
}

}  // namespace ampmm::gpu
