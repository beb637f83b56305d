// What a layer of AMP does before and after the MM charges polarize it: new multipoles (Eqs. 3 and 4), and messages with the anisotropic
// features they carry (Eqs. 1, 6 and 7). Both are made of the other operators' kernels, in evaluations without autograd between them: in a
// region of a dozen atoms the way of some hundred small tensors through autograd and TorchScript takes longer than the products.
#include "composed.h"
#include "operators.h"
#include "pair_sum.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

// x W^T, and with a bias x W^T + b.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
  if (!bias.defined()) {
    product(out, x, weight.t());
    return out;
  }
  out.copy_(bias.unsqueeze(0).expand_as(out));
  add_product(out, x, weight.t());
  return out;
}

int64_t orders(const Tensor& multipoles) {
  const int64_t n = orders_of(multipoles.size(1));
  TORCH_CHECK(n * n == multipoles.size(1), "multipoles: expected (n_atoms, 1 | 4 | 9 | 16), got ", multipoles.sizes());
  return n;
}

// What atoms give to the networks, hidden features and the multipoles' norms, into the rows of `out`.
void with_norms(const Tensor& hidden, const Tensor& multipoles, Tensor out) {
  const int64_t N = hidden.size(0), H = hidden.size(1), K = orders(multipoles), C = K * K, stride = out.stride(0);
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "with_norms", [&] {
    const scalar_t *h = hidden.data_ptr<scalar_t>(), *m = multipoles.data_ptr<scalar_t>();
    for (int64_t i = 0; i < N; ++i) {
      scalar_t* row = out.data_ptr<scalar_t>() + i * stride;
      std::copy(h + i * H, h + (i + 1) * H, row);
      for (int64_t k = 0; k < K; ++k) {
        scalar_t sum = scalar_t(NORM_EPSILON * NORM_EPSILON);
        for (int64_t c = k * k; c < (k + 1) * (k + 1); ++c) sum += m[i * C + c] * m[i * C + c];
        row[H + k] = std::sqrt(sum) - scalar_t(NORM_EPSILON);
      }
    }
  });
}

// From the gradient by those rows: adds to the gradients by hidden features and by multipoles.
void with_norms_backward(const Tensor& multipoles, const Tensor& nodes, const Tensor& by_nodes, Tensor by_hidden, Tensor by_multipoles) {
  const int64_t N = by_hidden.size(0), H = by_hidden.size(1), K = orders(multipoles), C = K * K;
  AT_DISPATCH_FLOATING_TYPES(nodes.scalar_type(), "with_norms_backward", [&] {
    const scalar_t* m = multipoles.data_ptr<scalar_t>();
    scalar_t *to_hidden = by_hidden.data_ptr<scalar_t>(), *to_m = by_multipoles.data_ptr<scalar_t>();
    for (int64_t i = 0; i < N; ++i) {
      const scalar_t *row = nodes.data_ptr<scalar_t>() + i * nodes.stride(0), *by = by_nodes.data_ptr<scalar_t>() + i * by_nodes.stride(0);
      for (int64_t c = 0; c < H; ++c) to_hidden[i * H + c] += by[c];
      for (int64_t k = 0; k < K; ++k) {
        const scalar_t factor = by[H + k] / (row[H + k] + scalar_t(NORM_EPSILON));
        for (int64_t c = k * k; c < (k + 1) * (k + 1); ++c) to_m[i * C + c] += factor * m[i * C + c];
      }
    }
  });
}

Tensor composed_nodes(const Tensor& hidden, const Tensor& multipoles) {
  Tensors parts{hidden};
  for (int64_t k = 0; k < orders(multipoles); ++k)
    parts.push_back((multipoles.narrow(1, k * k, 2 * k + 1).square().sum(1, true) + NORM_EPSILON * NORM_EPSILON).sqrt() - NORM_EPSILON);
  return at::cat(parts, 1);
}

// The first Linear of a pair network for its atoms, and the gradient by what they give, added to by_nodes.
enum { W_CENTER, B_CENTER, W_NEIGHBOR, W1, W2, B2, N_PAIR_WEIGHTS };
void atoms_backward(const Tensor* w, const PairSumGradients& g, Tensor by_nodes) {
  add_product(by_nodes, g.center_part, w[W_CENTER]);
  add_product(by_nodes, g.neighbor_part, w[W_NEIGHBOR]);
}

PairSumInput pairs(const Tensor& radial, const Tensor& anisotropic, const Tensor& center, const Tensor& neighbor, const Tensor& centers,
                   const Tensor& neighbors, const Tensor& scale, const Tensor& tensors, const Tensor* w, const Tensor& w3) {
  return {as_columns(radial), center, neighbor, centers.contiguous(), neighbors.contiguous(), scale.contiguous(),
          tensors.defined() ? as_columns(tensors) : tensors, 0, 1, Weights(w[W1], w[W2], w[B2], w3), anisotropic.defined() ? as_columns(anisotropic) : anisotropic};
}

// M_i^k = sum over j of c_ij^k R_ij^k.
struct NewMultipoles {
  enum { HIDDEN, MULTIPOLES, RADIAL, ENVELOPE, TENSORS, ANISOTROPIC, CENTERS, NEIGHBORS, PAIRS, W3 = PAIRS + N_PAIR_WEIGHTS };
  enum { NODES, CENTER, NEIGHBOR, SCALE, Z1, Z2, OUT };

  static PairSumInput input(const Tensors& in, const Tensor& center, const Tensor& neighbor, const Tensor& scale) {
    return pairs(in[RADIAL], in[ANISOTROPIC], center, neighbor, in[CENTERS], in[NEIGHBORS], scale, in[TENSORS], &in[PAIRS], in[W3]);
  }

  static Tensors forward(const Options& o, const Tensors& in, Tensors* kept) {
    const Tensor hidden = in[HIDDEN].contiguous(), multipoles = in[MULTIPOLES].contiguous(), *w = &in[PAIRS];
    const Tensor nodes = at::empty({hidden.size(0), hidden.size(1) + orders(multipoles)}, hidden.options());
    with_norms(hidden, multipoles, nodes);
    const Tensor center = linear(nodes, w[W_CENTER], w[B_CENTER]), neighbor = linear(nodes, w[W_NEIGHBOR], Tensor());
    const Tensor scale = in[ENVELOPE] * o.real[0];
    PairSumActivations a{};
    a.slopes = true;
    const Tensor y = pair_sum_values(input(in, center, neighbor, scale), kept != nullptr, a);
    if (kept) *kept = {nodes, center, neighbor, scale, a.z1, a.z2, a.out};
    return {y};
  }

  static Tensors backward(const Options& o, const Tensors& in, const Tensors& kept, const Tensors& by) {
    Tensors r(in.size());
    if (!by[0].defined()) return r;
    const auto g = pair_sum_gradients(input(in, kept[CENTER], kept[NEIGHBOR], kept[SCALE]), {kept[Z1], kept[Z2], kept[OUT], true}, by[0]);
    Tensor by_nodes = at::zeros_like(kept[NODES]);
    atoms_backward(&in[PAIRS], g, by_nodes);
    r[HIDDEN] = at::zeros(in[HIDDEN].sizes(), by_nodes.options());
    r[MULTIPOLES] = at::zeros(in[MULTIPOLES].sizes(), by_nodes.options());
    with_norms_backward(in[MULTIPOLES].contiguous(), kept[NODES], by_nodes, r[HIDDEN], r[MULTIPOLES]);
    r[RADIAL] = g.features;
    r[ENVELOPE] = g.scale.mul_(o.real[0]);
    r[TENSORS] = g.tensors;
    r[ANISOTROPIC] = g.leading;
    return r;
  }

  static Tensors composed(const Options& o, const Tensors& in) {
    const Tensor nodes = composed_nodes(in[HIDDEN], in[MULTIPOLES]), *w = &in[PAIRS];
    const auto leading = in[ANISOTROPIC].defined() ? std::optional<Tensor>(in[ANISOTROPIC]) : std::nullopt;
    return {pair_sum(in[RADIAL], leading, at::linear(nodes, w[W_CENTER], w[B_CENTER]), at::linear(nodes, w[W_NEIGHBOR]), in[CENTERS],
                     in[NEIGHBORS], in[ENVELOPE] * o.real[0], in[TENSORS], w[W1], w[W2], w[B2], in[W3], 0, 1)};
  }
};

// New a_ij, the messages with them, and the new h_i.
struct Messages {
  enum { HIDDEN, MULTIPOLES, UNIT, RADIAL, ENVELOPE, ONE_HOT, CENTERS, NEIGHBORS, TABLE, R_CENTER, R_BIAS, R_NEIGHBOR, MATRIX, PAIRS,
         U1 = PAIRS + N_PAIR_WEIGHTS, C1, U2, C2 };
  enum { X, CENTER, NEIGHBOR, BY_CENTER, BY_NEIGHBOR, FEATURES, Z1, Z2, SLOPE1, SLOPE2 };

  static Tensors features_input(const Tensors& in, const Tensor& by_center, const Tensor& by_neighbor) {
    return {in[MULTIPOLES], in[UNIT], in[RADIAL], by_center, by_neighbor, in[MATRIX], in[CENTERS], in[NEIGHBORS], in[TABLE]};
  }
  static PairSumInput input(const Tensors& in, const Tensor& features, const Tensor& center, const Tensor& neighbor) {
    return pairs(in[RADIAL], features, center, neighbor, in[CENTERS], in[NEIGHBORS], in[ENVELOPE], Tensor(), &in[PAIRS], Tensor());
  }

  static Tensors forward(const Options&, const Tensors& in, Tensors* kept) {
    const Tensor hidden = in[HIDDEN].contiguous(), multipoles = in[MULTIPOLES].contiguous(), *w = &in[PAIRS];
    const int64_t n_nodes = hidden.size(1) + orders(multipoles);
    const Tensor by_center = linear(in[ONE_HOT], in[R_CENTER], in[R_BIAS]), by_neighbor = linear(in[ONE_HOT], in[R_NEIGHBOR], Tensor());
    const Tensor features = anisotropic_values(features_input(in, by_center, by_neighbor));
    const Tensor x = at::empty({hidden.size(0), n_nodes + w[W2].size(0)}, hidden.options()), nodes = x.narrow(1, 0, n_nodes);
    with_norms(hidden, multipoles, nodes);
    const Tensor center = linear(nodes, w[W_CENTER], w[B_CENTER]), neighbor = linear(nodes, w[W_NEIGHBOR], Tensor());
    PairSumActivations a{};
    a.slopes = true;
    x.narrow(1, n_nodes, w[W2].size(0)).copy_(pair_sum_values(input(in, features, center, neighbor), kept != nullptr, a));
    const Tensor first = linear(x, in[U1], in[C1]), own = at::empty_like(first);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "silu", [&] {
      activate(first.data_ptr<scalar_t>(), own.data_ptr<scalar_t>(), first.numel(), true);
    });
    const Tensor second = linear(own, in[U2], in[C2]), change = at::empty_like(second);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "silu", [&] {
      activate(second.data_ptr<scalar_t>(), change.data_ptr<scalar_t>(), second.numel(), true);
    });
    if (kept) *kept = {x, center, neighbor, by_center, by_neighbor, features, a.z1, a.z2, first, second};
    return {hidden + change, features};
  }

  static Tensors backward(const Options&, const Tensors& in, const Tensors& kept, const Tensors& by) {
    const Tensor multipoles = in[MULTIPOLES].contiguous(), *w = &in[PAIRS];
    const int64_t width = w[W2].size(0), n_nodes = kept[X].size(1) - width;
    Tensors r(in.size());
    r[HIDDEN] = by[0].defined() ? by[0].clone(at::MemoryFormat::Contiguous) : at::zeros(in[HIDDEN].sizes(), multipoles.options());
    const Tensor by_second = r[HIDDEN] * kept[SLOPE2], by_first = at::empty_like(kept[SLOPE1]), by_x = at::empty_like(kept[X]);
    product(by_first, by_second, in[U2]);
    by_first.mul_(kept[SLOPE1]);
    product(by_x, by_first, in[U1]);
    const auto g = pair_sum_gradients(input(in, kept[FEATURES], kept[CENTER], kept[NEIGHBOR]), {kept[Z1], kept[Z2], Tensor(), true},
                                      by_x.narrow(1, n_nodes, width));
    const Tensor by_nodes = by_x.narrow(1, 0, n_nodes);
    atoms_backward(w, g, by_nodes);
    if (by[1].defined()) g.leading.add_(by[1]);
    const auto f = anisotropic_gradients(features_input(in, kept[BY_CENTER], kept[BY_NEIGHBOR]), g.leading);
    r[MULTIPOLES] = f[0];
    with_norms_backward(multipoles, kept[X], by_nodes, r[HIDDEN], r[MULTIPOLES]);
    r[UNIT] = f[1];
    r[RADIAL] = g.features.add_(f[2]);
    r[ENVELOPE] = g.scale;
    return r;
  }

  static Tensors composed(const Options&, const Tensors& in) {
    const Tensor nodes = composed_nodes(in[HIDDEN], in[MULTIPOLES]), *w = &in[PAIRS];
    const Tensor features = anisotropic_features(in[MULTIPOLES], in[UNIT], in[RADIAL], at::linear(in[ONE_HOT], in[R_CENTER], in[R_BIAS]),
                                                 at::linear(in[ONE_HOT], in[R_NEIGHBOR]), in[MATRIX], in[CENTERS], in[NEIGHBORS], in[TABLE]);
    const Tensor summed = pair_sum(in[RADIAL], features, at::linear(nodes, w[W_CENTER], w[B_CENTER]), at::linear(nodes, w[W_NEIGHBOR]),
                                   in[CENTERS], in[NEIGHBORS], in[ENVELOPE], std::nullopt, w[W1], w[W2], w[B2], std::nullopt, 0, 1);
    const Tensor first = at::silu(at::linear(at::cat({nodes, summed}, 1), in[U1], in[C1]));
    return {in[HIDDEN] + at::silu(at::linear(first, in[U2], in[C2])), features};
  }
};

void check(const Tensor& hidden, at::TensorList weights, size_t n_weights) {
  check_cpu(hidden, "hidden");
  TORCH_CHECK(weights.size() == n_weights, "weights: expected ", n_weights, " tensors, got ", weights.size());
}

}  // namespace

Tensor layer_multipoles(const Tensor& hidden, const Tensor& multipoles, const Tensor& radial, const Tensor& envelope, const Tensor& tensors,
                        const std::optional<Tensor>& anisotropic, const Tensor& centers, const Tensor& neighbors, at::TensorList weights,
                        double scale) {
  check(hidden, weights, N_PAIR_WEIGHTS + 1);
  const Tensors in{hidden, multipoles, radial, envelope, tensors, anisotropic.value_or(Tensor()), centers, neighbors};
  return run_composed<NewMultipoles>({{}, {scale}}, in, weights.vec())[0];
}

std::tuple<Tensor, Tensor> layer_messages(const Tensor& hidden, const Tensor& multipoles, const Tensor& unit, const Tensor& radial,
                                          const Tensor& envelope, const Tensor& one_hot, const Tensor& centers, const Tensor& neighbors,
                                          const Tensor& table, at::TensorList weights) {
  check(hidden, weights, Messages::C2 + 1 - Messages::R_CENTER);
  const Tensors in{hidden, multipoles, unit, radial, envelope, one_hot, centers, neighbors, table};
  const Tensors r = run_composed<Messages>({}, in, weights.vec());
  return {r[0], r[1]};
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  // weights: of the first Linear for centers, its bias, for neighbors, for pairs; of the second, its bias; of the last.
  library.def(
      "layer_multipoles(Tensor hidden, Tensor multipoles, Tensor radial, Tensor envelope, Tensor tensors, Tensor? anisotropic, "
      "Tensor centers, Tensor neighbors, Tensor[] weights, float scale) -> Tensor",
      &ampmm::layer_multipoles);
  // weights: the radial weights' for centers, their bias, for neighbors, for pairs; the messages' as above but for the last; the update's
  // first and second Linear, each with its bias.
  library.def(
      "layer_messages(Tensor hidden, Tensor multipoles, Tensor unit, Tensor radial, Tensor envelope, Tensor one_hot, Tensor centers, "
      "Tensor neighbors, Tensor table, Tensor[] weights) -> (Tensor, Tensor)",
      &ampmm::layer_messages);
}
