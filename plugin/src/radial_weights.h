// The weights that a pair's scalars are multiplied with: w = center part + neighbor part + W b(r), for a tile of m pairs.
// All per-pair arrays here are rows of m numbers, one row a component.
#pragma once

#include "common.h"

namespace ampmm {

// rows[c * m + p] = atoms[index[p], c]
template <class T>
void gather_components(const T* atoms, int64_t width, const int64_t* index, int64_t m, T* rows, bool add = false) {
  for_runs(index, m, [&](int64_t begin, int64_t end, int64_t i) {
    for (int64_t c = 0; c < width; ++c) {
      const T own = atoms[i * width + c];
      for (int64_t p = begin; p < end; ++p) rows[c * m + p] = own + (add ? rows[c * m + p] : T(0));
    }
  });
}

// atoms[index[p], c] += rows[c * m + p]
template <class T>
void scatter_components(const T* rows, int64_t m, const int64_t* index, int64_t width, T* atoms) {
  for_runs(index, m, [&](int64_t begin, int64_t end, int64_t i) {
    for (int64_t c = 0; c < width; ++c) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t p = begin; p < end; ++p) sum += rows[c * m + p];
      atoms[i * width + c] += sum;
    }
  });
}

// rows of w += matrix (n_weights, n_radial) times the radial functions, whose rows are `stride` apart.
template <class T>
void add_radial(const T* matrix, const T* radial, int64_t stride, int64_t n_weights, int64_t n_radial, int64_t m, T* w) {
  for (int64_t k = 0; k < n_weights; ++k)
    for (int64_t n = 0; n < n_radial; ++n) {
      const T factor = matrix[k * n_radial + n];
      const T* b = radial + n * stride;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) w[k * m + p] += factor * b[p];
    }
}

// From the gradient by w: adds to that by the matrix and, if not null, to that by the radial functions.
template <class T>
void radial_backward(const T* matrix, const T* radial, int64_t stride, int64_t n_weights, int64_t n_radial, int64_t m,
                     const T* by_w, T* by_matrix, T* by_radial, int64_t by_stride) {
  for (int64_t k = 0; k < n_weights; ++k)
    for (int64_t n = 0; n < n_radial; ++n) {
      const T* b = radial + n * stride;
      const T* g = by_w + k * m;
      if (by_matrix) {
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < m; ++p) sum += g[p] * b[p];
        by_matrix[k * n_radial + n] += sum;
      }
      if (by_radial) {
        const T factor = matrix[k * n_radial + n];
        T* to = by_radial + n * by_stride;
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) to[p] += factor * g[p];
      }
    }
}

// y[p] += a[p] b[p] for rows of m numbers.
template <class T>
inline void add_times(T* y, const T* a, const T* b, int64_t m) {
#pragma omp simd
  for (int64_t p = 0; p < m; ++p) y[p] += a[p] * b[p];
}

}  // namespace ampmm
