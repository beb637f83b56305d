// What the MM charges add to the multipoles (Eq. 10), for evaluations: a tile of one atom's pairs after the other, from their vectors to
// the sum and, for the derivatives, back to them. With few pairs the slopes of the network's activations are kept in between; else
// the derivatives compute them again, so that memory grows with the lists of pairs alone.
#include "composed.h"
#include "gpu/autograd.h"
#include "operators.h"
#include "polarized_tile.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

struct PolarizedSum {
  // options: exponent, number of radial functions, most pairs whose activations are kept, whether in bfloat16; cutoff, scale.
  static PolarizationSettings settings(const Options& o) {
    return {o.real[0], o.real[1], o.whole[0], o.whole[1], o.whole[2], o.whole[3] != 0};
  }

  // The sum, and what the derivatives need of the activations if there are few enough pairs, or an empty tensor.
  template <class T>
  static Tensors forward_kernel(const PolarizationSettings& s, const Tensors& in, bool keep) {
    const Polarization<T> net(in, s);
    const auto all = shares(net.in[CENTERS], in[MULTIPOLES].size(0));
    const bool kept = keep && static_cast<int64_t>(all.size()) * COLUMNS <= s.largest_kept;  // what counts is full tiles
    const Tensor activations = at::empty({kept ? static_cast<int64_t>(all.size()) * net.kept_of_tile() : 0}, in[VECTORS].options());
    Sum total({in[MULTIPOLES].size(0), net.C}, in[MULTIPOLES]);
    for_shares(all, [&] { return PolarizedTile<T>(net); }, [&](int64_t k, PolarizedTile<T>& tile, int thread) {
      tile.forward(all[k], kept ? activations.data_ptr<T>() + k * net.kept_of_tile() : nullptr, total.data<T>(thread));
    });
    return {total.total(), activations};
  }

  template <class T>
  static Tensors backward_kernel(const PolarizationSettings& s, const Tensors& in, const Tensor& activations, const Tensor& by) {
    const Polarization<T> net(in, s);
    const auto all = shares(net.in[CENTERS], in[MULTIPOLES].size(0));
    const Tensor vectors = at::empty_like(net.in[VECTORS]), charges = at::empty_like(net.in[CHARGES]);
    Sum multipoles({in[MULTIPOLES].size(0), net.C}, by), by_atom({in[BY_ATOM].size(0), net.network.H}, by);
    Sum weights({in[WEIGHTS_BY_ATOM].size(0), net.n_weights}, by);
    for_shares(all, [&] { return PolarizedTile<T>(net); }, [&](int64_t k, PolarizedTile<T>& tile, int thread) {
      const T* kept = activations.numel() ? activations.data_ptr<T>() + k * net.kept_of_tile() : nullptr;
      tile.backward(all[k], kept, by.data_ptr<T>(),
                    {vectors.data_ptr<T>(), charges.data_ptr<T>(), multipoles.data<T>(thread), by_atom.data<T>(thread), weights.data<T>(thread)});
    });
    return {vectors, charges, Tensor(), multipoles.total(), by_atom.total(), weights.total()};
  }

  static Tensors forward(const Options& o, const Tensors& in, Tensors* kept) {
    Tensors r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "polarized_multipoles",
                               [&] { r = forward_kernel<scalar_t>(settings(o), in, kept != nullptr); });
    if (kept) *kept = {r[1]};
    return {r[0]};
  }

  static Tensors backward(const Options& o, const Tensors& in, const Tensors& kept, const Tensors& by) {
    Tensors r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "polarized_multipoles_backward",
                               [&] { r = backward_kernel<scalar_t>(settings(o), in, kept[0], by[0].contiguous()); });
    return r;
  }

  // All pairs at once.
  static Tensors composed(const Options& o, const Tensors& in) {
    const PolarizationSettings s = settings(o);
    const int64_t order = orders_of(in[MULTIPOLES].size(1)) - 1;
    const auto [unit, tensors, radial, envelope] = pair_geometry(in[VECTORS], s.cutoff, s.exponent, s.n_radial, order);
    const Tensor x = polarized_features(in[MULTIPOLES], tensors, radial, in[CHARGES], in[WEIGHTS_BY_ATOM], in[MATRIX], in[CENTERS]);
    return {pair_sum(x, {}, in[BY_ATOM], {}, in[CENTERS], in[CENTERS], s.scale * in[CHARGES] * envelope, tensors, in[W1], in[W2],
                     in[B2], in[W3], 1, 1)};
  }
};

}  // namespace

Tensor polarized_multipoles(const Tensor& vectors, const Tensor& charges, const Tensor& centers, const Tensor& multipoles,
                            const Tensor& by_atom, const Tensor& weights_by_atom, const Tensor& matrix, const Tensor& w1,
                            const Tensor& w2, const Tensor& b2, const Tensor& w3, double cutoff, int64_t exponent,
                            int64_t n_radial, double scale, int64_t largest_kept, bool bfloat16) {
  const Options o{{exponent, n_radial, largest_kept, bfloat16}, {cutoff, scale}};
  const Tensors of_pairs_and_atoms{vectors, charges, centers, multipoles, by_atom, weights_by_atom}, weights{matrix, w1, w2, b2, w3};
  if (!takes_gpu(vectors)) {
    check_pairs(vectors, charges, centers);
    const int64_t n_atoms = multipoles.size(0);
    TORCH_CHECK(by_atom.size(0) == n_atoms && weights_by_atom.size(0) == n_atoms, "by_atom, weights_by_atom: expected rows of ", n_atoms,
                " atoms, got ", by_atom.sizes(), " and ", weights_by_atom.sizes());
    return run_composed<PolarizedSum>(o, of_pairs_and_atoms, weights)[0];
  }
  return PolarizedSum::composed(o, {vectors, charges, centers, multipoles, by_atom, weights_by_atom, matrix, w1, w2, b2, w3})[0];
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "polarized_multipoles(Tensor vectors, Tensor charges, Tensor centers, Tensor multipoles, Tensor by_atom, "
      "Tensor weights_by_atom, Tensor matrix, Tensor w1, Tensor w2, Tensor b2, Tensor w3, float cutoff, int exponent, "
      "int n_radial, float scale, int largest_kept, bool bfloat16=False) -> Tensor",
      &ampmm::polarized_multipoles);
  library.def("has_bfloat16() -> bool", [] { return ampmm::HAS_BFLOAT16; });
}
