// What the MM charges add to the multipoles (Eq. 10), a chunk of pairs after the other. Nothing of a chunk is kept: its
// derivatives compute it again, so that memory grows with the lists of pairs alone and not with their activations.
#include "operators.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

namespace ampmm {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The first three are of the pairs, the others of the atoms or the network.
enum { VECTORS, CHARGES, CENTERS, MULTIPOLES, BY_ATOM, WEIGHTS_BY_ATOM, MATRIX, W1, W2, B2, W3, N_INPUTS };

struct Settings {
  double cutoff, scale;
  int64_t exponent, n_radial, pairs_per_chunk;
};

// One chunk, its pairs in the first three of `in`.
Tensor chunk(const variable_list& in, const Settings& s) {
  int64_t order = 0;
  while ((order + 1) * (order + 1) < in[MULTIPOLES].size(1)) ++order;
  const auto [unit, tensors, radial, envelope] = pair_geometry(in[VECTORS], s.cutoff, s.exponent, s.n_radial, order);
  const Tensor x = polarized_features(in[MULTIPOLES], tensors, radial, in[CHARGES], in[WEIGHTS_BY_ATOM], in[MATRIX], in[CENTERS]);
  return pair_sum(x, {}, in[BY_ATOM], {}, in[CENTERS], in[CENTERS], s.scale * in[CHARGES] * envelope, tensors, in[W1], in[W2],
                  in[B2], in[W3], 1, 1);
}

// The inputs of the chunk that begins at `first`.
variable_list inputs_of(const variable_list& in, int64_t first, const Settings& s) {
  const int64_t m = std::min(s.pairs_per_chunk, in[VECTORS].size(0) - first);
  variable_list own = in;
  for (int i : {VECTORS, CHARGES, CENTERS}) own[i] = in[i].narrow(0, first, m);
  return own;
}

struct PolarizedMultipoles : public torch::autograd::Function<PolarizedMultipoles> {
  static Tensor forward(AutogradContext* ctx, at::TensorList all, const Settings& s) {
    const variable_list in = all.vec();
    ctx->save_for_backward(in);
    ctx->saved_data["real"] = std::vector<double>{s.cutoff, s.scale};
    ctx->saved_data["whole"] = std::vector<int64_t>{s.exponent, s.n_radial, s.pairs_per_chunk};
    Tensor total = at::zeros_like(in[MULTIPOLES]);
    for (int64_t first = 0; first < in[VECTORS].size(0); first += s.pairs_per_chunk)
      total += chunk(inputs_of(in, first, s), s);
    return total;
  }

  static variable_list backward(AutogradContext* ctx, variable_list by) {
    const variable_list in = ctx->get_saved_variables();
    const auto real = ctx->saved_data["real"].toDoubleVector();
    const auto whole = ctx->saved_data["whole"].toIntVector();
    const Settings s{real[0], real[1], whole[0], whole[1], whole[2]};
    const bool again = at::GradMode::is_enabled();  // the gradients will be differentiated, too
    std::vector<bool> wanted(N_INPUTS);
    for (int i = 0; i < N_INPUTS; ++i) wanted[i] = ctx->needs_input_grad(i);
    variable_list by_vectors, total(N_INPUTS + 1);
    c10::AutoGradMode on(true);
    for (int64_t first = 0; first < in[VECTORS].size(0); first += s.pairs_per_chunk) {
      variable_list own = inputs_of(in, first, s), asked;
      for (int i = 0; i < N_INPUTS; ++i) {
        if (!wanted[i]) continue;
        // Of a graph that begins here, or of views: inputs may depend on each other.
        own[i] = again ? own[i].view_as(own[i]) : own[i].detach().requires_grad_();
        asked.push_back(own[i]);
      }
      const Tensor part = chunk(own, s);
      const variable_list g = torch::autograd::grad({part}, asked, {by[0]}, again, again, true);
      for (int i = 0, k = 0; i < N_INPUTS; ++i) {
        if (!wanted[i]) continue;
        const Tensor& each = g[k++];
        if (i == VECTORS)
          by_vectors.push_back(each.defined() ? each : at::zeros_like(own[VECTORS]));
        else if (each.defined())
          total[i] = total[i].defined() ? total[i] + each : each;
      }
    }
    if (!by_vectors.empty()) total[VECTORS] = at::cat(by_vectors);
    return total;
  }
};

}  // namespace

Tensor polarized_multipoles(const Tensor& vectors, const Tensor& charges, const Tensor& centers, const Tensor& multipoles,
                            const Tensor& by_atom, const Tensor& weights_by_atom, const Tensor& matrix, const Tensor& w1,
                            const Tensor& w2, const Tensor& b2, const Tensor& w3, double cutoff, int64_t exponent,
                            int64_t n_radial, double scale, int64_t pairs_per_chunk) {
  check_cpu(vectors, "vectors");
  TORCH_CHECK(pairs_per_chunk > 0, "pairs_per_chunk: expected a positive number, got ", pairs_per_chunk);
  TORCH_CHECK(!charges.requires_grad(), "charges: gradients by the MM charges are not implemented natively; use the twin");
  const variable_list all{vectors, charges, centers, multipoles, by_atom, weights_by_atom, matrix, w1, w2, b2, w3};
  return PolarizedMultipoles::apply(at::TensorList(all), Settings{cutoff, scale, exponent, n_radial, pairs_per_chunk});
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "polarized_multipoles(Tensor vectors, Tensor charges, Tensor centers, Tensor multipoles, Tensor by_atom, "
      "Tensor weights_by_atom, Tensor matrix, Tensor w1, Tensor w2, Tensor b2, Tensor w3, float cutoff, int exponent, "
      "int n_radial, float scale, int pairs_per_chunk) -> Tensor",
      &ampmm::polarized_multipoles);
}
