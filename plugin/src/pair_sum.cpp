#include "gpu/autograd.h"
#include "operators.h"
#include "pair_sum.h"
#include "twice.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

// (y . R)^k of a tile: row k of `out`, (K, m).
template <class T>
void project(const PairSumInput& in, const T* y, const Tensor& tensors, int64_t first, int64_t m, T* out) {
  const int64_t C = in.n_out(), K = in.w.last();
  const int64_t* centers = in.centers.data_ptr<int64_t>() + first;
  for (int64_t k = 0; k < K; ++k) {
    T* row = out + k * m;
    std::fill(row, row + m, T(0));
    in.components(k, [&](int64_t c, int64_t place) {
      const T* r = column<T>(tensors, c, first);
      for_runs(centers, m, [&](int64_t begin, int64_t end, int64_t i) {
        const T own = y[i * C + place];
#pragma omp simd
        for (int64_t p = begin; p < end; ++p) row[p] += own * r[p];
      });
    });
  }
}

template <class T>
void gather_atoms(const PairSumInput& in, const Tensor& center, const Tensor& neighbor, int64_t first, Tensor z) {
  if (center.defined())
    gather_rows<T>(center, in.centers.data_ptr<int64_t>() + first, z, false);
  else
    z.zero_();
  if (neighbor.defined()) gather_rows<T>(neighbor, in.neighbors.data_ptr<int64_t>() + first, z, true);
}

// With `keep`, z1, z2 and out are stored for the derivatives; kept.slopes says how.
template <class T>
Tensor forward_kernel(const PairSumInput& in, bool keep, PairSumActivations& kept) {
  const int64_t n = in.n_pairs(), H = in.w.width(), K = in.w.last(), C = in.n_out(), N = in.center_part.size(0);
  if (keep) {
    kept.z1 = at::empty({n, H}, in.features.options());
    kept.z2 = at::empty({n, H}, in.features.options());
    if (K) kept.out = new_columns(n, K, in.features);
  }
  Sum total({N, C}, in.features);
  for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
    auto s = scratch(keep ? 1 : 3, m, H, in.features);
    Tensor z1 = keep ? kept.z1.narrow(0, first, m) : s[1], z2 = keep ? kept.z2.narrow(0, first, m) : s[2];
    Tensor own = K && !keep ? new_columns(m, K, in.features) : Tensor();
    T* out = !K ? nullptr : keep ? column<T>(kept.out, 0, first) : own.data_ptr<T>();
    const int64_t stride = keep ? n : m;
    gather_atoms<T>(in, in.center_part, in.neighbor_part, first, z1);
    mlp_forward<T>(in.w, in.features.narrow(0, first, m), in.part(in.leading, first, m), z1, z2, s[0], out, stride, keep && kept.slopes);
    const T* scale = in.scale.data_ptr<T>() + first;
    const int64_t* centers = in.centers.data_ptr<int64_t>() + first;
    T* y = total.data<T>(thread);
    if (K == 0) {
      const T* h = s[0].data_ptr<T>();
      for (int64_t p = 0; p < m; ++p) {
        T* row = y + centers[p] * C;
#pragma omp simd
        for (int64_t i = 0; i < H; ++i) row[i] += scale[p] * h[p * H + i];
      }
      return;
    }
    for (int64_t k = 0; k < K; ++k)
      in.components(k, [&](int64_t c, int64_t place) {
        const T *r = column<T>(in.tensors, c, first), *own = out + k * stride;
        for_runs(centers, m, [&](int64_t begin, int64_t end, int64_t i) {
          T sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int64_t p = begin; p < end; ++p) sum += scale[p] * own[p] * r[p];
          y[i * C + place] += sum;
        });
      });
  });
  return total.total();
}

// The gradient by scale and tensors, and by_out in `by_out` (components for K > 0, rows else).
template <class T>
void by_aggregate(const PairSumInput& in, const PairSumActivations& kept, const T* y, int64_t first, int64_t m, T* by_out,
                  Tensor hidden, T* by_scale, const Tensor& by_tensors) {
  const int64_t n = in.n_pairs(), H = in.w.width(), K = in.w.last(), C = in.n_out();
  const T* scale = in.scale.data_ptr<T>() + first;
  const int64_t* centers = in.centers.data_ptr<int64_t>() + first;
  if (K == 0) {
    silu_of(kept.z2.data_ptr<T>() + first * H, hidden.data_ptr<T>(), m * H);
    const T* h = hidden.data_ptr<T>();
    for (int64_t p = 0; p < m; ++p) {
      const T* row = y + centers[p] * C;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < H; ++i) {
        sum += row[i] * h[p * H + i];
        by_out[p * H + i] = scale[p] * row[i];
      }
      by_scale[p] = sum;
    }
    return;
  }
  const T* out = column<T>(kept.out, 0, first);
  project<T>(in, y, in.tensors, first, m, by_out);
  std::fill(by_scale, by_scale + m, T(0));
  for (int64_t k = 0; k < K; ++k) {
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      by_scale[p] += out[k * n + p] * by_out[k * m + p];
      by_out[k * m + p] *= scale[p];
    }
    in.components(k, [&](int64_t c, int64_t place) {
      T* by = column<T>(by_tensors, c, first);
      for_runs(centers, m, [&](int64_t begin, int64_t end, int64_t i) {
        const T own = y[i * C + place];
#pragma omp simd
        for (int64_t p = begin; p < end; ++p) by[p] += scale[p] * out[k * n + p] * own;
      });
    });
  }
}

template <class T>
PairSumGradients backward_kernel(const PairSumInput& in, const PairSumActivations& kept, const Tensor& by_y, const Tensor& e1,
                                 const Tensor& e2, bool weights, bool keep) {
  const int64_t n = in.n_pairs(), H = in.w.width(), K = in.w.last();
  PairSumGradients g;
  g.features = new_columns(n, in.features.size(1), in.features);
  if (in.leading.defined()) g.leading = new_columns(n, in.leading.size(1), in.features);
  g.scale = at::empty({n}, in.features.options());
  if (K) g.tensors = zero_columns(n, in.tensors.size(1), in.features);
  if (keep) g.gs1 = at::empty({n, H}, in.features.options());
  Sum center({in.center_part.size(0), H}, in.features);
  Sum neighbor = in.neighbor_part.defined() ? Sum({in.neighbor_part.size(0), H}, in.features) : Sum();
  WeightSums sums = in.w.sums(weights);
  for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
    auto s = scratch(5, m, H, in.features);
    Tensor by_out = K ? at::empty({K, m}, in.features.options()) : s[4];
    Tensor gs1 = keep ? g.gs1.narrow(0, first, m) : s[3];
    by_aggregate<T>(in, kept, by_y.data_ptr<T>(), first, m, by_out.data_ptr<T>(), s[0], g.scale.data_ptr<T>() + first, g.tensors);
    const T* p1 = e1.defined() ? e1.data_ptr<T>() + first * H : nullptr;
    const T* p2 = e2.defined() ? e2.data_ptr<T>() + first * H : nullptr;
    mlp_backward<T>(in.w, in.features.narrow(0, first, m), in.part(in.leading, first, m), kept.z1.narrow(0, first, m),
                    kept.z2.narrow(0, first, m), by_out.data_ptr<T>(), m, p1, p2, gs1, s[0], s[1], s[2],
                    g.features.narrow(0, first, m), in.part(g.leading, first, m), sums, kept.slopes, thread);
    scatter_rows<T>(s[0], in.centers.data_ptr<int64_t>() + first, center.data<T>(thread));
    if (neighbor.parts.defined()) scatter_rows<T>(s[0], in.neighbors.data_ptr<int64_t>() + first, neighbor.data<T>(thread));
  });
  g.center_part = center.total();
  g.neighbor_part = neighbor.total();
  g.take(sums);
  return g;
}

// Tangents: the gradients by what backward_kernel returned.
struct PairSumTangents {
  Tensor features, center_part, neighbor_part, scale, tensors, leading;
};
struct PairSumSecond {
  Tensor y, e1, e2, scale, tensors, w1, w2, b2, w3;
};

template <class T>
PairSumSecond double_kernel(const PairSumInput& in, const PairSumActivations& kept, const Tensor& by_y, const Tensor& gs1_all,
                            const PairSumTangents& u, bool weights) {
  const int64_t n = in.n_pairs(), H = in.w.width(), K = in.w.last(), C = in.n_out();
  PairSumSecond r;
  r.e1 = at::empty({n, H}, in.features.options());
  r.e2 = at::empty({n, H}, in.features.options());
  r.scale = at::zeros({n}, in.features.options());
  if (K) r.tensors = zero_columns(n, in.tensors.size(1), in.features);
  Sum second_y({by_y.size(0), C}, in.features);
  WeightSums sums = in.w.sums(weights);
  const T* y = by_y.data_ptr<T>();
  for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
    auto s = scratch(7, m, H, in.features);
    const int64_t* centers = in.centers.data_ptr<int64_t>() + first;
    const T* scale = in.scale.data_ptr<T>() + first;
    const T* ds = u.scale.defined() ? u.scale.data_ptr<T>() + first : nullptr;
    T* by_scale = r.scale.data_ptr<T>() + first;
    T* sy = second_y.data<T>(thread);
    Tensor t1 = s[0], tangent = s[1], value = s[2], by_out = s[6];
    if (K) {
      tangent = at::empty({K, m}, in.features.options());
      value = at::zeros({K, m}, in.features.options());
      by_out = at::empty({K, m}, in.features.options());
    }
    Tensor plain = K ? at::empty({K, m}, in.features.options()) : Tensor();
    T *po = by_out.data_ptr<T>(), *pv = value.data_ptr<T>();
    if (K == 0) {
      for (int64_t p = 0; p < m; ++p) {
        const T* row = y + centers[p] * C;
        const T own = ds ? ds[p] : T(0);
#pragma omp simd
        for (int64_t i = 0; i < H; ++i) {
          po[p * H + i] = scale[p] * row[i];
          pv[p * H + i] = own * row[i];
        }
      }
    } else {
      const T* out = column<T>(kept.out, 0, first);
      T* pp = plain.data_ptr<T>();
      project<T>(in, y, in.tensors, first, m, pp);
      if (u.tensors.defined()) project<T>(in, y, u.tensors, first, m, pv);
      for (int64_t k = 0; k < K; ++k)
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          const T turned = pv[k * m + p];
          by_scale[p] += out[k * n + p] * turned;
          pv[k * m + p] = scale[p] * turned + (ds ? ds[p] * pp[k * m + p] : T(0));
          po[k * m + p] = scale[p] * pp[k * m + p];
        }
    }
    gather_atoms<T>(in, u.center_part, u.neighbor_part, first, t1);
    mlp_double_backward<T>(in.w, u.features.narrow(0, first, m), in.part(u.leading, first, m), kept.z1.narrow(0, first, m),
                           kept.z2.narrow(0, first, m), po, m, gs1_all.narrow(0, first, m), t1, pv, tangent.data_ptr<T>(),
                           r.e1.data_ptr<T>() + first * H, r.e2.data_ptr<T>() + first * H, s[3], s[4], s[5], s[K ? 1 : 2],
                           sums, thread);
    const T* t = tangent.data_ptr<T>();
    if (K == 0) {
      const T* h = s[2].data_ptr<T>();  // mlp_double_backward has left silu(z2) here
      for (int64_t p = 0; p < m; ++p) {
        const T* row = y + centers[p] * C;
        T* to = sy + centers[p] * C;
        const T own = ds ? ds[p] : T(0);
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < H; ++i) {
          sum += row[i] * t[p * H + i];
          to[i] += scale[p] * t[p * H + i] + own * h[p * H + i];
        }
        by_scale[p] = sum;
      }
      return;
    }
    const T *out = column<T>(kept.out, 0, first), *pp = plain.data_ptr<T>();
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t p = 0; p < m; ++p) by_scale[p] += t[k * m + p] * pp[k * m + p];
      in.components(k, [&](int64_t c, int64_t place) {
        const T* R = column<T>(in.tensors, c, first);
        const T* dR = column<T>(u.tensors, c, first);
        T* by = column<T>(r.tensors, c, first);
        for (int64_t p = 0; p < m; ++p) {
          const T a = t[k * m + p] * scale[p] + (ds ? out[k * n + p] * ds[p] : T(0));
          by[p] += a * y[centers[p] * C + place];
          sy[centers[p] * C + place] += a * R[p] + (dR ? out[k * n + p] * scale[p] * dR[p] : T(0));
        }
      });
    }
  });
  r.y = second_y.total();
  if (weights) {
    r.w1 = sums.w1.total();
    r.w2 = sums.w2.total();
    r.b2 = sums.b2.total();
    r.w3 = sums.w3.total();
  }
  return r;
}

Tensor whole(const Tensor& x) { return x.defined() ? x.contiguous() : x; }
Tensor columns(const Tensor& x) { return x.defined() ? as_columns(x) : x; }

PairSumInput input(const Tensor& features, const Tensor& center_part, const Tensor& neighbor_part, const Tensor& centers,
                   const Tensor& neighbors, const Tensor& scale, const Tensor& tensors, const Tensor& w1, const Tensor& w2,
                   const Tensor& b2, const Tensor& w3, const Tensor& leading, int64_t lowest, int64_t n_channels) {
  return {as_columns(features), whole(center_part), absent(whole(neighbor_part)), whole(centers), whole(neighbors), whole(scale),
          absent(columns(tensors)), lowest, n_channels, Weights(w1, w2, b2, absent(w3)), absent(columns(leading))};
}

// The first derivative, itself differentiable. Inputs 0..10 are those of PairSum, then y's gradient and the activations.
struct PairSumBackward : public torch::autograd::Function<PairSumBackward> {
  static variable_list forward(AutogradContext* ctx, const Tensor& features, const Tensor& center_part,
                               const Tensor& neighbor_part, const Tensor& centers, const Tensor& neighbors, const Tensor& scale,
                               const Tensor& tensors, const Tensor& w1, const Tensor& w2, const Tensor& b2, const Tensor& w3,
                               const Tensor& by_y, const Tensor& z1, const Tensor& z2, const Tensor& out,
                               const Tensor& leading, int64_t lowest, int64_t n_channels, bool weights) {
    PairSumInput in = input(features, center_part, neighbor_part, centers, neighbors, scale, tensors, w1, w2, b2, w3, leading, lowest, n_channels);
    PairSumGradients g;
    AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "pair_sum_backward", [&] {
      g = backward_kernel<scalar_t>(in, {z1, z2, out, false}, by_y.contiguous(), Tensor(), Tensor(), weights, true);
    });
    ctx->save_for_backward({features, center_part, neighbor_part, centers, neighbors, scale, tensors, w1, w2, b2, w3, by_y, z1, z2,
                            out, g.gs1, leading});
    ctx->saved_data["lowest"] = lowest;
    ctx->saved_data["n_channels"] = n_channels;
    ctx->set_materialize_grads(false);
    return {g.features, g.center_part, present(g.neighbor_part, z1), g.scale, present(g.tensors, z1), present(g.w1, z1),
            present(g.w2, z1), present(g.b2, z1), present(g.w3, z1), present(g.leading, z1)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list u) {
    auto v = ctx->get_saved_variables();
    TORCH_CHECK(!at::GradMode::is_enabled(), "third derivatives of the native operators are not implemented; use the twins");
    for (int i = 5; i < 9; ++i)
      TORCH_CHECK(!u[i].defined(), "derivatives of weight gradients are not implemented natively; use the twins");
    PairSumInput in = input(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[16],
                           ctx->saved_data["lowest"].toInt(), ctx->saved_data["n_channels"].toInt());
    if (!u[0].defined()) u[0] = at::zeros_like(v[0]);
    PairSumTangents tangents{columns(u[0]), whole(u[1]), absent(whole(u[2])), whole(u[3]), absent(columns(u[4])), absent(columns(u[9]))};
    PairSumSecond r;
    const bool weights = ctx->needs_input_grad(7) || ctx->needs_input_grad(8) || ctx->needs_input_grad(10);
    AT_DISPATCH_FLOATING_TYPES(v[0].scalar_type(), "pair_sum_double_backward", [&] {
      r = double_kernel<scalar_t>(in, {v[12], v[13], v[14], false}, whole(v[11]), v[15], tangents, weights);
    });
    Tensor none;
    return {none, none, none, none, none, r.scale, r.tensors, r.w1, r.w2, none, r.w3, r.y, r.e1, r.e2, none, none, none, none, none};
  }
};

struct PairSum : public torch::autograd::Function<PairSum> {
  static variable_list forward(AutogradContext* ctx, const Tensor& features, const Tensor& center_part,
                               const Tensor& neighbor_part, const Tensor& centers, const Tensor& neighbors, const Tensor& scale,
                               const Tensor& tensors, const Tensor& w1, const Tensor& w2, const Tensor& b2, const Tensor& w3,
                               const Tensor& leading, int64_t lowest, int64_t n_channels, bool slopes) {
    PairSumInput in = input(features, center_part, neighbor_part, centers, neighbors, scale, tensors, w1, w2, b2, w3, leading, lowest, n_channels);
    PairSumActivations kept;
    kept.slopes = slopes;
    const Tensor y = pair_sum_values(in, true, kept);
    // Saved as given, so that the second derivative reaches them.
    ctx->save_for_backward({features, center_part, neighbor_part, centers, neighbors, scale, tensors, w1, w2, b2, w3, kept.z1,
                            kept.z2, present(kept.out, features), leading});
    ctx->saved_data["lowest"] = lowest;
    ctx->saved_data["n_channels"] = n_channels;
    ctx->saved_data["slopes"] = slopes;
    ctx->set_materialize_grads(false);
    if (slopes) return {y};
    return {y, kept.z1, kept.z2};  // outputs: the second derivative gives gradients by them
  }

  static variable_list backward(AutogradContext* ctx, variable_list g) {
    auto v = ctx->get_saved_variables();
    const int64_t lowest = ctx->saved_data["lowest"].toInt(), n_channels = ctx->saved_data["n_channels"].toInt();
    const bool weights =
        ctx->needs_input_grad(7) || ctx->needs_input_grad(8) || ctx->needs_input_grad(9) || ctx->needs_input_grad(10);
    const auto& centers = v[3];
    Tensor by_y = g[0];
    if (!by_y.defined()) {
      const int64_t C = absent(v[10]).defined() ? v[6].size(1) * n_channels : v[8].size(0);
      by_y = at::zeros({v[1].size(0), C}, v[1].options());
    }
    Tensor none;
    const bool slopes = ctx->saved_data["slopes"].toBool();
    g.resize(3);
    if (at::GradMode::is_enabled()) {
      if (slopes) {  // nobody was expected to ask for second derivatives
        const auto again = PairSum::apply(v[0], v[1], v[2], centers, v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[14], lowest, n_channels, false);
        v[11] = again[1];
        v[12] = again[2];
      }
      TORCH_CHECK(!g[1].defined() && !g[2].defined(), "third derivatives of the native operators are not implemented");
      auto r = PairSumBackward::apply(v[0], v[1], v[2], centers, v[4], v[5], v[6], v[7], v[8], v[9], v[10], by_y, v[11], v[12],
                                      v[13], v[14], lowest, n_channels, weights);
      return {r[0], r[1], absent(r[2]), none, none, r[3], absent(r[4]), absent(r[5]), absent(r[6]), absent(r[7]), absent(r[8]),
              absent(r[9]), none, none, none};
    }
    PairSumInput in = input(v[0], v[1], v[2], centers, v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[14], lowest, n_channels);
    PairSumGradients r;
    AT_DISPATCH_FLOATING_TYPES(v[0].scalar_type(), "pair_sum_backward", [&] {
      r = backward_kernel<scalar_t>(in, {v[11], v[12], v[13], slopes}, by_y.contiguous(), whole(g[1]), whole(g[2]), weights, false);
    });
    return {r.features, r.center_part, r.neighbor_part, none, none, r.scale, r.tensors, r.w1, r.w2, r.b2, r.w3, r.leading, none, none, none};
  }
};

}  // namespace

Tensor pair_sum_values(const PairSumInput& in, bool keep, PairSumActivations& kept) {
  Tensor y;
  AT_DISPATCH_FLOATING_TYPES(in.features.scalar_type(), "pair_sum", [&] { y = forward_kernel<scalar_t>(in, keep, kept); });
  return y;
}

PairSumGradients pair_sum_gradients(const PairSumInput& in, const PairSumActivations& kept, const Tensor& by_y) {
  PairSumGradients g;
  AT_DISPATCH_FLOATING_TYPES(in.features.scalar_type(), "pair_sum_backward",
                             [&] { g = backward_kernel<scalar_t>(in, kept, by_y.contiguous(), Tensor(), Tensor(), false, false); });
  return g;
}

Tensor pair_sum(const Tensor& features, const std::optional<Tensor>& leading, const Tensor& center_part, const std::optional<Tensor>& neighbor_part,
                const Tensor& centers, const Tensor& neighbors, const Tensor& scale, const std::optional<Tensor>& tensors,
                const Tensor& w1, const Tensor& w2, const Tensor& b2, const std::optional<Tensor>& w3, int64_t lowest_order, int64_t n_channels) {
  const Tensor np = neighbor_part.value_or(Tensor()), R = tensors.value_or(Tensor()), last = w3.value_or(Tensor());
  const Tensor lead = leading.value_or(Tensor());
  TORCH_CHECK(R.defined() == last.defined(), "tensors, w3: expected both or none");
  if (last.defined()) {
    TORCH_CHECK(n_channels > 0 && last.size(0) % n_channels == 0, "w3: expected a multiple of ", n_channels, " rows, got ", last.size(0));
    const int64_t orders = lowest_order + last.size(0) / n_channels;
    TORCH_CHECK(R.size(1) == orders * orders, "tensors: expected ", orders * orders, " components, got ", R.size(1));
  }
  if (n_channels == 1 && takes_gpu(features))
    return gpu::summed_pairs({features, lead, center_part, np, centers, neighbors, scale, R, w1, w2, b2, last}, lowest_order);
  check_cpu(features, "features");
  if (needs_graph({features, lead, center_part, np, scale, R, w1, w2, b2, last}))
    return PairSum::apply(features, center_part, present(np, features), centers, neighbors, scale, present(R, features), w1, w2,
                          b2, present(last, features), present(lead, features), lowest_order, n_channels,
                          !needs_graph({w1, w2, b2, last}))[0];
  PairSumInput in = input(features, center_part, np, centers, neighbors, scale, R, w1, w2, b2, last, lead, lowest_order, n_channels);
  PairSumActivations none{};
  return pair_sum_values(in, false, none);
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "pair_sum(Tensor features, Tensor? leading, Tensor center_part, Tensor? neighbor_part, Tensor centers, Tensor neighbors, Tensor scale, "
      "Tensor? tensors, Tensor w1, Tensor w2, Tensor b2, Tensor? w3, int lowest_order, int n_channels) -> Tensor",
      &ampmm::pair_sum);
}
