// What depends on a pair's vector alone: direction, packed tensors R^k, radial functions and envelope.
#include "geometry.h"
#include "gpu/autograd.h"
#include "operators.h"
#include "twice.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

struct Geometry {
  // options: exponent, n_radial, order; cutoff. Outputs: unit, tensors, radial, envelope.
  static bool has_tangent(int) { return true; }

  template <class T>
  static std::vector<Tensor> forward_kernel(const Options& o, const Tensor& vectors) {
    const int64_t n = vectors.size(0), n_radial = o.whole[1], C = (o.whole[2] + 1) * (o.whole[2] + 1);
    Tensor unit = new_columns(n, 3, vectors), R = new_columns(n, C, vectors), b = new_columns(n, n_radial, vectors);
    Tensor e = at::empty({n}, vectors.options());
    const T *v = vectors.data_ptr<T>(), cutoff = static_cast<T>(o.real[0]);
    T *pu = unit.data_ptr<T>(), *pR = R.data_ptr<T>(), *pb = b.data_ptr<T>(), *pe = e.data_ptr<T>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int) {
      const Tile<T> t(v + 3 * first, m, cutoff, static_cast<int>(o.whole[0]));
      T* u = pu + first;
      for (int64_t p = 0; p < m; ++p) {
        u[p] = t.x[p];
        u[n + p] = t.y[p];
        u[2 * n + p] = t.z[p];
        pe[first + p] = t.e[p];
      }
      T tensors[16][TILE];
      tensors_of(t, tensors);
      for (int64_t c = 0; c < C; ++c) std::memcpy(pR + c * n + first, tensors[c], m * sizeof(T));
      t.radial(n_radial, [&](int64_t k, int64_t p, T value, T) { pb[k * n + first + p] = value; });
    });
    return {unit, R, b, e};
  }

  template <class T>
  static Tensor backward_kernel(const Options& o, const Tensor& vectors, const std::vector<Tensor>& by) {
    const int64_t n = vectors.size(0), n_radial = o.whole[1], C = (o.whole[2] + 1) * (o.whole[2] + 1);
    Tensor out = at::empty_like(vectors);
    const T *v = vectors.data_ptr<T>(), cutoff = static_cast<T>(o.real[0]);
    const T *gu = by[0].data_ptr<T>(), *gR = by[1].data_ptr<T>(), *gb = by[2].data_ptr<T>(), *ge = by[3].data_ptr<T>();
    T* to = out.data_ptr<T>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int) {
      const Tile<T> t(v + 3 * first, m, cutoff, static_cast<int>(o.whole[0]));
      DirectionGradients<T> by_direction;
      for (int64_t p = 0; p < m; ++p) {
        by_direction.r[p] = ge[first + p] * t.de[p];
        by_direction.x[p] = gu[first + p];
        by_direction.y[p] = gu[n + first + p];
        by_direction.z[p] = gu[2 * n + first + p];
      }
      by_direction.add_tensors(t, C, [&](int64_t c) { return gR + c * n + first; });
      t.radial(n_radial, [&](int64_t k, int64_t p, T, T slope) { by_direction.r[p] += gb[k * n + first + p] * slope; });
      by_direction.by_vectors(t, m, to + 3 * first);
    });
    return out;
  }

  // The outputs' tangents along `tangent` (n, 3).
  template <class T>
  static std::vector<Tensor> tangent_kernel(const Options& o, const Tensor& vectors, const Tensor& tangent) {
    const int64_t n = vectors.size(0), n_radial = o.whole[1], C = (o.whole[2] + 1) * (o.whole[2] + 1);
    Tensor unit = new_columns(n, 3, vectors), R = new_columns(n, C, vectors), b = new_columns(n, n_radial, vectors);
    Tensor e = at::empty({n}, vectors.options());
    const T *v = vectors.data_ptr<T>(), *t = tangent.data_ptr<T>(), cutoff = static_cast<T>(o.real[0]);
    T *pu = unit.data_ptr<T>(), *pR = R.data_ptr<T>(), *pb = b.data_ptr<T>(), *pe = e.data_ptr<T>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int) {
      const Tile<T> q(v + 3 * first, m, cutoff, static_cast<int>(o.whole[0]));
      T slopes[16][3][TILE], dr[TILE];
      slopes_of(q, slopes);
      T* u = pu + first;
      const T* own = t + 3 * first;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        dr[p] = q.x[p] * own[3 * p] + q.y[p] * own[3 * p + 1] + q.z[p] * own[3 * p + 2];
        u[p] = (own[3 * p] - q.x[p] * dr[p]) / q.r[p];
        u[n + p] = (own[3 * p + 1] - q.y[p] * dr[p]) / q.r[p];
        u[2 * n + p] = (own[3 * p + 2] - q.z[p] * dr[p]) / q.r[p];
        pe[first + p] = q.de[p] * dr[p];
      }
      for (int64_t c = 0; c < C; ++c)
#pragma omp simd
        for (int64_t p = 0; p < m; ++p)
          pR[c * n + first + p] = slopes[c][0][p] * u[p] + slopes[c][1][p] * u[n + p] + slopes[c][2][p] * u[2 * n + p];
      q.radial(n_radial, [&](int64_t k, int64_t p, T, T slope) { pb[k * n + first + p] = slope * dr[p]; });
    });
    return {unit, R, b, e};
  }

  static Tensor rows(const Tensor& vectors) { return vectors.contiguous(); }

  static std::vector<Tensor> forward(const Options& o, const std::vector<Tensor>& in) {
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[0].scalar_type(), "pair_geometry", [&] { r = forward_kernel<scalar_t>(o, rows(in[0])); });
    return r;
  }

  static std::vector<Tensor> backward(const Options& o, const std::vector<Tensor>& in, std::vector<Tensor> by) {
    for (auto& each : by) each = as_columns(each);
    Tensor r;
    AT_DISPATCH_FLOATING_TYPES(in[0].scalar_type(), "pair_geometry_backward", [&] { r = backward_kernel<scalar_t>(o, rows(in[0]), by); });
    return {r};
  }

  static std::vector<Tensor> second(const Options& o, const std::vector<Tensor>& in, const std::vector<Tensor>& by,
                                    const std::vector<Tensor>& u, bool by_vectors) {
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[0].scalar_type(), "pair_geometry_second",
                               [&] { r = tangent_kernel<scalar_t>(o, rows(in[0]), u[0].contiguous()); });
    r.insert(r.begin(), by_vectors ? by_vectors_twice(o, in[0], by, u[0]) : Tensor());
    return r;
  }

  // The gradient by the vectors of <backward, tangent>. Training does not need it, so torch may do it step by step.
  static Tensor by_vectors_twice(const Options& o, const Tensor& vectors, const std::vector<Tensor>& by, const Tensor& tangent) {
    at::AutoGradMode with_grad(true);
    const double p = static_cast<double>(o.whole[0]), cutoff = o.real[0];
    Tensor v = vectors.detach().requires_grad_(), r = v.square().sum(1).sqrt(), unit = v / r.unsqueeze(1), d = r / cutoff;
    Tensor in = d.clamp_max(1.0), x = unit.select(1, 0), y = unit.select(1, 1), z = unit.select(1, 2);
    Tensor e = 1.0 + in.pow(p) * (-0.5 * (p + 1) * (p + 2) + in * (p * (p + 2) - in * (0.5 * p * (p + 1))));
    Tensor k = 3.14159265358979323846 * at::arange(1, o.whole[1] + 1, v.options());
    Tensor b = (e / d).unsqueeze(1) * (d.unsqueeze(1) * k).sin(), dd = x * x - y * y, f = 5.0 * z * z - 1.0;
    std::vector<Tensor> R = {at::ones_like(x), x, y, z, S2 * x * y, S2 * x * z, S2 * y * z, dd / S2, (3.0 * z * z - 1.0) / S6,
                             0.5 * y * (3.0 * x * x - y * y), S6 * x * y * z, S15 * y * f, S10 * z * (f - 2.0), S15 * x * f,
                             S32 * z * dd, 0.5 * x * (x * x - 3.0 * y * y)};
    R.resize((o.whole[2] + 1) * (o.whole[2] + 1));
    Tensor sum = (by[0].detach() * unit).sum() + (by[1].detach() * at::stack(R, 1)).sum() + (by[2].detach() * b).sum() +
                 (by[3].detach() * e).sum();
    Tensor first = torch::autograd::grad({sum}, {v}, {}, true, true)[0];
    return torch::autograd::grad({(first * tangent.detach()).sum()}, {v})[0];
  }
};

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> pair_geometry(const Tensor& vectors, double cutoff, int64_t exponent, int64_t n_radial,
                                                         int64_t order) {
  TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == 3, "vectors: expected (n_pairs, 3), got ", vectors.sizes());
  TORCH_CHECK(0 <= order && order <= MAX_ORDER, "order: expected 0 to 3, got ", order);
  if (takes_gpu(vectors)) return gpu::pair_geometry(vectors, {cutoff, exponent, n_radial, order});
  check_cpu(vectors, "vectors");
  auto r = run_twice<Geometry>({{exponent, n_radial, order}, {cutoff}}, {vectors});
  return {r[0], r[1], r[2], r[3]};
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "pair_geometry(Tensor vectors, float cutoff, int exponent, int n_radial, int order) -> (Tensor, Tensor, Tensor, Tensor)",
      &ampmm::pair_geometry);
}
