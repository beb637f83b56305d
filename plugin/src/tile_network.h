// A pair network on one tile, for evaluations, with its pairs along vector registers: Linear, SiLU, Linear, SiLU, Linear without bias.
// Matrices are rows of COLUMNS pairs.
#pragma once

#include "blocks.h"
#include "mlp.h"

namespace ampmm {

template <class T>
struct TileNetwork {
  int64_t H, K;
  Tensor b2;
  Operand<T> w1, w2, w3, w1_back, w2_back, w3_back;

  // `bfloat16`: the products of w1 and w2.
  TileNetwork(const Tensor& first, const Tensor& second, const Tensor& bias, const Tensor& last, bool bfloat16)
      : H(second.size(0)), K(last.size(0)), b2(bias.contiguous()), w1(first, bfloat16), w2(second, bfloat16), w3(last, false),
        w1_back(first.t(), bfloat16), w2_back(second.t(), bfloat16), w3_back(last.t(), false) {}

  int64_t n_features() const { return w1.columns; }

  // Fills `slopes` (2 H rows) and `hidden` (2 H rows: both activations); first(h, product, z) completes what goes into the first one, out(k,
  // row) is called for the outputs.
  template <class First, class Out>
  void forward(const T* x, int64_t m, T* slopes, T* hidden, const First& first, const Out& out) const {
    tile_product(w1, x, m, [&](int64_t h, const T* product) {
      T z[COLUMNS];
      first(h, product, z);
      activate(z, m, hidden + h * COLUMNS, slopes + h * COLUMNS);
    });
    const T* bias = b2.template data_ptr<T>();
    T *slopes2 = slopes + H * COLUMNS, *hidden2 = hidden + H * COLUMNS;
    tile_product(w2, hidden, m, [&](int64_t h, const T* product) {
      T z[COLUMNS];
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) z[p] = product[p] + bias[h];
      activate(z, m, hidden2 + h * COLUMNS, slopes2 + h * COLUMNS);
    });
    tile_product(w3, hidden2, m, out);
  }

  // From the gradients by the outputs, `by_out`: by_first(h, row) gets those by what went into the first activation, by_x(k, row) those by
  // the features. `scratch` has 2 H rows.
  template <class First, class X>
  void backward(int64_t m, const T* slopes, const T* by_out, T* scratch, const First& by_first, const X& by_x) const {
    const T* slopes2 = slopes + H * COLUMNS;
    T *by_second = scratch, *by_first_rows = scratch + H * COLUMNS;
    const auto times = [m](const T* a, const T* b, T* to) {
#pragma omp simd
      for (int64_t p = 0; p < m; ++p) to[p] = a[p] * b[p];
    };
    tile_product(w3_back, by_out, m, [&](int64_t h, const T* product) {
      times(product, slopes2 + h * COLUMNS, by_second + h * COLUMNS);
    });
    tile_product(w2_back, by_second, m, [&](int64_t h, const T* product) {
      T* row = by_first_rows + h * COLUMNS;
      times(product, slopes + h * COLUMNS, row);
      by_first(h, row);
    });
    tile_product(w1_back, by_first_rows, m, by_x);
  }

 private:
  static void activate(const T* z, int64_t m, T* value, T* slope) {
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      const Silu<T> f = silu_derivatives(z[p]);
      value[p] = f.value;
      slope[p] = f.slope;
    }
  }
};

}  // namespace ampmm
