// Turns a kernel with forward and first derivative into an operation for evaluations, for which operators that autograd differentiates
// twice stand in where weights learn or gradients are differentiated.
//
// A kernel K has, for inputs and outputs as lists of tensors of which some may be undefined:
//   static Tensors forward(Options, inputs, kept)              -> outputs; to `kept`, if not null, goes what the derivative wants
//   static Tensors backward(Options, inputs, kept, by_outputs) -> gradients by the inputs, undefined where there is none
//   static Tensors composed(Options, inputs)                   -> outputs by operations that autograd differentiates twice
#pragma once

#include "twice.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

namespace ampmm {

using Tensors = std::vector<Tensor>;

template <class K>
struct Composed : public torch::autograd::Function<Composed<K>> {
  static variable_list forward(AutogradContext* ctx, at::TensorList given, const Options& o) {
    Tensors saved = given.vec(), in = saved, kept, out;
    for (auto& each : in) each = absent(each);
    {
      const at::AutoDispatchBelowADInplaceOrView no_autograd;
      out = K::forward(o, in, &kept);
    }
    for (const auto& each : kept) saved.push_back(present(each, saved[0]));
    ctx->save_for_backward(saved);
    ctx->saved_data["n_inputs"] = static_cast<int64_t>(in.size());
    remember(ctx, o);
    ctx->set_materialize_grads(false);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list by) {
    const auto saved = ctx->get_saved_variables();
    const size_t n = ctx->saved_data["n_inputs"].toInt();
    Tensors in = slice(saved, 0, n), kept = slice(saved, n, saved.size()), r;
    for (auto* list : {&in, &kept})
      for (auto& each : *list) each = absent(each);
    const bool any = std::any_of(by.begin(), by.end(), [](const Tensor& each) { return each.defined(); });
    if (any && at::GradMode::is_enabled()) {
      r = differentiable(ctx, remembered(ctx), in, by);
    } else if (any) {
      const at::AutoDispatchBelowADInplaceOrView no_autograd;
      r = K::backward(remembered(ctx), in, kept, by);
    }
    r.resize(n + 1);
    return r;
  }

  // Gradients that are differentiable themselves. Aliases of the inputs: one may depend on another, which is not this node's to follow.
  static Tensors differentiable(AutogradContext* ctx, const Options& o, Tensors in, const Tensors& by) {
    Tensors wanted, outputs, given, r(in.size());
    std::vector<size_t> places;
    for (size_t i = 0; i < in.size(); ++i)
      if (in[i].defined() && ctx->needs_input_grad(i)) {
        in[i] = at::alias(in[i]);
        wanted.push_back(in[i]);
        places.push_back(i);
      }
    const Tensors out = K::composed(o, in);
    for (size_t i = 0; i < out.size(); ++i)
      if (by[i].defined()) outputs.push_back(out[i]), given.push_back(by[i]);
    const auto gradients = torch::autograd::grad(outputs, wanted, given, true, true, true);
    for (size_t i = 0; i < places.size(); ++i) r[places[i]] = gradients[i];
    return r;
  }
};

template <class K>
Tensors run_composed(const Options& o, Tensors in, const Tensors& weights) {
  in.insert(in.end(), weights.begin(), weights.end());
  if (needs_graph(weights)) return K::composed(o, in);
  if (!needs_graph(in)) {
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    return K::forward(o, in, nullptr);
  }
  for (auto& each : in) each = present(each, in[0]);
  return Composed<K>::apply(at::TensorList(in), o);
}

}  // namespace ampmm
