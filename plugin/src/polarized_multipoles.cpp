// What the MM charges add to the multipoles (Eq. 10), for evaluations: a tile of one atom's pairs after the other, from their vectors to
// the sum and, for the derivatives, back to them. With few pairs the slopes of the network's activations are kept in between; else
// the derivatives compute them again, so that memory grows with the lists of pairs alone.
#include "gpu/autograd.h"
#include "operators.h"
#include "polarized_tile.h"
#include "twice.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

// Runs f(tile's number, thread's tile) for all, each thread a contiguous share.
template <class T, class F>
void for_shares(const Polarization<T>& net, const std::vector<Share>& all, const F& f) {
  at::parallel_for(0, static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
    c10::AutoGradMode no_grad(false);
    PolarizedTile<T> tile(net);
    for (int64_t k = begin; k < end; ++k) f(k, tile, at::get_thread_num());
  });
}

// The sum, and what the derivatives need of the activations if there are few enough pairs, or an empty tensor.
template <class T>
variable_list forward_kernel(const variable_list& in, const PolarizationSettings& s, bool keep) {
  const Polarization<T> net(in, s);
  const auto all = shares(net.in[CENTERS]);
  const bool kept = keep && static_cast<int64_t>(all.size()) * COLUMNS <= s.largest_kept;  // what counts is full tiles
  const Tensor activations = at::empty({kept ? static_cast<int64_t>(all.size()) * net.kept_of_tile() : 0}, in[VECTORS].options());
  Sum total({in[MULTIPOLES].size(0), net.C}, in[MULTIPOLES]);
  for_shares(net, all, [&](int64_t k, PolarizedTile<T>& tile, int thread) {
    tile.forward(all[k], kept ? activations.data_ptr<T>() + k * net.kept_of_tile() : nullptr, total.data<T>(thread));
  });
  return {total.total(), activations};
}

template <class T>
variable_list backward_kernel(const variable_list& in, const PolarizationSettings& s, const Tensor& activations, const Tensor& by,
                              const std::vector<bool>& wanted) {
  const Polarization<T> net(in, s);
  const auto all = shares(net.in[CENTERS]);
  const auto if_wanted = [&](int k) { return wanted[k] ? at::empty_like(net.in[k]) : Tensor(); };
  Tensor vectors = if_wanted(VECTORS), charges = if_wanted(CHARGES);
  Sum multipoles({in[MULTIPOLES].size(0), net.C}, by), by_atom({in[BY_ATOM].size(0), net.network.H}, by);
  Sum weights({in[WEIGHTS_BY_ATOM].size(0), net.n_weights}, by);
  const auto pointer = [](const Tensor& x) { return x.defined() ? x.data_ptr<T>() : nullptr; };
  for_shares(net, all, [&](int64_t k, PolarizedTile<T>& tile, int thread) {
    const T* kept = activations.numel() ? activations.data_ptr<T>() + k * net.kept_of_tile() : nullptr;
    tile.backward(all[k], kept, by.data_ptr<T>(),
                  {pointer(vectors), pointer(charges), multipoles.data<T>(thread), by_atom.data<T>(thread), weights.data<T>(thread)});
  });
  return {vectors, charges, Tensor(), multipoles.total(), by_atom.total(), weights.total()};
}

// The same from operators that autograd differentiates twice and by the weights, all pairs at once.
Tensor composed(const variable_list& in, const PolarizationSettings& s) {
  const int64_t order = orders_of(in[MULTIPOLES].size(1)) - 1;
  const auto [unit, tensors, radial, envelope] = pair_geometry(in[VECTORS], s.cutoff, s.exponent, s.n_radial, order);
  const Tensor x = polarized_features(in[MULTIPOLES], tensors, radial, in[CHARGES], in[WEIGHTS_BY_ATOM], in[MATRIX], in[CENTERS]);
  return pair_sum(x, {}, in[BY_ATOM], {}, in[CENTERS], in[CENTERS], s.scale * in[CHARGES] * envelope, tensors, in[W1], in[W2],
                  in[B2], in[W3], 1, 1);
}

struct PolarizedMultipoles : public torch::autograd::Function<PolarizedMultipoles> {
  static Tensor forward(AutogradContext* ctx, at::TensorList all, const PolarizationSettings& s) {
    variable_list in = all.vec(), r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "polarized_multipoles", [&] { r = forward_kernel<scalar_t>(in, s, true); });
    in.push_back(r[1]);
    ctx->save_for_backward(in);
    remember(ctx, {{s.exponent, s.n_radial, s.largest_kept, s.bfloat16}, {s.cutoff, s.scale}});
    return r[0];
  }

  static variable_list backward(AutogradContext* ctx, variable_list by) {
    variable_list in = ctx->get_saved_variables();
    const Options o = remembered(ctx);
    const PolarizationSettings s{o.real[0], o.real[1], o.whole[0], o.whole[1], o.whole[2], o.whole[3] != 0};
    const Tensor activations = in.back();
    in.pop_back();
    std::vector<bool> wanted(N_INPUTS);
    for (int i = 0; i < N_INPUTS; ++i) wanted[i] = ctx->needs_input_grad(i);
    variable_list r;
    if (at::GradMode::is_enabled()) {  // the gradients will be differentiated, too
      r = differentiable(in, s, by[0], wanted);
    } else {
      AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "polarized_multipoles_backward",
                                 [&] { r = backward_kernel<scalar_t>(in, s, activations, by[0].contiguous(), wanted); });
    }
    r.resize(N_INPUTS + 1);
    return r;
  }

  static variable_list differentiable(variable_list in, const PolarizationSettings& s, const Tensor& by, const std::vector<bool>& wanted) {
    variable_list asked, r(N_INPUTS);
    for (int i = 0; i < N_INPUTS; ++i) {
      if (!wanted[i]) continue;
      in[i] = in[i].view_as(in[i]);  // inputs may depend on each other
      asked.push_back(in[i]);
    }
    const variable_list g = torch::autograd::grad({composed(in, s)}, asked, {by}, true, true, true);
    for (int i = 0, k = 0; i < N_INPUTS; ++i)
      if (wanted[i]) r[i] = g[k++];
    return r;
  }
};

}  // namespace

Tensor polarized_multipoles(const Tensor& vectors, const Tensor& charges, const Tensor& centers, const Tensor& multipoles,
                            const Tensor& by_atom, const Tensor& weights_by_atom, const Tensor& matrix, const Tensor& w1,
                            const Tensor& w2, const Tensor& b2, const Tensor& w3, double cutoff, int64_t exponent,
                            int64_t n_radial, double scale, int64_t largest_kept, bool bfloat16) {
  const variable_list all{vectors, charges, centers, multipoles, by_atom, weights_by_atom, matrix, w1, w2, b2, w3};
  const PolarizationSettings s{cutoff, scale, exponent, n_radial, largest_kept, bfloat16};
  if (takes_gpu(vectors) || needs_graph({matrix, w1, w2, b2, w3})) return composed(all, s);
  check_cpu(vectors, "vectors");
  if (needs_graph(all)) return PolarizedMultipoles::apply(at::TensorList(all), s);
  variable_list r;
  AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "polarized_multipoles", [&] { r = forward_kernel<scalar_t>(all, s, false); });
  return r[0];
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
