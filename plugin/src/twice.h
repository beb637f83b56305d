// Turns a kernel with forward, first and second derivative into an operation that autograd differentiates twice.
//
// A kernel K has, for inputs and outputs as lists of tensors:
//   static std::vector<Tensor> forward(Options, inputs)                        -> outputs
//   static std::vector<Tensor> backward(Options, inputs, by_outputs)           -> gradients by the inputs
//   static std::vector<Tensor> second(Options, inputs, by_outputs, tangents, by_first)
//       tangents: the gradients by what `backward` returned; -> gradients by the inputs and by by_outputs, one after another;
//       by_first: whether the gradient by the first input is asked for
//   static bool has_tangent(int i)  whether the gradient by input i is itself differentiable
// An undefined tensor in a result means that there is no gradient.
#pragma once

#include "common.h"

#include <torch/csrc/autograd/custom_function.h>

namespace ampmm {

struct Options {
  std::vector<int64_t> whole;
  std::vector<double> real;
};

// A Function can neither take nor return an undefined tensor: an empty one of a shape that nothing else has stands for it.
inline Tensor present(const Tensor& x, const Tensor& like) { return x.defined() ? x : at::empty({0, 0, 0, 0}, like.options()); }
inline Tensor absent(const Tensor& x) { return x.defined() && x.dim() == 4 ? Tensor() : x; }

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline std::vector<Tensor> slice(const std::vector<Tensor>& all, size_t from, size_t to) {
  return {all.begin() + from, all.begin() + to};
}

inline void remember(AutogradContext* ctx, const Options& o) {
  ctx->saved_data["whole"] = o.whole;
  ctx->saved_data["real"] = o.real;
}
inline Options remembered(AutogradContext* ctx) {
  return {ctx->saved_data["whole"].toIntVector(), ctx->saved_data["real"].toDoubleVector()};
}

template <class K>
struct FirstDerivative : public torch::autograd::Function<FirstDerivative<K>> {
  static variable_list forward(AutogradContext* ctx, at::TensorList all, int64_t n_inputs, const Options& o) {
    std::vector<Tensor> list = all.vec();
    auto r = K::backward(o, slice(list, 0, n_inputs), slice(list, n_inputs, list.size()));
    ctx->save_for_backward(list);
    ctx->saved_data["n_inputs"] = n_inputs;
    remember(ctx, o);
    ctx->set_materialize_grads(false);
    for (auto& each : r) each = present(each, list[0]);
    return r;
  }

  static variable_list backward(AutogradContext* ctx, variable_list u) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "third derivatives of the native operators are not implemented; use the twins");
    auto list = ctx->get_saved_variables();
    const size_t n = ctx->saved_data["n_inputs"].toInt();
    auto inputs = slice(list, 0, n);
    for (size_t i = 0; i < n; ++i) {
      TORCH_CHECK(!u[i].defined() || K::has_tangent(i), "derivatives of weight gradients are not implemented natively; use the twins");
      if (!u[i].defined() && K::has_tangent(i)) u[i] = at::zeros_like(inputs[i]);
    }
    auto r = K::second(remembered(ctx), inputs, slice(list, n, list.size()), u, ctx->needs_input_grad(0));
    r.resize(list.size() + 2);
    return r;
  }
};

template <class K>
struct Twice : public torch::autograd::Function<Twice<K>> {
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, const Options& o) {
    auto r = K::forward(o, inputs.vec());
    ctx->save_for_backward(inputs.vec());
    remember(ctx, o);
    return r;
  }

  static variable_list backward(AutogradContext* ctx, variable_list g) {
    auto inputs = ctx->get_saved_variables();
    std::vector<Tensor> r;
    if (at::GradMode::is_enabled()) {
      std::vector<Tensor> all = inputs;
      all.insert(all.end(), g.begin(), g.end());
      r = FirstDerivative<K>::apply(at::TensorList(all), static_cast<int64_t>(inputs.size()), remembered(ctx));
      for (auto& each : r) each = absent(each);
    } else {
      r = K::backward(remembered(ctx), inputs, g);
    }
    r.resize(inputs.size() + 1);
    return r;
  }
};

// Whether autograd will ask for derivatives by one of them. Tangents, which forward mode carries along, would be lost without a word.
inline bool needs_graph(at::TensorList all) {
  for (const Tensor& each : all)
    TORCH_CHECK(!each.defined() || !each._fw_grad(0).defined(), "forward-mode derivatives of the native operators are not implemented; use "
                "torch.autograd.grad");
  if (!at::GradMode::is_enabled()) return false;
  for (const Tensor& each : all)
    if (each.defined() && each.requires_grad()) return true;
  return false;
}

template <class K>
std::vector<Tensor> run_twice(const Options& o, std::vector<Tensor> inputs) {
  if (needs_graph(inputs)) return Twice<K>::apply(at::TensorList(inputs), o);
  return K::forward(o, inputs);
}

}  // namespace ampmm
