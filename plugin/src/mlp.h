// One tile of the pair networks: Linear (an atom's and a pair's part), SiLU, Linear, SiLU, and, with K > 0, a last Linear.
//
//   z1 = atoms + x W1^T, z2 = silu(z1) W2^T + b2, out = silu(z2) [W3^T]
//
// A pair's features come as `leading`, which may be undefined, and x; the columns of W1 are in this order, and those of an
// undefined `leading` are not used. Given z1 and z2 only elementwise work is done again in the derivatives. All matrices are row-major (pairs, H); x may have
// any strides; `out` of a last Linear is stored component by component.
#pragma once

#include "common.h"

namespace ampmm {

// Gradients of the weights, summed over threads.
struct WeightSums {
  Sum w1, w2, b2, w3;
  bool wanted = false;
};

struct Weights {
  Tensor w1, w2, b2, w3;  // (H, F), (H, H), (H,), (K, H) or undefined
  int64_t width() const { return w2.size(0); }
  int64_t last() const { return w3.defined() ? w3.size(0) : 0; }

  // The columns of w1 for the last n features, and those before them for the leading features.
  Tensor of_features(const Tensor& w, int64_t n) const { return w.narrow(1, w.size(1) - n, n); }
  Tensor of_leading(const Tensor& w, int64_t n) const { return w.narrow(1, 0, w.size(1) - n); }

  Weights(const Tensor& w1_, const Tensor& w2_, const Tensor& b2_, const Tensor& w3_)
      : w1(w1_), w2(w2_.contiguous()), b2(b2_.contiguous()), w3(w3_.defined() ? w3_.contiguous() : w3_) {}

  WeightSums sums(bool wanted) const {
    WeightSums s;
    s.wanted = wanted;
    if (wanted) {
      s.w1 = Sum({w1.size(0), w1.size(1)}, w1);
      s.w2 = Sum({w2.size(0), w2.size(1)}, w2);
      s.b2 = Sum({w2.size(0)}, w2);
      if (w3.defined()) s.w3 = Sum({w3.size(0), w3.size(1)}, w3);
    }
    return s;
  }
};

template <class T>
void silu_of(const T* z, T* s, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) s[i] = z[i] * sigmoid(z[i]);
}

// s(z), s'(z) and s''(z) of SiLU.
template <class T>
struct Silu {
  T value, slope, curvature;
};
template <class T>
inline Silu<T> silu_derivatives(T z) {
  const T s = sigmoid(z), rest = s * (T(1) - s);
  return {z * s, s + z * rest, rest * (T(2) + z * (T(1) - T(2) * s))};
}

// z1 += [leading, x] W1^T
inline void add_first(const Weights& w, const Tensor& x, const Tensor& leading, Tensor z1) {
  add_product(z1, x, w.of_features(w.w1, x.size(1)).t());
  if (leading.defined()) add_product(z1, leading, w.of_leading(w.w1, x.size(1)).t());
}

// by_w1 += g1^T [leading, x]
inline void add_first_gradient(const Weights& w, const Tensor& g1, const Tensor& x, const Tensor& leading, Tensor by_w1) {
  add_product(w.of_features(by_w1, x.size(1)), g1.t(), x);
  if (leading.defined()) add_product(w.of_leading(by_w1, x.size(1)), g1.t(), leading);
}

// From how many outputs on the last Linear is a product of matrices; fewer are sums along the rows.
constexpr int64_t MANY_OUTPUTS = 8;

// Outputs stored component by component, as a matrix (m, K).
template <class T>
Tensor outputs(T* out, int64_t stride, int64_t m, const Weights& w) {
  return at::from_blob(out, {m, w.last()}, {1, stride}, w.w3.options());
}

// silu(z) in s, and, with `slopes`, its slope in the place of z.
template <class T>
void activate(T* z, T* s, int64_t n, bool slopes) {
  if (!slopes) return silu_of(z, s, n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Silu<T> f = silu_derivatives(z[i]);
    s[i] = f.value;
    z[i] = f.slope;
  }
}

// z1 comes with the atoms' part in it. `hidden` (m, H) is scratch and holds silu(z2) afterwards. With `slopes`, z1 and, where there is a
// last Linear, z2 hold SiLU's slopes there afterwards: all that first derivatives need.
template <class T>
void mlp_forward(const Weights& w, const Tensor& x, const Tensor& leading, Tensor z1, Tensor z2, Tensor hidden, T* out,
                 int64_t out_stride, bool slopes) {
  const int64_t m = x.size(0), H = w.width(), K = w.last();
  add_first(w, x, leading, z1);
  activate(z1.data_ptr<T>(), hidden.data_ptr<T>(), m * H, slopes);
  T* a2 = z2.data_ptr<T>();
  const T* b2 = w.b2.data_ptr<T>();
  for (int64_t p = 0; p < m; ++p) std::memcpy(a2 + p * H, b2, H * sizeof(T));
  add_product(z2, hidden, w.w2.t());
  activate(a2, hidden.data_ptr<T>(), m * H, slopes && K);
  if (K >= MANY_OUTPUTS) return product(outputs(out, out_stride, m, w), hidden, w.w3.t());
  const T* h = hidden.data_ptr<T>();
  for (int64_t k = 0; k < K; ++k) {
    const T* row = w.w3.data_ptr<T>() + k * H;
    for (int64_t p = 0; p < m; ++p) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < H; ++i) sum += h[p * H + i] * row[i];
      out[k * out_stride + p] = sum;
    }
  }
}

// Row p of the gradient by silu(z2): from `by_out`, (m, H) without a last Linear, else component by component.
template <class T>
inline void by_hidden(const Weights& w, const T* by_out, int64_t stride, int64_t p, T* row) {
  const int64_t H = w.width(), K = w.last();
  if (K == 0) {
    std::memcpy(row, by_out + p * H, H * sizeof(T));
    return;
  }
  std::memset(row, 0, H * sizeof(T));
  const T* w3 = w.w3.data_ptr<T>();
  for (int64_t k = 0; k < K; ++k, w3 += H) {
    const T g = by_out[k * stride + p];
#pragma omp simd
    for (int64_t i = 0; i < H; ++i) row[i] += g * w3[i];
  }
}

// g times the slope at z, or, if it is there in the place of z, times z.
template <class T>
inline void times_slope(const T* g, const T* z, T* out, int64_t n, bool slopes) {
  if (slopes) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = g[i] * z[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = g[i] * silu_derivatives(z[i]).slope;
  }
}

// From the gradient by `out` to those by x and by leading (where defined) and by z1 (left in g1, (m, H)); the gradient by silu(z1) is left in gs1.
// e1 and e2, or null, are added to the gradients by z1 and z2. s and g2 (m, H) are scratch. `slopes` as in mlp_forward; then there
// are no gradients by the weights.
template <class T>
void mlp_backward(const Weights& w, const Tensor& x, const Tensor& leading, const Tensor& z1, const Tensor& z2,
                  const T* by_out, int64_t stride, const T* e1, const T* e2, Tensor gs1, Tensor g1, Tensor g2, Tensor s,
                  Tensor by_x, Tensor by_leading, const WeightSums& sums, bool slopes, int thread) {
  const int64_t m = z1.size(0), H = w.width(), K = w.last();
  const T *a1 = z1.data_ptr<T>(), *a2 = z2.data_ptr<T>();
  T *p2 = g2.data_ptr<T>(), *ps = s.data_ptr<T>(), *p1 = g1.data_ptr<T>();
  const T* pgs1 = gs1.data_ptr<T>();
  T* b2 = sums.b2.data<T>(thread);
  T* w3 = sums.w3.data<T>(thread);
  if (K >= MANY_OUTPUTS) product(g2, outputs(const_cast<T*>(by_out), stride, m, w), w.w3);
  for (int64_t p = 0; p < m; ++p) {
    T* row = p2 + p * H;
    const T* z = a2 + p * H;
    if (K < MANY_OUTPUTS) by_hidden(w, by_out, stride, p, row);
    times_slope(row, z, row, H, slopes && K);
    if (e2)
#pragma omp simd
      for (int64_t i = 0; i < H; ++i) row[i] += e2[p * H + i];
    if (sums.wanted) {
#pragma omp simd
      for (int64_t i = 0; i < H; ++i) b2[i] += row[i];
      if (K) {
        silu_of(z, ps, H);
        for (int64_t k = 0; k < K; ++k) {
          const T g = by_out[k * stride + p];
#pragma omp simd
          for (int64_t i = 0; i < H; ++i) w3[k * H + i] += g * ps[i];
        }
      }
    }
  }
  product(gs1, g2, w.w2);
  times_slope(pgs1, a1, p1, m * H, slopes);
  if (e1)
#pragma omp simd
    for (int64_t i = 0; i < m * H; ++i) p1[i] += e1[i];
  if (by_x.defined()) product(by_x, g1, w.of_features(w.w1, x.size(1)));
  if (by_leading.defined()) product(by_leading, g1, w.of_leading(w.w1, x.size(1)));
  if (sums.wanted) {
    silu_of(a1, ps, m * H);
    add_product(sums.w2.of(thread), g2.t(), s);
    add_first_gradient(w, g1, x, leading, sums.w1.of(thread));
  }
}

// The derivative of mlp_backward (without e1, e2): the tangents of x and leading and t1 (m, H), which comes with the
// atoms' tangents in it, are the gradients by its results; `tangent_out` (as out), e1 and e2 are those by its inputs by_out, z1 and z2. `by_value` (as
// out) is a further gradient by out itself; it goes into e2 and the weights. g, v, s (m, H) and g1 are scratch.
template <class T>
void mlp_double_backward(const Weights& w, const Tensor& tangent_x, const Tensor& tangent_leading, const Tensor& z1, const Tensor& z2, const T* by_out,
                         int64_t stride, const Tensor& gs1, Tensor t1, const T* by_value, T* tangent_out, T* e1, T* e2,
                         Tensor g1, Tensor g, Tensor v, Tensor s, const WeightSums& sums, int thread) {
  const int64_t m = z1.size(0), H = w.width(), K = w.last();
  const T *a1 = z1.data_ptr<T>(), *a2 = z2.data_ptr<T>(), *pgs1 = gs1.data_ptr<T>();
  T *pt = t1.data_ptr<T>(), *pg1 = g1.data_ptr<T>(), *pg = g.data_ptr<T>(), *pv = v.data_ptr<T>(), *ps = s.data_ptr<T>();
  add_first(w, tangent_x, tangent_leading, t1);
#pragma omp simd
  for (int64_t i = 0; i < m * H; ++i) {
    const Silu<T> f = silu_derivatives(a1[i]);
    const T t = pt[i], gs = pgs1[i];
    pg1[i] = gs * f.slope;
    e1[i] = t * gs * f.curvature;
    pv[i] = t * f.slope;
  }
  if (sums.wanted) add_first_gradient(w, g1, tangent_x, tangent_leading, sums.w1.of(thread));
  Tensor t2 = t1;  // no longer needed
  product(t2, v, w.w2.t());
  T* w3 = sums.w3.data<T>(thread);
  std::vector<T> by_own(H);
  for (int64_t p = 0; p < m; ++p) {
    T *row = pg + p * H, *t = pt + p * H, *value = ps + p * H;
    const T* z = a2 + p * H;
    by_hidden(w, by_out, stride, p, row);
    if (by_value) by_hidden(w, by_value, stride, p, by_own.data());
    const T* own = by_own.data();
    T* e = e2 + p * H;
#pragma omp simd
    for (int64_t i = 0; i < H; ++i) {
      const Silu<T> f = silu_derivatives(z[i]);
      e[i] = t[i] * row[i] * f.curvature + own[i] * f.slope;
      row[i] *= f.slope;
      t[i] *= f.slope;
      value[i] = f.value;
    }
    for (int64_t k = 0; k < K; ++k) {
      const T* last = w.w3.data_ptr<T>() + k * H;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < H; ++i) sum += t[i] * last[i];
      tangent_out[k * stride + p] = sum;
      if (sums.wanted) {
        const T by = by_out[k * stride + p], own_by = by_value ? by_value[k * stride + p] : T(0);
#pragma omp simd
        for (int64_t i = 0; i < H; ++i) w3[k * H + i] += by * t[i] + own_by * value[i];
      }
    }
  }
  if (K == 0) std::memcpy(tangent_out, pt, m * H * sizeof(T));
  if (sums.wanted) add_product(sums.w2.of(thread), g.t(), v);
}

// Rows of atoms onto pairs, and back.
template <class T>
void gather_rows(const Tensor& atoms, const int64_t* index, Tensor out, bool add) {
  const int64_t m = out.size(0), H = out.size(1);
  const T* a = atoms.data_ptr<T>();
  T* o = out.data_ptr<T>();
  for (int64_t p = 0; p < m; ++p) {
    const T* row = a + index[p] * H;
    T* to = o + p * H;
    if (add)
#pragma omp simd
      for (int64_t i = 0; i < H; ++i) to[i] += row[i];
    else
      std::memcpy(to, row, H * sizeof(T));
  }
}

template <class T>
void scatter_rows(const Tensor& pairs, const int64_t* index, T* atoms) {
  const int64_t m = pairs.size(0), H = pairs.size(1);
  const T* g = pairs.data_ptr<T>();
  for (int64_t p = 0; p < m; ++p) {
    T* to = atoms + index[p] * H;
    const T* row = g + p * H;
#pragma omp simd
    for (int64_t i = 0; i < H; ++i) to[i] += row[i];
  }
}

}  // namespace ampmm
