// The moments that MM charges induce at unit polarizability in AMP-BMS: sum_m q A0(r) u and sum_m q A1(r) R2(u), with
// A = scale cutoff e(r)/r^3 times a small network of the radial functions.
#include "geometry.h"
#include "moments.h"
#include "once.h"
#include "radial_weights.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

enum { VECTORS, CHARGES, CENTERS, FREQUENCIES, W1, B1, W2 };
constexpr int64_t MAX_RADIAL = 16;

// A0, A1 of a tile, times the charges, and their derivatives by the distance.
template <class T>
struct Coefficients {
  T value[2][TILE], slope[2][TILE];

  Coefficients(const Tile<T>& t, const T* q, const std::vector<Tensor>& in, T scale) {
    const int64_t n_radial = in[W1].size(1), n_hidden = in[W1].size(0), m = t.m;
    const T *f = in[FREQUENCIES].template data_ptr<T>(), *w1 = in[W1].template data_ptr<T>(), *b1 = in[B1].template data_ptr<T>(),
            *w2 = in[W2].template data_ptr<T>();
    T b[MAX_RADIAL][TILE], db[MAX_RADIAL][TILE];
    for (int64_t n = 0; n < n_radial; ++n) {
      const T turns = static_cast<T>(f[n] / 3.14159265358979323846), k = f[n] / t.cutoff;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        T s, c;
        sine_cosine(turns * (t.r[p] / t.cutoff), s, c);
        b[n][p] = t.g[p] * s;
        db[n][p] = t.dg[p] * s + t.g[p] * k * c;
      }
    }
    std::memset(value, 0, sizeof value);
    std::memset(slope, 0, sizeof slope);
    for (int64_t j = 0; j < n_hidden; ++j) {
      T z[TILE], dz[TILE];
      std::fill(z, z + m, b1[j]);
      std::fill(dz, dz + m, T(0));
      for (int64_t n = 0; n < n_radial; ++n)
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          z[p] += w1[j * n_radial + n] * b[n][p];
          dz[p] += w1[j * n_radial + n] * db[n][p];
        }
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        const T s = sigmoid(z[p]), v = z[p] * s, d = (s + v * (1 - s)) * dz[p];
        value[0][p] += w2[j] * v;
        slope[0][p] += w2[j] * d;
        value[1][p] += w2[n_hidden + j] * v;
        slope[1][p] += w2[n_hidden + j] * d;
      }
    }
    for (int k = 0; k < 2; ++k)
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        const T inverse = 1 / t.r[p], common = q[p] * scale * t.cutoff * inverse * inverse * inverse;
        slope[k][p] = common * (slope[k][p] * t.e[p] + value[k][p] * (t.de[p] - 3 * t.e[p] * inverse));
        value[k][p] *= common * t.e[p];
      }
  }
};

struct Induced {
  // options: number of atoms, exponent; cutoff, scale.
  template <class T>
  static Tensor forward_kernel(const Options& o, const std::vector<Tensor>& in) {
    const int64_t n = in[VECTORS].size(0);
    Sum total({o.whole[0], MOMENT_PARTS}, in[VECTORS]);
    const T *v = in[VECTORS].data_ptr<T>(), *q = in[CHARGES].data_ptr<T>();
    const int64_t* centers = in[CENTERS].data_ptr<int64_t>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
      const Tile<T> t(v + 3 * first, m, static_cast<T>(o.real[0]), static_cast<int>(o.whole[1]));
      const Coefficients<T> a(t, q + first, in, static_cast<T>(o.real[1]));
      T rows[MOMENT_PARTS * TILE];
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        const Vector<T> u{t.x[p], t.y[p], t.z[p]};
        T packed[5];
        pack(u, u, packed);
        rows[p] = a.value[0][p] * u.x;
        rows[m + p] = a.value[0][p] * u.y;
        rows[2 * m + p] = a.value[0][p] * u.z;
        for (int64_t c = 0; c < 5; ++c) rows[(3 + c) * m + p] = a.value[1][p] * packed[c];
      }
      scatter_components(rows, m, centers + first, MOMENT_PARTS, total.data<T>(thread));
    });
    return total.total();
  }

  template <class T>
  static Tensor backward_kernel(const Options& o, const std::vector<Tensor>& in, const Tensor& by_moments) {
    const int64_t n = in[VECTORS].size(0);
    Tensor out = at::empty_like(in[VECTORS]);
    const T *v = in[VECTORS].data_ptr<T>(), *q = in[CHARGES].data_ptr<T>(), *by = by_moments.data_ptr<T>();
    const int64_t* centers = in[CENTERS].data_ptr<int64_t>();
    T* to = out.data_ptr<T>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int) {
      const Tile<T> t(v + 3 * first, m, static_cast<T>(o.real[0]), static_cast<int>(o.whole[1]));
      const Coefficients<T> a(t, q + first, in, static_cast<T>(o.real[1]));
      T rows[MOMENT_PARTS * TILE];
      gather_components(by, MOMENT_PARTS, centers + first, m, rows);
      T* own = to + 3 * first;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        const Vector<T> u{t.x[p], t.y[p], t.z[p]};
        const Moments<T> g(rows, m, p);
        const Vector<T> turn = turned(g, u);
        const T along = dot(g.dipole, u), both = dot(turn, u), inverse = 1 / t.r[p];
        const T d = a.value[0][p] * inverse, q2 = 2 * a.value[1][p] * inverse;
        const T radial = a.slope[0][p] * along + a.slope[1][p] * both - d * along - q2 * both;
        own[3 * p] = radial * u.x + d * g.dipole.x + q2 * turn.x;
        own[3 * p + 1] = radial * u.y + d * g.dipole.y + q2 * turn.y;
        own[3 * p + 2] = radial * u.z + d * g.dipole.z + q2 * turn.z;
      }
    });
    return out;
  }

  static std::vector<Tensor> forward(const Options& o, const std::vector<Tensor>& given) {
    const auto in = contiguous(given);
    Tensor r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "induced_moments", [&] { r = forward_kernel<scalar_t>(o, in); });
    return {r};
  }

  static std::vector<Tensor> backward(const Options& o, const std::vector<Tensor>& given, const std::vector<Tensor>& by) {
    const auto in = contiguous(given);
    Tensor r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "induced_moments_backward",
                               [&] { r = backward_kernel<scalar_t>(o, in, by[0].contiguous()); });
    return {r};
  }
};

}  // namespace

Tensor induced_moments(const Tensor& vectors, const Tensor& charges, const Tensor& centers, int64_t n_atoms,
                       const Tensor& frequencies, const Tensor& w1, const Tensor& b1, const Tensor& w2, double cutoff,
                       int64_t exponent, double scale) {
  check_cpu(vectors, "vectors");
  TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == 3, "vectors: expected (n_pairs, 3), got ", vectors.sizes());
  TORCH_CHECK(w1.size(1) <= MAX_RADIAL && w2.size(0) == 2, "w1, w2: expected at most ", MAX_RADIAL, " radial functions and two outputs");
  for (const Tensor& each : {charges, w1, b1, w2})
    TORCH_CHECK(!(at::GradMode::is_enabled() && each.requires_grad()), "induced_moments: gradients by charges and weights are not "
                "implemented natively; put the model into training mode, which uses the twin");
  return run_once<Induced>({{n_atoms, exponent}, {cutoff, scale}}, {vectors, charges, centers, frequencies, w1, b1, w2})[0];
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "induced_moments(Tensor vectors, Tensor charges, Tensor centers, int n_atoms, Tensor frequencies, Tensor w1, Tensor b1, "
      "Tensor w2, float cutoff, int exponent, float scale) -> Tensor",
      &ampmm::induced_moments);
}
