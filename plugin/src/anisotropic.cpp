// The anisotropic edge features of Eq. 7: radial weights times the contractions of Eq. 6.
//
// M^l contracted once with r is a traceless symmetric tensor of order l - 1 again, so packed components suffice. For a side
// of a pair, S(rank, l) is M^l contracted l - rank times, with 2 rank + 1 components; the scalars are dot products of the
// S(rank, a) of the center with the S(rank, b) of the neighbor. Arrays are rows of m pairs, one row a component.
#include "gpu/autograd.h"
#include "radial_weights.h"
#include "twice.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

constexpr int64_t SMALL_TILE = 64;

// Where things lie for multipoles up to order K.
struct Layout {
  int K, n_side = 0, n_scalars = 0;
  int side[MAX_ORDER + 2], scalar[MAX_ORDER + 2], table[MAX_ORDER + 2];

  explicit Layout(int order) : K(order) {
    for (int rank = 0; rank <= K; ++rank) {
      side[rank] = n_side;
      scalar[rank] = n_scalars;
      n_side += (K + 1 - rank) * (2 * rank + 1);
      n_scalars += (K + 1 - rank) * (K + 1 - rank);
    }
    for (int l = 1, at = 0; l <= K; ++l) {
      table[l] = at;
      at += (2 * l + 1) * (2 * l - 1) * 3;
    }
  }
  int row(int rank, int l) const { return side[rank] + (l - rank) * (2 * rank + 1); }
};

// Calls f(row of S(rank+1, l), row of S(rank, l), axis, factor) for every term of the contractions, from the top down or up.
template <class T, class F>
void terms(const Layout& y, const T* table, bool down, const F& f) {
  for (int l = 1; l <= y.K; ++l)
    for (int step = 0; step < l; ++step) {
      const int rank = down ? l - 1 - step : step;
      const T* t = table + y.table[rank + 1];
      for (int e = 0; e < 2 * rank + 3; ++e)
        for (int c = 0; c < 2 * rank + 1; ++c)
          for (int b = 0; b < 3; ++b, ++t)
            if (*t != T(0)) f(y.row(rank + 1, l) + e, y.row(rank, l) + c, b, *t);
    }
}

// One side of a tile: loads M and contracts it.
template <class T>
struct Contractions {
  const Layout& y;
  const T* table;
  int64_t m;
  const T* r;  // 3 rows, `stride` apart
  int64_t stride;

  void load(const T* atoms, const int64_t* index, T* S) const {
    for (int l = 0; l <= y.K; ++l)
      for (int c = 0; c < 2 * l + 1; ++c) {
        T* row = S + (y.row(l, l) + c) * m;
        for (int64_t p = 0; p < m; ++p) row[p] = atoms[index[p] * (y.K + 1) * (y.K + 1) + l * l + c];
      }
  }

  void store(const T* S, const int64_t* index, T* atoms) const {
    for (int l = 0; l <= y.K; ++l)
      for (int c = 0; c < 2 * l + 1; ++c) {
        const T* row = S + (y.row(l, l) + c) * m;
        for (int64_t p = 0; p < m; ++p) atoms[index[p] * (y.K + 1) * (y.K + 1) + l * l + c] += row[p];
      }
  }

  void clear_lower(T* S) const {
    for (int l = 1; l <= y.K; ++l)
      for (int rank = 0; rank < l; ++rank)
        std::fill(S + y.row(rank, l) * m, S + (y.row(rank, l) + 2 * rank + 1) * m, T(0));
  }

  void contract(T* S) const {
    clear_lower(S);
    terms(y, table, true, [&](int from, int to, int b, T t) {
      const T *x = S + from * m, *v = r + b * stride;
      T* z = S + to * m;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) z[p] += t * x[p] * v[p];
    });
  }

  void contract_tangent(const T* S, const T* dr, int64_t dr_stride, T* dS) const {
    clear_lower(dS);
    terms(y, table, true, [&](int from, int to, int b, T t) {
      const T *x = S + from * m, *dx = dS + from * m, *v = r + b * stride, *dv = dr + b * dr_stride;
      T* z = dS + to * m;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) z[p] += t * (dx[p] * v[p] + x[p] * dv[p]);
    });
  }

  // aS: gradients by all S, completed downwards; by_r (3 rows of m) is added to.
  void reverse(const T* S, T* aS, T* by_r) const {
    terms(y, table, false, [&](int from, int to, int b, T t) {
      const T *x = S + from * m, *v = r + b * stride, *az = aS + to * m;
      T *ax = aS + from * m, *g = by_r + b * m;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        ax[p] += t * az[p] * v[p];
        g[p] += t * az[p] * x[p];
      }
    });
  }

  // The same for values and tangents together: aS by S, adS by dS.
  void reverse_dual(const T* S, const T* dS, const T* dr, int64_t dr_stride, T* aS, T* adS, T* by_r) const {
    terms(y, table, false, [&](int from, int to, int b, T t) {
      const T *x = S + from * m, *dx = dS + from * m, *v = r + b * stride, *dv = dr + b * dr_stride;
      const T *az = aS + to * m, *adz = adS + to * m;
      T *ax = aS + from * m, *adx = adS + from * m, *g = by_r + b * m;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        ax[p] += t * (az[p] * v[p] + adz[p] * dv[p]);
        adx[p] += t * adz[p] * v[p];
        g[p] += t * (az[p] * x[p] + adz[p] * dx[p]);
      }
    });
  }
};

// f(scalar, row of the center's side, row of the neighbor's side) for every product in every scalar.
template <class F>
void products(const Layout& y, const F& f) {
  for (int rank = 0; rank <= y.K; ++rank) {
    const int n = y.K + 1 - rank, w = 2 * rank + 1;
    for (int a = 0; a < n; ++a)
      for (int b = 0; b < n; ++b)
        for (int c = 0; c < w; ++c) f(y.scalar[rank] + a * n + b, y.side[rank] + a * w + c, y.side[rank] + b * w + c);
  }
}

// The inputs, in their order.
enum { MULTIPOLES, UNIT, RADIAL, BY_CENTER, BY_NEIGHBOR, MATRIX, CENTERS, NEIGHBORS, TABLE, N_INPUTS };

template <class T>
struct Tile {
  const std::vector<Tensor>& in;
  const Layout& y;
  int64_t first, m, n, n_weights, n_radial;
  const int64_t *i, *j;
  Contractions<T> contractions;
  std::vector<T> L, R, G, w;

  Tile(const std::vector<Tensor>& in_, const Layout& y_, int64_t first_, int64_t m_)
      : in(in_), y(y_), first(first_), m(m_), n(in[UNIT].size(0)), n_weights(in[MATRIX].size(0)), n_radial(in[MATRIX].size(1)),
        i(in[CENTERS].template data_ptr<int64_t>() + first), j(in[NEIGHBORS].template data_ptr<int64_t>() + first),
        contractions{y, in[TABLE].template data_ptr<T>(), m, column<T>(in[UNIT], 0, first), n}, L(y.n_side * m), R(y.n_side * m),
        G(y.n_scalars * m), w(n_weights * m) {
    contractions.load(data(MULTIPOLES), i, L.data());
    contractions.load(data(MULTIPOLES), j, R.data());
    contractions.contract(L.data());
    contractions.contract(R.data());
    scalars(L, R, G);
    weights(in[BY_CENTER], in[BY_NEIGHBOR], in[RADIAL], w);
  }

  const T* data(int k) const { return in[k].template data_ptr<T>(); }

  void scalars(const std::vector<T>& left, const std::vector<T>& right, std::vector<T>& out) const {
    products(y, [&](int s, int a, int b) { add_times(out.data() + s * m, left.data() + a * m, right.data() + b * m, m); });
  }

  void weights(const Tensor& center, const Tensor& neighbor, const Tensor& radial, std::vector<T>& out) const {
    gather_components(center.data_ptr<T>(), n_weights, i, m, out.data());
    gather_components(neighbor.data_ptr<T>(), n_weights, j, m, out.data(), true);
    add_radial(data(MATRIX), column<T>(radial, 0, first), n, n_weights, n_radial, m, out.data());
  }

  // By the scalars: sum over weights of by_x times factor; by the weights: sum over scalars of by_x times scalar.
  void reduce(const Tensor& by_x, const std::vector<T>& factor, std::vector<T>& by_scalars) const {
    for (int64_t k = 0; k < n_weights; ++k)
      for (int64_t s = 0; s < y.n_scalars; ++s)
        add_times(by_scalars.data() + s * m, column<T>(by_x, k * y.n_scalars + s, first), factor.data() + k * m, m);
  }
  void reduce_scalars(const Tensor& by_x, const std::vector<T>& scalar, std::vector<T>& by_weights) const {
    for (int64_t k = 0; k < n_weights; ++k)
      for (int64_t s = 0; s < y.n_scalars; ++s)
        add_times(by_weights.data() + k * m, column<T>(by_x, k * y.n_scalars + s, first), scalar.data() + s * m, m);
  }
};

struct Anisotropic {
  static bool has_tangent(int i) { return i <= BY_NEIGHBOR; }
  static Layout layout(const Options& o) { return Layout(static_cast<int>(o.whole[0])); }

  static std::vector<Tensor> tidy(std::vector<Tensor> in) { return laid_out(std::move(in), UNIT, RADIAL); }

  template <class T>
  static Tensor forward_kernel(const Layout& y, const std::vector<Tensor>& in) {
    const int64_t n = in[UNIT].size(0), n_weights = in[MATRIX].size(0);
    Tensor x = new_columns(n, n_weights * y.n_scalars, in[UNIT]);
    for_tiles(n, SMALL_TILE, [&](int64_t first, int64_t m, int) {
      Tile<T> t(in, y, first, m);
      for (int64_t k = 0; k < n_weights; ++k)
        for (int64_t s = 0; s < y.n_scalars; ++s) {
          T* to = column<T>(x, k * y.n_scalars + s, first);
          const T *w = t.w.data() + k * m, *g = t.G.data() + s * m;
#pragma omp simd
          for (int64_t p = 0; p < m; ++p) to[p] = w[p] * g[p];
        }
    });
    return x;
  }

  template <class T>
  static std::vector<Tensor> backward_kernel(const Layout& y, const std::vector<Tensor>& in, const Tensor& by_x, bool weights) {
    const int64_t n = in[UNIT].size(0), n_weights = in[MATRIX].size(0), n_radial = in[MATRIX].size(1), N = in[MULTIPOLES].size(0);
    Tensor by_unit = new_columns(n, 3, in[UNIT]), by_radial = zero_columns(n, n_radial, in[UNIT]);
    Sum by_M({N, in[MULTIPOLES].size(1)}, by_x), by_i, by_j, by_W;
    if (weights) by_i = Sum({N, n_weights}, by_x), by_j = Sum({N, n_weights}, by_x), by_W = Sum({n_weights, n_radial}, by_x);
    for_tiles(n, SMALL_TILE, [&](int64_t first, int64_t m, int thread) {
      Tile<T> t(in, y, first, m);
      std::vector<T> aG(y.n_scalars * m), aw(n_weights * m), aL(y.n_side * m), aR(y.n_side * m), r(3 * m);
      t.reduce(by_x, t.w, aG);
      t.reduce_scalars(by_x, t.G, aw);
      products(y, [&](int s, int a, int b) {
        add_times(aL.data() + a * m, aG.data() + s * m, t.R.data() + b * m, m);
        add_times(aR.data() + b * m, aG.data() + s * m, t.L.data() + a * m, m);
      });
      t.contractions.reverse(t.L.data(), aL.data(), r.data());
      t.contractions.reverse(t.R.data(), aR.data(), r.data());
      finish(t, in, aL, aR, aw, r, by_M, by_i, by_j, by_unit, thread);
      radial_backward(t.data(MATRIX), column<T>(in[RADIAL], 0, first), n, n_weights, n_radial, m, aw.data(), by_W.data<T>(thread),
                      column<T>(by_radial, 0, first), n);
    });
    return {by_M.total(), by_unit, by_radial, by_i.total(), by_j.total(), by_W.total(), Tensor(), Tensor(), Tensor()};
  }

  template <class T>
  static void finish(const Tile<T>& t, const std::vector<Tensor>& in, const std::vector<T>& aL, const std::vector<T>& aR,
                     const std::vector<T>& aw, const std::vector<T>& r, const Sum& by_M, const Sum& by_i, const Sum& by_j,
                     const Tensor& by_unit, int thread) {
    (void)in;
    t.contractions.store(aL.data(), t.i, by_M.data<T>(thread));
    t.contractions.store(aR.data(), t.j, by_M.data<T>(thread));
    if (by_i.parts.defined()) {
      scatter_components(aw.data(), t.m, t.i, t.n_weights, by_i.data<T>(thread));
      scatter_components(aw.data(), t.m, t.j, t.n_weights, by_j.data<T>(thread));
    }
    for (int a = 0; a < 3; ++a) std::memcpy(column<T>(by_unit, a, t.first), r.data() + a * t.m, t.m * sizeof(T));
  }

  template <class T>
  static std::vector<Tensor> second_kernel(const Layout& y, const std::vector<Tensor>& in, const Tensor& by_x,
                                           const std::vector<Tensor>& u) {
    const int64_t n = in[UNIT].size(0), n_weights = in[MATRIX].size(0), n_radial = in[MATRIX].size(1), N = in[MULTIPOLES].size(0);
    Tensor by_unit = new_columns(n, 3, in[UNIT]), by_radial = zero_columns(n, n_radial, in[UNIT]);
    Tensor x = new_columns(n, by_x.size(1), by_x);  // the tangent of the features is the gradient by by_x
    Sum by_M({N, in[MULTIPOLES].size(1)}, by_x), by_i({N, n_weights}, by_x), by_j({N, n_weights}, by_x), by_W({n_weights, n_radial}, by_x);
    for_tiles(n, SMALL_TILE, [&](int64_t first, int64_t m, int thread) {
      Tile<T> t(in, y, first, m);
      const int ns = y.n_side * m;
      std::vector<T> dL(ns), dR(ns), dG(y.n_scalars * m), dw(n_weights * m);
      const T* dr = column<T>(u[UNIT], 0, first);
      t.contractions.load(u[MULTIPOLES].data_ptr<T>(), t.i, dL.data());
      t.contractions.load(u[MULTIPOLES].data_ptr<T>(), t.j, dR.data());
      t.contractions.contract_tangent(t.L.data(), dr, n, dL.data());
      t.contractions.contract_tangent(t.R.data(), dr, n, dR.data());
      t.scalars(dL, t.R, dG);
      t.scalars(t.L, dR, dG);
      t.weights(u[BY_CENTER], u[BY_NEIGHBOR], u[RADIAL], dw);
      std::vector<T> aG(y.n_scalars * m), adG(y.n_scalars * m), aw(n_weights * m), adw(n_weights * m);
      t.reduce(by_x, dw, aG);
      t.reduce(by_x, t.w, adG);
      t.reduce_scalars(by_x, dG, aw);
      t.reduce_scalars(by_x, t.G, adw);
      for (int64_t k = 0; k < n_weights; ++k)
        for (int64_t s = 0; s < y.n_scalars; ++s) {
          T* to = column<T>(x, k * y.n_scalars + s, first);
          const T *w = t.w.data() + k * m, *wt = dw.data() + k * m, *g = t.G.data() + s * m, *gt = dG.data() + s * m;
#pragma omp simd
          for (int64_t p = 0; p < m; ++p) to[p] = w[p] * gt[p] + wt[p] * g[p];
        }
      std::vector<T> aL(ns), aR(ns), adL(ns), adR(ns), r(3 * m);
      products(y, [&](int s, int a, int b) {
        const T *g = aG.data() + s * m, *dg = adG.data() + s * m;
        add_times(aL.data() + a * m, g, t.R.data() + b * m, m);
        add_times(aL.data() + a * m, dg, dR.data() + b * m, m);
        add_times(adL.data() + a * m, dg, t.R.data() + b * m, m);
        add_times(aR.data() + b * m, g, t.L.data() + a * m, m);
        add_times(aR.data() + b * m, dg, dL.data() + a * m, m);
        add_times(adR.data() + b * m, dg, t.L.data() + a * m, m);
      });
      t.contractions.reverse_dual(t.L.data(), dL.data(), dr, n, aL.data(), adL.data(), r.data());
      t.contractions.reverse_dual(t.R.data(), dR.data(), dr, n, aR.data(), adR.data(), r.data());
      finish(t, in, aL, aR, aw, r, by_M, by_i, by_j, by_unit, thread);
      T* W = by_W.data<T>(thread);
      radial_backward(t.data(MATRIX), column<T>(in[RADIAL], 0, first), n, n_weights, n_radial, m, aw.data(), W,
                      column<T>(by_radial, 0, first), n);
      radial_backward<T>(t.data(MATRIX), column<T>(u[RADIAL], 0, first), n, n_weights, n_radial, m, adw.data(), W, nullptr, 0);
    });
    return {by_M.total(), by_unit, by_radial, by_i.total(), by_j.total(), by_W.total(), Tensor(), Tensor(), Tensor(), x};
  }

  static std::vector<Tensor> forward(const Options& o, const std::vector<Tensor>& in) {
    Tensor x;
    AT_DISPATCH_FLOATING_TYPES(in[UNIT].scalar_type(), "anisotropic", [&] { x = forward_kernel<scalar_t>(layout(o), tidy(in)); });
    return {x};
  }
  static std::vector<Tensor> backward(const Options& o, const std::vector<Tensor>& in, const std::vector<Tensor>& by, bool weights = true) {
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[UNIT].scalar_type(), "anisotropic_backward",
                               [&] { r = backward_kernel<scalar_t>(layout(o), tidy(in), as_columns(by[0]), weights); });
    return r;
  }
  static std::vector<Tensor> second(const Options& o, const std::vector<Tensor>& in, const std::vector<Tensor>& by,
                                    const std::vector<Tensor>& tangents, bool) {
    std::vector<Tensor> r, u = slice(tangents, 0, BY_NEIGHBOR + 1);
    AT_DISPATCH_FLOATING_TYPES(in[UNIT].scalar_type(), "anisotropic_second",
                               [&] { r = second_kernel<scalar_t>(layout(o), tidy(in), as_columns(by[0]), tidy(u)); });
    return r;
  }
};

Options order_of(const Tensor& multipoles) {
  const int64_t order = orders_of(multipoles.size(1)) - 1;
  TORCH_CHECK((order + 1) * (order + 1) == multipoles.size(1) && order <= MAX_ORDER,
              "multipoles: expected (n_atoms, 1 | 4 | 9 | 16), got ", multipoles.sizes());
  return {{order}, {}};
}

}  // namespace

Tensor anisotropic_values(const std::vector<Tensor>& in) { return Anisotropic::forward(order_of(in[MULTIPOLES]), in)[0]; }

std::vector<Tensor> anisotropic_gradients(const std::vector<Tensor>& in, const Tensor& by) {
  return slice(Anisotropic::backward(order_of(in[MULTIPOLES]), in, {by}, false), 0, RADIAL + 1);
}

Tensor anisotropic_features(const Tensor& multipoles, const Tensor& unit, const Tensor& radial, const Tensor& by_center,
                            const Tensor& by_neighbor, const Tensor& matrix, const Tensor& centers, const Tensor& neighbors,
                            const Tensor& table) {
  const Options o = order_of(multipoles);
  const std::vector<Tensor> in{multipoles, unit, radial, by_center, by_neighbor, matrix, centers, neighbors, table};
  if (takes_gpu(multipoles)) return gpu::anisotropic_features(in, o.whole[0]);
  check_cpu(multipoles, "multipoles");
  return run_twice<Anisotropic>(o, in)[0];
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "anisotropic_features(Tensor multipoles, Tensor unit, Tensor radial, Tensor by_center, Tensor by_neighbor, Tensor matrix, "
      "Tensor centers, Tensor neighbors, Tensor table) -> Tensor",
      &ampmm::anisotropic_features);
}
