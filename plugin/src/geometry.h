// A tile's distances, directions and envelope, and the packed tensors of its directions.
#pragma once

#include "common.h"

namespace ampmm {

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

// The vectors of a tile of up to W pairs: distance, direction, envelope e = d u(d) and g = e/d with their derivatives by r, sine and cosine
// of pi d.
template <class T, int64_t W = TILE>
struct Tile {
  int64_t m;
  T cutoff;
  T r[W], x[W], y[W], z[W], e[W], de[W], g[W], dg[W], s[W], c[W];

  Tile(const T* v, int64_t m_, T cutoff_, int exponent) : m(m_), cutoff(cutoff_) {
    const T q = static_cast<T>(exponent), a0 = T(-0.5) * (q + 1) * (q + 2), a1 = q * (q + 2), a2 = T(-0.5) * q * (q + 1);
    T power[W];
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
    T sine[W], cosine[W];
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
template <class T, int64_t W>
void tensors_of(const Tile<T, W>& t, T out[16][W]) {
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
template <class T, int64_t W>
void slopes_of(const Tile<T, W>& t, T out[16][3][W]) {
  const T s2 = T(S2), s6 = T(S6), s10 = T(S10), s15 = T(S15), s32 = T(S32);
  std::memset(out, 0, 16 * 3 * W * sizeof(T));
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

// Gradients by the distance and the direction of a tile's pairs, and what they make by its vectors.
template <class T, int64_t W = TILE>
struct DirectionGradients {
  T r[W], x[W], y[W], z[W];

  // by(c): the row of gradients by component c of the tensors; adds what they give.
  template <class F>
  void add_tensors(const Tile<T, W>& t, int64_t n_components, const F& by) {
    T slopes[16][3][W];
    slopes_of(t, slopes);
    for (int64_t c = 1; c < n_components; ++c) {
      const T* g = by(c);
#pragma omp simd
      for (int64_t p = 0; p < t.m; ++p) {
        x[p] += g[p] * slopes[c][0][p];
        y[p] += g[p] * slopes[c][1][p];
        z[p] += g[p] * slopes[c][2][p];
      }
    }
  }

  // For the first m pairs, (m, 3).
  void by_vectors(const Tile<T, W>& t, int64_t m, T* out) const {
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      const T along = x[p] * t.x[p] + y[p] * t.y[p] + z[p] * t.z[p];
      out[3 * p] = t.x[p] * r[p] + (x[p] - t.x[p] * along) / t.r[p];
      out[3 * p + 1] = t.y[p] * r[p] + (y[p] - t.y[p] * along) / t.r[p];
      out[3 * p + 2] = t.z[p] * r[p] + (z[p] - t.z[p] * along) / t.r[p];
    }
  }
};

}  // namespace ampmm
