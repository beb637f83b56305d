// What depends on a pair's vector alone: direction, packed tensors R^k, radial functions and envelope.
#include "operators.h"
#include "twice.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

// Square roots of 2, 6, 0.15, 0.1 and 1.5.
constexpr double S2 = 1.4142135623730951, S6 = 2.449489742783178, S15 = 0.3872983346207417, S10 = 0.31622776601683794, S32 = 1.224744871391589;

// sin(pi d) and cos(pi d), written so that a loop of it is vectorised: series of pi f, |f| <= 1/2, which is what rounding leaves of d.
template <class T>
inline void sine_cosine(T d, T& s, T& c) {
  constexpr int terms = sizeof(T) == 4 ? 7 : 12;
  const T n = std::nearbyint(d), x = T(3.14159265358979323846) * (d - n), x2 = -x * x, odd = n - 2 * std::nearbyint(n / 2);
  const T sign = 1 - 2 * odd * odd;
  T a = 1, b = 1;
#pragma GCC unroll 12
  for (int k = terms; k > 0; --k) {
    a = 1 + a * x2 / T(2 * k * (2 * k + 1));
    b = 1 + b * x2 / T(2 * k * (2 * k - 1));
  }
  s = sign * x * a;
  c = sign * b;
}

// A tile's vectors: distance, direction, envelope e = d u(d) and g = e/d with their derivatives by r, sine and cosine of pi d.
template <class T>
struct Tile {
  int64_t m;
  T cutoff;
  T r[TILE], x[TILE], y[TILE], z[TILE], e[TILE], de[TILE], g[TILE], dg[TILE], s[TILE], c[TILE];

  Tile(const T* v, int64_t m_, T cutoff_, int exponent) : m(m_), cutoff(cutoff_) {
    const T q = static_cast<T>(exponent), a0 = T(-0.5) * (q + 1) * (q + 2), a1 = q * (q + 2), a2 = T(-0.5) * q * (q + 1);
    T power[TILE];
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      r[p] = std::sqrt(v[3 * p] * v[3 * p] + v[3 * p + 1] * v[3 * p + 1] + v[3 * p + 2] * v[3 * p + 2]);
      x[p] = v[3 * p] / r[p];
      y[p] = v[3 * p + 1] / r[p];
      z[p] = v[3 * p + 2] / r[p];
      power[p] = 1;
    }
    for (int i = 1; i < exponent; ++i)
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) power[p] *= r[p] > cutoff ? T(1) : r[p] / cutoff;
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      const T d = r[p] / cutoff, in = d > 1 ? T(1) : d;
      e[p] = 1 + power[p] * in * (a0 + in * (a1 + in * a2));
      de[p] = d > 1 ? T(0) : power[p] * (q * a0 + in * ((q + 1) * a1 + in * (q + 2) * a2)) / cutoff;
      g[p] = e[p] / d;
      dg[p] = de[p] / d - e[p] / (d * d) / cutoff;
      sine_cosine(d, s[p], c[p]);
    }
  }

  // Calls f(n, p, value, derivative by r) for the radial functions, by the addition theorem.
  template <class F>
  void radial(int64_t n_radial, const F& f) const {
    const T k = T(3.14159265358979323846) / cutoff;
    T sine[TILE], cosine[TILE];
    std::memcpy(sine, s, m * sizeof(T));
    std::memcpy(cosine, c, m * sizeof(T));
    for (int64_t n = 0; n < n_radial; ++n)
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        const T a = sine[p], b = cosine[p];
        f(n, p, g[p] * a, dg[p] * a + g[p] * (n + 1) * k * b);
        sine[p] = a * c[p] + b * s[p];
        cosine[p] = b * c[p] - a * s[p];
      }
  }
};

// Packed tensors of a tile's directions, orders 0 to 3, see ampmm/nn/multipoles.py.
template <class T>
void tensors_of(const Tile<T>& t, T out[16][TILE]) {
#pragma omp simd
  for (int64_t p = 0; p < t.m; ++p) {
    const T x = t.x[p], y = t.y[p], z = t.z[p], d = x * x - y * y, f = 5 * z * z - 1;
    out[0][p] = 1;
    out[1][p] = x;
    out[2][p] = y;
    out[3][p] = z;
    out[4][p] = T(S2) * x * y;
    out[5][p] = T(S2) * x * z;
    out[6][p] = T(S2) * y * z;
    out[7][p] = d / T(S2);
    out[8][p] = (3 * z * z - 1) / T(S6);
    out[9][p] = T(0.5) * y * (3 * x * x - y * y);
    out[10][p] = T(S6) * x * y * z;
    out[11][p] = T(S15) * y * f;
    out[12][p] = T(S10) * z * (f - 2);
    out[13][p] = T(S15) * x * f;
    out[14][p] = T(S32) * z * d;
    out[15][p] = T(0.5) * x * (x * x - 3 * y * y);
  }
}

// Their derivatives by the directions' components.
template <class T>
void slopes_of(const Tile<T>& t, T out[16][3][TILE]) {
  const T s2 = T(S2), s6 = T(S6), s10 = T(S10), s15 = T(S15), s32 = T(S32);
  std::memset(out, 0, 16 * 3 * TILE * sizeof(T));
#pragma omp simd
  for (int64_t p = 0; p < t.m; ++p) {
    const T x = t.x[p], y = t.y[p], z = t.z[p], d = x * x - y * y, f = 5 * z * z - 1;
    out[1][0][p] = out[2][1][p] = out[3][2][p] = 1;
    out[4][0][p] = s2 * y;
    out[4][1][p] = s2 * x;
    out[5][0][p] = s2 * z;
    out[5][2][p] = s2 * x;
    out[6][1][p] = s2 * z;
    out[6][2][p] = s2 * y;
    out[7][0][p] = s2 * x;
    out[7][1][p] = -s2 * y;
    out[8][2][p] = s6 * z;
    out[9][0][p] = 3 * x * y;
    out[9][1][p] = T(1.5) * d;
    out[10][0][p] = s6 * y * z;
    out[10][1][p] = s6 * x * z;
    out[10][2][p] = s6 * x * y;
    out[11][1][p] = s15 * f;
    out[11][2][p] = 10 * s15 * y * z;
    out[12][2][p] = s10 * (15 * z * z - 3);
    out[13][0][p] = s15 * f;
    out[13][2][p] = 10 * s15 * x * z;
    out[14][0][p] = 2 * s32 * x * z;
    out[14][1][p] = -2 * s32 * y * z;
    out[14][2][p] = s32 * d;
    out[15][0][p] = T(1.5) * d;
    out[15][1][p] = -3 * x * y;
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
      T by_r[TILE], by_x[TILE], by_y[TILE], by_z[TILE];
      for (int64_t p = 0; p < m; ++p) {
        by_r[p] = ge[first + p] * t.de[p];
        by_x[p] = gu[first + p];
        by_y[p] = gu[n + first + p];
        by_z[p] = gu[2 * n + first + p];
      }
      T slopes[16][3][TILE];
      slopes_of(t, slopes);
      for (int64_t c = 1; c < C; ++c)
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          const T g = gR[c * n + first + p];
          by_x[p] += g * slopes[c][0][p];
          by_y[p] += g * slopes[c][1][p];
          by_z[p] += g * slopes[c][2][p];
        }
      t.radial(n_radial, [&](int64_t k, int64_t p, T, T slope) { by_r[p] += gb[k * n + first + p] * slope; });
      T* own = to + 3 * first;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        const T along = by_x[p] * t.x[p] + by_y[p] * t.y[p] + by_z[p] * t.z[p];
        own[3 * p] = t.x[p] * by_r[p] + (by_x[p] - t.x[p] * along) / t.r[p];
        own[3 * p + 1] = t.y[p] * by_r[p] + (by_y[p] - t.y[p] * along) / t.r[p];
        own[3 * p + 2] = t.z[p] * by_r[p] + (by_z[p] - t.z[p] * along) / t.r[p];
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
