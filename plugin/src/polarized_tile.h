// One tile of QM-MM pairs (Eq. 10), from their vectors to what they add to their atom's multipoles and, for the derivatives, back.
#pragma once

#include "shares.h"
#include "tile_network.h"

#include <utility>

namespace ampmm {

// What the polarization depends on. The first three are of the pairs, the others of the atoms or the network.
enum { VECTORS, CHARGES, CENTERS, MULTIPOLES, BY_ATOM, WEIGHTS_BY_ATOM, MATRIX, W1, W2, B2, W3, N_INPUTS };

struct PolarizationSettings {
  double cutoff, scale;
  int64_t exponent, n_radial, largest_kept;
  bool bfloat16;  // the products of the network's first two Linears, where the processor has them
};

// What all tiles have in common.
template <class T>
struct Polarization {
  std::vector<Tensor> in;
  PolarizationSettings s;
  int64_t C, orders, n_weights;
  TileNetwork<T> network;
  Operand<T> matrix, matrix_back;

  Polarization(const std::vector<Tensor>& given, const PolarizationSettings& settings)
      : in(contiguous(given)), s(settings), C(in[MULTIPOLES].size(1)), orders(orders_of(C)), n_weights(in[MATRIX].size(0)),
        network(in[W1], in[W2], in[B2], in[W3], s.bfloat16), matrix(in[MATRIX], false), matrix_back(in[MATRIX].t(), false) {
    TORCH_CHECK(orders * orders == C && network.K == orders - 1, "w3: expected an output for each order from 1 on, got ", network.K,
                " for ", C, " components");
    TORCH_CHECK(n_features() == network.n_features(), "w1: expected ", n_features(), " features, got ", network.n_features());
  }

  int64_t n_coefficients() const { return orders * n_weights; }  // the first of the features; the radial functions follow
  int64_t n_features() const { return n_coefficients() + s.n_radial; }
  int64_t kept_of_tile() const { return (2 * network.H + network.K) * COLUMNS; }
  const T* data(int k) const { return in[k].template data_ptr<T>(); }
};

// Where the gradients go; from the third on they are sums of all tiles.
template <class T>
struct PolarizationGradients {
  T *vectors, *charges, *multipoles, *by_atom, *weights_by_atom;
};

// Arrays are rows of COLUMNS pairs.
template <class T>
class PolarizedTile {
 public:
  explicit PolarizedTile(const Polarization<T>& all) : net(all) {
    const int64_t rows = 2 * net.n_features() + 2 * net.n_weights + 2 * net.network.H + net.network.K;
    scratch = at::empty({rows * COLUMNS + net.kept_of_tile()}, net.in[VECTORS].options());
    T* next = scratch.template data_ptr<T>();
    const auto take = [&](int64_t n) { return std::exchange(next, next + n * COLUMNS); };
    x = take(net.n_features());
    by_x = take(net.n_features());
    w = take(net.n_weights);
    by_w = take(net.n_weights);
    hidden = take(2 * net.network.H);
    by_out = take(net.network.K);
    own_kept = next;
  }

  // Adds to the multipoles; `kept`, where there is one, is what the derivatives will need.
  void forward(const Share& own, T* kept, T* multipoles) {
    const Tile<T, COLUMNS> t = pairs(own);
    features(t, own);
    if (!kept) kept = own_kept;
    activations(own, kept);
    const T* out = outputs(kept);
    T* sum = multipoles + own.center * net.C;
    for (int64_t k = 0; k < net.network.K; ++k)
      for (int64_t c = (k + 1) * (k + 1); c < (k + 2) * (k + 2); ++c) {
        T total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t p = 0; p < m; ++p) total += factor(t, p) * out[k * COLUMNS + p] * R[c][p];
        sum[c] += total;
      }
  }

  // `kept` of the forward pass, or null; `by` are the gradients by the multipoles.
  void backward(const Share& own, const T* kept, const T* by, const PolarizationGradients<T>& to) {
    const Tile<T, COLUMNS> t = pairs(own);
    features(t, own);
    if (!kept) {
      activations(own, own_kept);
      kept = own_kept;
    }
    T by_e[COLUMNS], by_q[COLUMNS], by_R[MAX_COMPONENTS][COLUMNS];
    through_sum(t, outputs(kept), by + own.center * net.C, by_e, by_q, by_R);
    T* by_atom = to.by_atom + own.center * net.network.H;
    net.network.backward(
        m, kept, by_out, hidden, [&](int64_t h, const T* row) { by_atom[h] += sum_of(row, m); },
        [&](int64_t k, const T* row) { std::copy_n(row, m, by_x + k * COLUMNS); });
    through_features(own, by_q, by_R, to);
    std::copy_n(by_q, own.count, to.charges + own.first);
    by_vectors(own, t, by_e, net.C, by_R[0], net.s.n_radial, by_x + net.n_coefficients() * COLUMNS, to.vectors);
  }

 private:
  const Polarization<T>& net;
  Tensor scratch;
  T *x, *by_x, *w, *by_w, *hidden, *by_out, *own_kept;
  int64_t m = 0;  // of the tile, filled up
  T q[COLUMNS], R[16][COLUMNS], dots[MAX_ORDER + 1][COLUMNS];

  T factor(const Tile<T, COLUMNS>& t, int64_t p) const { return static_cast<T>(net.s.scale) * q[p] * t.e[p]; }

  template <class Kept>
  Kept* outputs(Kept* kept) const { return kept + 2 * net.network.H * COLUMNS; }

  static T sum_of(const T* row, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t p = 0; p < n; ++p) sum += row[p];
    return sum;
  }

  // f(order, component)
  template <class F>
  void each_component(const F& f) const {
    for (int64_t l = 0; l < net.orders; ++l)
      for (int64_t c = l * l; c < (l + 1) * (l + 1); ++c) f(l, c);
  }

  Tile<T, COLUMNS> pairs(const Share& own) {
    const Tile<T, COLUMNS> t = filled_tile(own, net.data(VECTORS), net.data(CHARGES), net.s.cutoff, net.s.exponent, q);
    m = t.m;
    return t;
  }

  // x: M^l.R^l (the dots) times the charge and the radial weights w, and the radial functions.
  void features(const Tile<T, COLUMNS>& t, const Share& own) {
    tensors_of(t, R);
    T* radial = x + net.n_coefficients() * COLUMNS;
    t.radial(net.s.n_radial, [&](int64_t k, int64_t p, T value, T) { radial[k * COLUMNS + p] = value; });
    const T *by_center = net.data(WEIGHTS_BY_ATOM) + own.center * net.n_weights, *M = net.data(MULTIPOLES) + own.center * net.C;
    tile_product(net.matrix, radial, m, [&](int64_t k, const T* product) {
      T* row = w + k * COLUMNS;
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) row[p] = by_center[k] + product[p];
    });
    std::fill(dots[0], dots[0] + net.orders * COLUMNS, T(0));
    each_component([&](int64_t l, int64_t c) {
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) dots[l][p] += M[c] * R[c][p];
    });
    for (int64_t l = 0; l < net.orders; ++l)
      for (int64_t k = 0; k < net.n_weights; ++k) {
        T* row = x + (l * net.n_weights + k) * COLUMNS;
        const T* own_w = w + k * COLUMNS;
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) row[p] = q[p] * dots[l][p] * own_w[p];
      }
  }

  // kept: the slopes of both activations, and the network's outputs.
  void activations(const Share& own, T* kept) {
    const T* by_atom = net.data(BY_ATOM) + own.center * net.network.H;
    const auto first = [&](int64_t h, const T* product, T* z) {
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) z[p] = by_atom[h] + product[p];
    };
    T* out = outputs(kept);
    net.network.forward(x, m, kept, hidden, first, [&](int64_t k, const T* row) { std::copy_n(row, m, out + k * COLUMNS); });
  }

  // From the sum of scale q e out^k R^k to e, q, R and out.
  void through_sum(const Tile<T, COLUMNS>& t, const T* out, const T* by, T* by_e, T* by_q, T by_R[MAX_COMPONENTS][COLUMNS]) {
    const T scale = static_cast<T>(net.s.scale);
    std::fill(by_e, by_e + m, T(0));
    std::fill(by_R[0], by_R[0] + m, T(0));
    for (int64_t k = 0; k < net.network.K; ++k) {
      const T* own_out = out + k * COLUMNS;
      T along[COLUMNS] = {};
      for (int64_t c = (k + 1) * (k + 1); c < (k + 2) * (k + 2); ++c)
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          along[p] += by[c] * R[c][p];
          by_R[c][p] = factor(t, p) * own_out[p] * by[c];
        }
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        by_e[p] += own_out[p] * along[p];
        by_out[k * COLUMNS + p] = factor(t, p) * along[p];
      }
    }
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      by_q[p] = scale * t.e[p] * by_e[p];
      by_e[p] *= scale * q[p];
    }
  }

  // From the features' gradients to those by the radial functions, in their place, and by the others.
  void through_features(const Share& own, T* by_q, T by_R[MAX_COMPONENTS][COLUMNS], const PolarizationGradients<T>& to) {
    T by_dot[MAX_ORDER + 1][COLUMNS] = {};
    std::fill(by_w, by_w + net.n_weights * COLUMNS, T(0));
    for (int64_t l = 0; l < net.orders; ++l)
      for (int64_t k = 0; k < net.n_weights; ++k) {
        const T *g = by_x + (l * net.n_weights + k) * COLUMNS, *own_w = w + k * COLUMNS;
        T* row = by_w + k * COLUMNS;
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          row[p] += g[p] * q[p] * dots[l][p];
          by_dot[l][p] += g[p] * own_w[p];
        }
      }
    for (int64_t l = 0; l < net.orders; ++l)
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) {
        by_q[p] += by_dot[l][p] * dots[l][p];
        by_dot[l][p] *= q[p];
      }
    const T* M = net.data(MULTIPOLES) + own.center * net.C;
    each_component([&](int64_t l, int64_t c) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t p = 0; p < m; ++p) {
        by_R[c][p] += by_dot[l][p] * M[c];
        sum += by_dot[l][p] * R[c][p];
      }
      to.multipoles[own.center * net.C + c] += sum;
    });
    for (int64_t k = 0; k < net.n_weights; ++k)
      to.weights_by_atom[own.center * net.n_weights + k] += sum_of(by_w + k * COLUMNS, m);
    T* by_radial = by_x + net.n_coefficients() * COLUMNS;
    tile_product(net.matrix_back, by_w, m, [&](int64_t n, const T* product) {
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) by_radial[n * COLUMNS + p] += product[p];
    });
  }
};

}  // namespace ampmm
