// Turns a kernel with forward and first derivative into an operation that autograd differentiates once, for evaluations.
//
// A kernel K has, for inputs and outputs as lists of tensors:
//   static std::vector<Tensor> forward(Options, inputs)               -> outputs
//   static std::vector<Tensor> backward(Options, inputs, by_outputs)  -> gradients by the inputs, undefined where there is none
#pragma once

#include "twice.h"

namespace ampmm {

template <class K>
struct Once : public torch::autograd::Function<Once<K>> {
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, const Options& o) {
    ctx->save_for_backward(inputs.vec());
    remember(ctx, o);
    return K::forward(o, inputs.vec());
  }

  static variable_list backward(AutogradContext* ctx, variable_list g) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "second derivatives of this native operator are not implemented; put the model into "
                "training mode, which uses the twins");
    auto inputs = ctx->get_saved_variables();
    auto r = K::backward(remembered(ctx), inputs, g);
    r.resize(inputs.size() + 1);
    return r;
  }
};

template <class K>
std::vector<Tensor> run_once(const Options& o, std::vector<Tensor> inputs) {
  if (needs_graph(inputs)) return Once<K>::apply(at::TensorList(inputs), o);
  return K::forward(o, inputs);
}

}  // namespace ampmm
