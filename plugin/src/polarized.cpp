// The features of a QM-MM pair (Eq. 10): M_i^l.R^l q times radial weights, and the radial functions.
// Arrays are rows of m pairs, one row a component.
#include "gpu/autograd.h"
#include "operators.h"
#include "radial_weights.h"
#include "twice.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

enum { MULTIPOLES, TENSORS, RADIAL, CHARGES, BY_CENTER, MATRIX, CENTERS, N_INPUTS };

// A tile's products: D_l = q M^l.R^l and the radial weights w.
template <class T>
struct Tile {
  const std::vector<Tensor>& in;
  int64_t first, m, n, C, orders, n_weights, n_radial;
  const int64_t* i;
  const T* q;
  std::vector<T> M, D, w;

  Tile(const std::vector<Tensor>& in_, int64_t first_, int64_t m_)
      : in(in_), first(first_), m(m_), n(in[TENSORS].size(0)), C(in[TENSORS].size(1)), orders(orders_of(C)), n_weights(in[MATRIX].size(0)),
        n_radial(in[MATRIX].size(1)), i(in[CENTERS].template data_ptr<int64_t>() + first),
        q(in[CHARGES].template data_ptr<T>() + first), M(C * m), w(n_weights * m) {
    D.resize(orders * m);
    gather_components(data(MULTIPOLES), C, i, m, M.data());
    dots(M, in[TENSORS], D);
    weights(in[BY_CENTER], in[RADIAL], w);
  }

  const T* data(int k) const { return in[k].template data_ptr<T>(); }

  void dots(const std::vector<T>& multipoles, const Tensor& tensors, std::vector<T>& out) const {
    each([&](int64_t l, int64_t c) {
      const T *a = multipoles.data() + c * m, *r = column<T>(tensors, c, first);
      T* d = out.data() + l * m;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) d[p] += q[p] * a[p] * r[p];
    });
  }

  void weights(const Tensor& center, const Tensor& radial, std::vector<T>& out) const {
    gather_components(center.data_ptr<T>(), n_weights, i, m, out.data());
    add_radial(data(MATRIX), column<T>(radial, 0, first), n, n_weights, n_radial, m, out.data());
  }

  // f(order, component)
  template <class F>
  void each(const F& f) const {
    for (int64_t l = 0; l < orders; ++l)
      for (int64_t c = l * l; c < (l + 1) * (l + 1); ++c) f(l, c);
  }

  // Adds to by_D the sum over weights of by_x times `weight`, and to by_w the sum over orders of by_x times `dot`.
  void reverse(const Tensor& by_x, const std::vector<T>& weight, const std::vector<T>& dot, std::vector<T>& by_D,
               std::vector<T>& by_w) const {
    for (int64_t l = 0; l < orders; ++l)
      for (int64_t k = 0; k < n_weights; ++k) {
        const T* g = column<T>(by_x, l * n_weights + k, first);
        add_times(by_D.data() + l * m, g, weight.data() + k * m, m);
        add_times(by_w.data() + k * m, g, dot.data() + l * m, m);
      }
  }
};

struct Polarized {
  static bool has_tangent(int i) { return i <= RADIAL || i == BY_CENTER; }

  static std::vector<Tensor> tidy(std::vector<Tensor> in) { return laid_out(std::move(in), TENSORS, RADIAL); }

  template <class T>
  static Tensor forward_kernel(const std::vector<Tensor>& in) {
    const int64_t n = in[TENSORS].size(0), n_weights = in[MATRIX].size(0), n_radial = in[MATRIX].size(1);
    const int64_t orders = orders_of(in[TENSORS].size(1));
    Tensor x = new_columns(n, orders * n_weights + n_radial, in[TENSORS]);
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int) {
      Tile<T> t(in, first, m);
      for (int64_t l = 0; l < orders; ++l)
        for (int64_t k = 0; k < n_weights; ++k) {
          T* to = column<T>(x, l * n_weights + k, first);
          const T *d = t.D.data() + l * m, *w = t.w.data() + k * m;
#pragma omp simd
          for (int64_t p = 0; p < m; ++p) to[p] = d[p] * w[p];
        }
      for (int64_t c = 0; c < n_radial; ++c)
        std::memcpy(column<T>(x, orders * n_weights + c, first), column<T>(in[RADIAL], c, first), m * sizeof(T));
    });
    return x;
  }

  template <class T>
  static std::vector<Tensor> backward_kernel(const std::vector<Tensor>& in, const Tensor& by_x) {
    const int64_t n = in[TENSORS].size(0), n_weights = in[MATRIX].size(0), n_radial = in[MATRIX].size(1), N = in[MULTIPOLES].size(0);
    const int64_t C = in[TENSORS].size(1);
    Tensor by_R = new_columns(n, C, by_x), by_b = new_columns(n, n_radial, by_x);
    Sum by_M({N, C}, by_x), by_i({N, n_weights}, by_x), by_W({n_weights, n_radial}, by_x);
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
      Tile<T> t(in, first, m);
      std::vector<T> aD(t.orders * m), aw(n_weights * m), aM(C * m);
      t.reverse(by_x, t.w, t.D, aD, aw);
      t.each([&](int64_t l, int64_t c) {
        const T *R = column<T>(in[TENSORS], c, first), *M = t.M.data() + c * m, *a = aD.data() + l * m;
        T *to_R = column<T>(by_R, c, first), *to_M = aM.data() + c * m;
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          const T g = t.q[p] * a[p];
          to_R[p] = g * M[p];
          to_M[p] = g * R[p];
        }
      });
      scatter_components(aM.data(), m, t.i, C, by_M.data<T>(thread));
      scatter_components(aw.data(), m, t.i, n_weights, by_i.data<T>(thread));
      for (int64_t c = 0; c < n_radial; ++c)
        std::memcpy(column<T>(by_b, c, first), column<T>(by_x, t.orders * n_weights + c, first), m * sizeof(T));
      radial_backward(t.data(MATRIX), column<T>(in[RADIAL], 0, first), n, n_weights, n_radial, m, aw.data(), by_W.data<T>(thread),
                      column<T>(by_b, 0, first), n);
    });
    return {by_M.total(), by_R, by_b, Tensor(), by_i.total(), by_W.total(), Tensor()};
  }

  template <class T>
  static std::vector<Tensor> second_kernel(const std::vector<Tensor>& in, const Tensor& by_x, const std::vector<Tensor>& u) {
    const int64_t n = in[TENSORS].size(0), n_weights = in[MATRIX].size(0), n_radial = in[MATRIX].size(1), N = in[MULTIPOLES].size(0);
    const int64_t C = in[TENSORS].size(1);
    Tensor by_R = new_columns(n, C, by_x), by_b = zero_columns(n, n_radial, by_x), x = new_columns(n, by_x.size(1), by_x);
    Sum by_M({N, C}, by_x), by_i({N, n_weights}, by_x), by_W({n_weights, n_radial}, by_x);
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
      Tile<T> t(in, first, m);
      std::vector<T> dM(C * m), dD(t.orders * m), dw(n_weights * m);
      gather_components(u[MULTIPOLES].data_ptr<T>(), C, t.i, m, dM.data());
      t.dots(dM, in[TENSORS], dD);
      t.dots(t.M, u[TENSORS], dD);
      t.weights(u[BY_CENTER], u[RADIAL], dw);
      for (int64_t l = 0; l < t.orders; ++l)
        for (int64_t k = 0; k < n_weights; ++k) {
          T* to = column<T>(x, l * n_weights + k, first);
          const T *d = t.D.data() + l * m, *dd = dD.data() + l * m, *w = t.w.data() + k * m, *wt = dw.data() + k * m;
#pragma omp simd
          for (int64_t p = 0; p < m; ++p) to[p] = dd[p] * w[p] + d[p] * wt[p];
        }
      for (int64_t c = 0; c < n_radial; ++c)
        std::memcpy(column<T>(x, t.orders * n_weights + c, first), column<T>(u[RADIAL], c, first), m * sizeof(T));
      std::vector<T> aD(t.orders * m), adD(t.orders * m), aw(n_weights * m), adw(n_weights * m), aM(C * m);
      t.reverse(by_x, dw, dD, aD, aw);
      t.reverse(by_x, t.w, t.D, adD, adw);
      t.each([&](int64_t l, int64_t c) {
        const T *R = column<T>(in[TENSORS], c, first), *dR = column<T>(u[TENSORS], c, first), *M = t.M.data() + c * m;
        const T *dm = dM.data() + c * m, *a = aD.data() + l * m, *da = adD.data() + l * m;
        T *to_R = column<T>(by_R, c, first), *to_M = aM.data() + c * m;
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          const T g = t.q[p] * a[p], dg = t.q[p] * da[p];
          to_R[p] = g * M[p] + dg * dm[p];
          to_M[p] = g * R[p] + dg * dR[p];
        }
      });
      scatter_components(aM.data(), m, t.i, C, by_M.data<T>(thread));
      scatter_components(aw.data(), m, t.i, n_weights, by_i.data<T>(thread));
      T* W = by_W.data<T>(thread);
      radial_backward(t.data(MATRIX), column<T>(in[RADIAL], 0, first), n, n_weights, n_radial, m, aw.data(), W,
                      column<T>(by_b, 0, first), n);
      radial_backward<T>(t.data(MATRIX), column<T>(u[RADIAL], 0, first), n, n_weights, n_radial, m, adw.data(), W, nullptr, 0);
    });
    return {by_M.total(), by_R, by_b, Tensor(), by_i.total(), by_W.total(), Tensor(), x};
  }

  static std::vector<Tensor> forward(const Options&, const std::vector<Tensor>& in) {
    Tensor x;
    AT_DISPATCH_FLOATING_TYPES(in[TENSORS].scalar_type(), "polarized", [&] { x = forward_kernel<scalar_t>(tidy(in)); });
    return {x};
  }
  static std::vector<Tensor> backward(const Options&, const std::vector<Tensor>& in, const std::vector<Tensor>& by) {
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[TENSORS].scalar_type(), "polarized_backward",
                               [&] { r = backward_kernel<scalar_t>(tidy(in), as_columns(by[0])); });
    return r;
  }
  static std::vector<Tensor> second(const Options&, const std::vector<Tensor>& in, const std::vector<Tensor>& by,
                                    const std::vector<Tensor>& u, bool) {
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[TENSORS].scalar_type(), "polarized_second",
                               [&] { r = second_kernel<scalar_t>(tidy(in), as_columns(by[0]), tidy(u)); });
    return r;
  }
};

}  // namespace

Tensor polarized_features(const Tensor& multipoles, const Tensor& tensors, const Tensor& radial, const Tensor& charges,
                          const Tensor& by_center, const Tensor& matrix, const Tensor& centers) {
  TORCH_CHECK(multipoles.size(1) == tensors.size(1), "tensors: expected ", multipoles.size(1), " components, got ", tensors.size(1));
  TORCH_CHECK(!charges.requires_grad(), "charges: gradients by the MM charges are not implemented natively; use the twin");
  const std::vector<Tensor> in{multipoles, tensors, radial, charges, by_center, matrix, centers};
  if (takes_gpu(multipoles)) return gpu::polarized_features(in);
  check_cpu(multipoles, "multipoles");
  return run_twice<Polarized>({{}, {}}, in)[0];
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "polarized_features(Tensor multipoles, Tensor tensors, Tensor radial, Tensor charges, Tensor by_center, Tensor matrix, "
      "Tensor centers) -> Tensor",
      &ampmm::polarized_features);
}
