// What is computed pair by pair: geometry, features of QM-MM pairs, Coulomb sums and sums of forces.
#include "geometry.h"
#include "operators.h"

#include <ATen/Dispatch.h>

namespace ampmm::gpu {
namespace {

constexpr int PAIRS = 128;  // of a block with a thread each

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

Tensor polarized(const Tensors& in) {
  const int64_t n = in[1].size(0), n_weights = in[5].size(0), n_radial = in[5].size(1);
  const int order = int(orders_of(in[0].size(1)) - 1);
  TORCH_CHECK(order <= MAX_ORDER, "multipoles: expected orders up to ", MAX_ORDER, " on a GPU, got ", order);
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
    launch(by, polarized_backward_kernel<scalar_t>, blocks_of(n, PAIRS), PAIRS, int(n), int(orders_of(in[0].size(1)) - 1), data<const scalar_t>(in[0]),
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

}  // namespace ampmm::gpu
