#include "autograd.h"

#include "../twice.h"

#include <torch/library.h>

namespace ampmm {

#ifndef AMPMM_GPU

bool takes_gpu(const at::Tensor&) { return false; }

namespace gpu {
namespace {

[[noreturn]] void not_built() {
  TORCH_CHECK(false, "the native operators were built without kernels for the GPU; build them again where torch finds one (make plugin), "
              "or write the model with AMPMM_NATIVE=0");
}

// An archive written where there are kernels has these, and does not load without them.
Tensor node_linear(const Tensor&, const Tensor&, const std::optional<Tensor>&) { not_built(); }
Tensor atom_network(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&) { not_built(); }
Tensor appended_norms(const Tensor&, const Tensor&, int64_t) { not_built(); }
std::tuple<Tensor, Tensor, Tensor, Tensor> listed_pairs(const Tensor&, const Tensor&, const std::optional<Tensor>&, const Tensor&, double,
                                                        int64_t, int64_t, double, bool) {
  not_built();
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> pair_geometry(const Tensor&, const GeometrySettings&) { not_built(); }
Tensor anisotropic_features(const Tensors&, int64_t) { not_built(); }
Tensor polarized_features(const Tensors&) { not_built(); }
Tensor summed_pairs(const Tensors&, int64_t) { not_built(); }
std::tuple<Tensor, Tensor> charge_potential(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, at::ArrayRef<double>) {
  not_built();
}
std::tuple<Tensor, Tensor> sums_over_pairs(const Tensor&, const Tensor&, const Tensor&, int64_t, int64_t) { not_built(); }

}  // namespace gpu

#else

bool takes_gpu(const at::Tensor& x) {
#ifdef AMPMM_EMULATED_GPU
  return x.device().is_cpu();
#else
  return x.device().is_cuda();
#endif
}

namespace gpu {
namespace {

// Turns a kernel K with
//   static std::pair<Tensors, Tensors> forward(Options, inputs)                     -> outputs, and what the derivative wants kept
//   static Tensors backward(Options, inputs, kept, by_outputs, wanted)              -> gradients by the inputs
// into an operation that autograd differentiates once. Undefined tensors stand for what is not there.
template <class K>
struct Differentiable : public torch::autograd::Function<Differentiable<K>> {
  static variable_list forward(AutogradContext* ctx, at::TensorList given, const Options& o) {
    Tensors inputs = given.vec();
    auto saved = inputs;
    for (auto& each : inputs) each = absent(each);
    auto [outputs, kept] = K::forward(o, inputs);
    for (const auto& each : kept) saved.push_back(present(each, saved[0]));
    ctx->save_for_backward(saved);
    ctx->saved_data["n_inputs"] = static_cast<int64_t>(inputs.size());
    remember(ctx, o);
    ctx->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list by) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "second derivatives of this operator are not implemented on a GPU; put the model into "
                "training mode, or set AMPMM_NATIVE=0");
    auto saved = ctx->get_saved_variables();
    for (auto& each : saved) each = absent(each);
    const size_t n = ctx->saved_data["n_inputs"].toInt();
    bool any = false;
    for (auto& each : by)
      if (each.defined()) {
        each = each.contiguous();
        any = true;
      }
    if (!any) return variable_list(n + 1);
    std::vector<bool> wanted(n);
    for (size_t i = 0; i < n; ++i) wanted[i] = ctx->needs_input_grad(i);
    auto r = K::backward(remembered(ctx), slice(saved, 0, n), slice(saved, n, saved.size()), by, wanted);
    r.resize(n + 1);
    for (size_t i = 0; i < n; ++i) {
      TORCH_CHECK(!wanted[i] || r[i].defined() || !saved[i].defined(), "derivatives by the weights of this operator are not implemented on a "
                  "GPU; put the model into training mode, or set AMPMM_NATIVE=0");
      if (!wanted[i]) r[i] = Tensor();
    }
    return r;
  }
};

template <class K>
Tensors run(const Options& o, Tensors inputs) {
  for (auto& each : inputs)
    if (each.defined()) each = each.contiguous();
  if (!needs_graph(inputs)) return K::forward(o, inputs).first;
  const Tensor like = inputs[0];
  for (auto& each : inputs) each = present(each, like);
  return Differentiable<K>::apply(at::TensorList(inputs), o);
}

struct Geometry {
  static GeometrySettings settings(const Options& o) { return {o.real[0], o.whole[0], o.whole[1], o.whole[2]}; }
  static std::pair<Tensors, Tensors> forward(const Options& o, const Tensors& in) { return {geometry(in[0], settings(o)), {}}; }
  static Tensors backward(const Options& o, const Tensors& in, const Tensors&, const Tensors& by, const std::vector<bool>&) {
    return {geometry_backward(in[0], by, settings(o))};
  }
};

struct Anisotropic {
  static std::pair<Tensors, Tensors> forward(const Options& o, const Tensors& in) { return {{anisotropic(in, o.whole[0])}, {}}; }
  static Tensors backward(const Options& o, const Tensors& in, const Tensors&, const Tensors& by, const std::vector<bool>&) {
    Tensors r = anisotropic_backward(in, o.whole[0], by[0]);
    r.resize(in.size());
    return r;
  }
};

struct Polarized {
  static std::pair<Tensors, Tensors> forward(const Options&, const Tensors& in) { return {{polarized(in)}, {}}; }
  static Tensors backward(const Options&, const Tensors& in, const Tensors&, const Tensors& by, const std::vector<bool>&) {
    Tensors r = polarized_backward(in, by[0]);
    r.resize(in.size());
    return r;
  }
};

struct PairSum {
  static std::pair<Tensors, Tensors> forward(const Options& o, const Tensors& in) {
    Tensors r = pair_sum(in, o.whole[0]);
    return {{r[0]}, {r[1], r[2], r[3]}};
  }
  static Tensors backward(const Options& o, const Tensors& in, const Tensors& kept, const Tensors& by, const std::vector<bool>& wanted) {
    Tensors g = pair_sum_backward(in, kept, by[0], o.whole[0], wanted), r(in.size());
    r[0] = g[0], r[1] = g[1], r[2] = g[2], r[3] = g[3], r[6] = g[4], r[7] = g[5];
    return r;
  }
};

struct Linear {
  static std::pair<Tensors, Tensors> forward(const Options&, const Tensors& in) { return {{linear(in[0], in[1], in[2])}, {}}; }
  static Tensors backward(const Options&, const Tensors& in, const Tensors&, const Tensors& by, const std::vector<bool>&) {
    return {linear_backward(by[0], in[1]), Tensor(), Tensor()};
  }
};

struct NodeNetwork {
  static std::pair<Tensors, Tensors> forward(const Options&, const Tensors& in) {
    Tensors r = node_network(in);
    return {{r[0]}, {r[1], r[2]}};
  }
  static Tensors backward(const Options&, const Tensors& in, const Tensors& kept, const Tensors& by, const std::vector<bool>&) {
    Tensors r(in.size());
    r[0] = node_network_backward(in, kept, by[0]);
    return r;
  }
};

struct WithNorms {
  static std::pair<Tensors, Tensors> forward(const Options& o, const Tensors& in) { return {{with_norms(in[0], in[1], o.whole[0])}, {}}; }
  static Tensors backward(const Options& o, const Tensors& in, const Tensors&, const Tensors& by, const std::vector<bool>&) {
    return with_norms_backward(in[1], by[0], in[0].size(1), o.whole[0]);
  }
};

void check_width(const Tensor& w2) {
  TORCH_CHECK(w2.size(0) <= MAX_WIDTH && w2.size(0) == w2.size(1), "w2: expected at most ", MAX_WIDTH, " rows and columns, got ", w2.sizes());
}

void check_device(const Tensor& x) { TORCH_CHECK(takes_gpu(x), "expected a tensor on a GPU, got one on ", x.device()); }

Tensor node_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  check_device(x);
  return run<Linear>({}, {x, weight, bias.value_or(Tensor())})[0];
}

Tensor atom_network(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2, const std::optional<Tensor>& w3) {
  check_device(x);
  check_width(w2);
  TORCH_CHECK(!w3 || w3->size(0) <= MAX_WIDTH, "w3: expected at most ", MAX_WIDTH, " rows");
  return run<NodeNetwork>({}, {x, w1, b1, w2, b2, w3.value_or(Tensor())})[0];
}

Tensor appended_norms(const Tensor& hidden, const Tensor& multipoles, int64_t order) {
  check_device(hidden);
  TORCH_CHECK(multipoles.size(1) == (order + 1) * (order + 1), "multipoles: expected ", (order + 1) * (order + 1), " components");
  return run<WithNorms>({{order}, {}}, {hidden, multipoles})[0];
}

std::tuple<Tensor, Tensor, Tensor, Tensor> listed_pairs(const Tensor& positions, const Tensor& others, const std::optional<Tensor>& box,
                                                        const Tensor& like, double cutoff, int64_t capacity, int64_t neighbor, double away,
                                                        bool distinct) {
  check_device(positions);
  for (const Tensor& each : {positions, others})
    TORCH_CHECK(each.scalar_type() == at::kDouble, "padded_pairs: expected float64, got ", each.scalar_type());
  TORCH_CHECK(positions.size(0) > 0, "positions: expected at least one atom");
  const Tensors r = padded_pairs(positions.contiguous(), others.contiguous(), box ? box->contiguous() : Tensor(), like,
                                 {capacity, neighbor, cutoff, away, distinct});
  return {r[0], r[1], r[2], r[3]};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> pair_geometry(const Tensor& vectors, const GeometrySettings& s) {
  const Tensors r = run<Geometry>({{s.exponent, s.n_radial, s.order}, {s.cutoff}}, {vectors});
  return {r[0], r[1], r[2], r[3]};
}

Tensor anisotropic_features(const Tensors& in, int64_t order) { return run<Anisotropic>({{order}, {}}, in)[0]; }

Tensor polarized_features(const Tensors& in) { return run<Polarized>({}, in)[0]; }

Tensor summed_pairs(const Tensors& in, int64_t lowest_order) {
  check_width(in[9]);
  TORCH_CHECK(!in[11].defined() || in[11].size(0) <= MAX_ORDER + 1, "w3: expected at most ", MAX_ORDER + 1, " rows on a GPU, got ", in[11].size(0));
  return run<PairSum>({{lowest_order}, {}}, in)[0];
}

}  // namespace gpu

#endif

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  using namespace ampmm;
  library.def("atom_linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor", &gpu::node_linear);
  library.def("atom_network(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? w3) -> Tensor", &gpu::atom_network);
  library.def("with_norms(Tensor hidden, Tensor multipoles, int order) -> Tensor", &gpu::appended_norms);
  library.def(
      "padded_pairs(Tensor positions, Tensor others, Tensor? box, Tensor like, float cutoff, int capacity, int neighbor, float away, "
      "bool distinct) -> (Tensor, Tensor, Tensor, Tensor)",
      &gpu::listed_pairs);
  // The type of device whose tensors the kernels take, or "".
#if !defined(AMPMM_GPU)
  library.def("gpu_device() -> str", [] { return std::string(); });
#elif defined(AMPMM_EMULATED_GPU)
  library.def("gpu_device() -> str", [] { return std::string("cpu"); });
#else
  library.def("gpu_device() -> str", [] { return std::string("cuda"); });
#endif
}
