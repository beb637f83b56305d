// Pair networks summed onto atoms: y_i = sum_p s_p out_p (messages), or y_i^k = sum_p s_p out_p^k R_p^k (multipoles).
#pragma once

#include "mlp.h"

namespace ampmm {

// What a sum over pairs depends on; `leading`, `neighbor_part`, `tensors` and `w.w3` may be undefined.
struct PairSumInput {
  Tensor features;       // (n, F) columns
  Tensor center_part;    // (N, H)
  Tensor neighbor_part;  // (N', H)
  Tensor centers;        // (n,)
  Tensor neighbors;      // (n,)
  Tensor scale;          // (n,)
  Tensor tensors;        // (n, C) columns
  int64_t lowest_order;  // of the multipoles that the network's K outputs belong to
  Weights w;
  Tensor leading;  // (n, F') columns

  int64_t n_pairs() const { return features.size(0); }
  static Tensor part(const Tensor& x, int64_t first, int64_t m) { return x.defined() ? x.narrow(0, first, m) : x; }
  int64_t n_out() const { return w.last() ? tensors.size(1) : w.width(); }
};

struct PairSumActivations {
  Tensor z1, z2;  // (n, H), or undefined
  Tensor out;     // (n, K) columns, or undefined
};

// One tile's scratch of `count` matrices (TILE, H).
inline std::vector<Tensor> scratch(int count, int64_t rows, int64_t width, const Tensor& like) {
  std::vector<Tensor> all;
  for (int i = 0; i < count; ++i) all.push_back(at::empty({rows, width}, like.options()));
  return all;
}

// Order k of the components first..last-1.
inline int64_t first_component(int64_t order) { return order * order; }

}  // namespace ampmm
