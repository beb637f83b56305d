// QM-MM pairs in tiles of one atom's, whose pairs lie along vector registers.
#pragma once

#include "blocks.h"
#include "geometry.h"

#include <algorithm>

namespace ampmm {

// The pairs of one tile, which have the same center.
struct Share {
  int64_t center, first, count;
};

// What the tiles of all pairs are read from.
inline void check_pairs(const Tensor& vectors, const Tensor& charges, const Tensor& centers) {
  check_cpu(vectors, "vectors");
  TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == 3, "vectors: expected (n_pairs, 3), got ", vectors.sizes());
  const int64_t n = vectors.size(0);
  TORCH_CHECK(charges.dim() == 1 && charges.size(0) == n, "charges: expected (", n, "), got ", charges.sizes());
  TORCH_CHECK(centers.dim() == 1 && centers.size(0) == n, "centers: expected (", n, "), got ", centers.sizes());
}

inline std::vector<Share> shares(const Tensor& centers, int64_t n_atoms) {
  std::vector<Share> all;
  for_runs(centers.data_ptr<int64_t>(), centers.size(0), [&](int64_t begin, int64_t end, int64_t i) {
    TORCH_CHECK(0 <= i && i < n_atoms, "centers: expected 0 to ", n_atoms - 1, ", got ", i);
    for (int64_t first = begin; first < end; first += COLUMNS) all.push_back({i, first, std::min(COLUMNS, end - first)});
  });
  return all;
}

// Runs f(share's number, thread's own, thread) for all shares, each thread a contiguous part of them; make() makes what a thread has for
// itself.
template <class Make, class F>
void for_shares(const std::vector<Share>& all, const Make& make, const F& f) {
  at::parallel_for(0, static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    auto own = make();
    for (int64_t k = begin; k < end; ++k) f(k, own, at::get_thread_num());
  });
}

// The geometry of a tile and its charges q: the last pair is repeated, with a charge of zero, until the registers are full.
template <class T>
Tile<T, COLUMNS> filled_tile(const Share& own, const T* vectors, const T* charges, double cutoff, int64_t exponent, T* q) {
  const int64_t m = filled_up(own.count, Register<T>::lanes);
  T v[3 * COLUMNS];
  for (int64_t p = 0; p < m; ++p) {
    std::copy_n(vectors + 3 * (own.first + std::min(p, own.count - 1)), 3, v + 3 * p);
    q[p] = p < own.count ? charges[own.first + p] : T(0);
  }
  return Tile<T, COLUMNS>(v, m, static_cast<T>(cutoff), static_cast<int>(exponent));
}

// From the gradients by the envelope, by the tensors' components and by the radial functions, rows of COLUMNS pairs, to those by the
// vectors.
template <class T>
void by_vectors(const Share& own, const Tile<T, COLUMNS>& t, const T* by_e, int64_t n_components, const T* by_R, int64_t n_radial,
                const T* by_radial, T* vectors) {
  DirectionGradients<T, COLUMNS> by_direction;
  for (int64_t p = 0; p < t.m; ++p) {
    by_direction.r[p] = by_e[p] * t.de[p];
    by_direction.x[p] = by_direction.y[p] = by_direction.z[p] = 0;
  }
  by_direction.add_tensors(t, n_components, [&](int64_t c) { return by_R + c * COLUMNS; });
  t.radial(n_radial, [&](int64_t n, int64_t p, T, T slope) { by_direction.r[p] += by_radial[n * COLUMNS + p] * slope; });
  by_direction.by_vectors(t, own.count, vectors + 3 * own.first);
}

}  // namespace ampmm
