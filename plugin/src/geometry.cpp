// What depends on a pair's vector alone: direction, packed tensors R^k, radial functions and envelope.
#include "operators.h"
#include "twice.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

const double S2 = std::sqrt(2.0), S6 = std::sqrt(6.0), S15 = std::sqrt(0.15), S10 = std::sqrt(0.1), S32 = std::sqrt(1.5);

// Packed tensors of a unit vector, orders 0 to 3, see ampmm/nn/multipoles.py.
template <class T>
inline void packed(T x, T y, T z, T* R) {
  const T d = x * x - y * y, f = 5 * z * z - 1;
  R[0] = 1; R[1] = x; R[2] = y; R[3] = z;
  R[4] = T(S2) * x * y; R[5] = T(S2) * x * z; R[6] = T(S2) * y * z; R[7] = d / T(S2); R[8] = (3 * z * z - 1) / T(S6);
  R[9] = T(0.5) * y * (3 * x * x - y * y); R[10] = T(S6) * x * y * z; R[11] = T(S15) * y * f; R[12] = T(S10) * z * (f - 2);
  R[13] = T(S15) * x * f; R[14] = T(S32) * z * d; R[15] = T(0.5) * x * (x * x - 3 * y * y);
}

// Their derivatives, J[c][a] = dR_c / du_a.
template <class T>
inline void packed_jacobian(T x, T y, T z, T J[16][3]) {
  const T d = x * x - y * y, f = 5 * z * z - 1, s2 = T(S2), s6 = T(S6), s15 = T(S15), s32 = T(S32);
  const T rows[16][3] = {
      {0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1},
      {s2 * y, s2 * x, 0}, {s2 * z, 0, s2 * x}, {0, s2 * z, s2 * y}, {s2 * x, -s2 * y, 0}, {0, 0, s6 * z},
      {3 * x * y, T(1.5) * d, 0}, {s6 * y * z, s6 * x * z, s6 * x * y}, {0, s15 * f, 10 * s15 * y * z},
      {0, 0, T(S10) * (15 * z * z - 3)}, {s15 * f, 0, 10 * s15 * x * z}, {2 * s32 * x * z, -2 * s32 * y * z, s32 * d},
      {T(1.5) * d, -3 * x * y, 0}};
  std::memcpy(J, rows, sizeof rows);
}

// Distance, direction, envelope e = d u(d) and e/d with their derivatives by r.
template <class T>
struct Pair {
  T r, x, y, z, e, de, g, dg, s, c;
};

template <class T>
inline Pair<T> pair(const T* v, T cutoff, int p) {
  const T a = T(-0.5) * (p + 1) * (p + 2), b = T(p) * (p + 2), c = T(-0.5) * p * (p + 1), pi = T(3.14159265358979323846);
  Pair<T> o;
  o.r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  o.x = v[0] / o.r; o.y = v[1] / o.r; o.z = v[2] / o.r;
  const T d = o.r / cutoff, in = d > 1 ? T(1) : d;
  T power = 1;
  for (int i = 1; i < p; ++i) power *= in;
  o.e = 1 + power * in * (a + in * (b + in * c));
  o.de = d > 1 ? T(0) : power * (p * a + in * ((p + 1) * b + in * (p + 2) * c)) / cutoff;
  o.g = o.e / d;
  o.dg = o.de / d - o.e / (d * d) / cutoff;
  o.s = std::sin(pi * d);
  o.c = std::cos(pi * d);
  return o;
}

// Calls f(n, value, derivative by r) for the radial functions, by the addition theorem.
template <class T, class F>
inline void radial(const Pair<T>& o, T cutoff, int64_t n_radial, const F& f) {
  const T k = T(3.14159265358979323846) / cutoff;
  T s = o.s, c = o.c;
  for (int64_t n = 0; n < n_radial; ++n) {
    f(n, o.g * s, o.dg * s + o.g * (n + 1) * k * c);
    const T next = s * o.c + c * o.s;
    c = c * o.c - s * o.s;
    s = next;
  }
}

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
      for (int64_t p = first; p < first + m; ++p) {
        const Pair<T> q = pair(v + 3 * p, cutoff, static_cast<int>(o.whole[0]));
        T tensors[16];
        packed(q.x, q.y, q.z, tensors);
        pu[p] = q.x; pu[n + p] = q.y; pu[2 * n + p] = q.z;
        for (int64_t c = 0; c < C; ++c) pR[c * n + p] = tensors[c];
        radial(q, cutoff, n_radial, [&](int64_t k, T value, T) { pb[k * n + p] = value; });
        pe[p] = q.e;
      }
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
      for (int64_t p = first; p < first + m; ++p) {
        const Pair<T> q = pair(v + 3 * p, cutoff, static_cast<int>(o.whole[0]));
        T J[16][3], u[3] = {gu[p], gu[n + p], gu[2 * n + p]}, r = ge[p] * q.de;
        packed_jacobian(q.x, q.y, q.z, J);
        for (int64_t c = 1; c < C; ++c)
          for (int a = 0; a < 3; ++a) u[a] += gR[c * n + p] * J[c][a];
        radial(q, cutoff, n_radial, [&](int64_t k, T, T slope) { r += gb[k * n + p] * slope; });
        const T along = u[0] * q.x + u[1] * q.y + u[2] * q.z;
        to[3 * p] = q.x * r + (u[0] - q.x * along) / q.r;
        to[3 * p + 1] = q.y * r + (u[1] - q.y * along) / q.r;
        to[3 * p + 2] = q.z * r + (u[2] - q.z * along) / q.r;
      }
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
      for (int64_t p = first; p < first + m; ++p) {
        const Pair<T> q = pair(v + 3 * p, cutoff, static_cast<int>(o.whole[0]));
        const T dr = q.x * t[3 * p] + q.y * t[3 * p + 1] + q.z * t[3 * p + 2];
        const T u[3] = {(t[3 * p] - q.x * dr) / q.r, (t[3 * p + 1] - q.y * dr) / q.r, (t[3 * p + 2] - q.z * dr) / q.r};
        T J[16][3];
        packed_jacobian(q.x, q.y, q.z, J);
        for (int a = 0; a < 3; ++a) pu[a * n + p] = u[a];
        for (int64_t c = 0; c < C; ++c) pR[c * n + p] = J[c][0] * u[0] + J[c][1] * u[1] + J[c][2] * u[2];
        radial(q, cutoff, n_radial, [&](int64_t k, T, T slope) { pb[k * n + p] = slope * dr; });
        pe[p] = q.de * dr;
      }
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
  check_cpu(vectors, "vectors");
  TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == 3, "vectors: expected (n_pairs, 3), got ", vectors.sizes());
  TORCH_CHECK(0 <= order && order <= MAX_ORDER, "order: expected 0 to 3, got ", order);
  auto r = run_twice<Geometry>({{exponent, n_radial, order}, {cutoff}}, {vectors});
  return {r[0], r[1], r[2], r[3]};
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "pair_geometry(Tensor vectors, float cutoff, int exponent, int n_radial, int order) -> (Tensor, Tensor, Tensor, Tensor)",
      &ampmm::pair_geometry);
}
