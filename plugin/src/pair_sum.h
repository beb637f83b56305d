// Pair networks summed onto atoms: y_i = sum_p s_p out_p (messages), or y_i^kc = sum_p s_p out_p^kc R_p^k (multipoles, c channels
// of each order).
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
  int64_t lowest_order;  // of the multipoles that the network's K outputs belong to, n_channels for each order
  int64_t n_channels;
  Weights w;
  Tensor leading;  // (n, F') columns

  int64_t n_pairs() const { return features.size(0); }
  static Tensor part(const Tensor& x, int64_t first, int64_t m) { return x.defined() ? x.narrow(0, first, m) : x; }
  int64_t n_out() const { return w.last() ? tensors.size(1) * n_channels : w.width(); }

  // f(component of the tensors, place among an atom's multipoles) for the components that output k belongs to.
  template <class F>
  void components(int64_t k, const F& f) const {
    const int64_t order = lowest_order + k / n_channels, channel = k % n_channels;
    for (int64_t c = order * order; c < (order + 1) * (order + 1); ++c) f(c, c * n_channels + channel);
  }
};

struct PairSumActivations {
  Tensor z1, z2;  // (n, H), or undefined
  Tensor out;     // (n, K) columns, or undefined
  bool slopes;    // in the place of z1 and, with a last Linear, z2: see mlp.h
};

struct PairSumGradients {
  Tensor features, center_part, neighbor_part, scale, tensors, w1, w2, b2, w3, leading;
  Tensor gs1;  // (n, H), kept for the second derivative
  void take(const WeightSums& sums) {
    if (!sums.wanted) return;
    w1 = sums.w1.total();
    w2 = sums.w2.total();
    b2 = sums.b2.total();
    w3 = sums.w3.total();
  }
};

// The sum; with `keep` also what its derivatives need, as kept.slopes says.
Tensor pair_sum_values(const PairSumInput& in, bool keep, PairSumActivations& kept);
// For evaluations, after slopes were kept: by all but the weights.
PairSumGradients pair_sum_gradients(const PairSumInput& in, const PairSumActivations& kept, const Tensor& by_y);

// One tile's scratch of `count` matrices (TILE, H).
inline std::vector<Tensor> scratch(int count, int64_t rows, int64_t width, const Tensor& like) {
  std::vector<Tensor> all;
  for (int i = 0; i < count; ++i) all.push_back(at::empty({rows, width}, like.options()));
  return all;
}

}  // namespace ampmm
