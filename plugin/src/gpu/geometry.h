// One pair's distance, direction, envelope and radial functions, and the packed tensors of its direction, with their derivatives.
#pragma once

#include "launch.h"

#include "../constants.h"

namespace ampmm::gpu {

// As `Tile` of ../geometry.h, for one pair: e = d u(d), g = e/d with their derivatives by r, sine and cosine of pi d.
template <class T>
struct Point {
  T r, x, y, z, e, de, g, dg, s, c;

  __device__ Point(const T* v, T cutoff, int exponent) {
    r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    x = v[0] / r;
    y = v[1] / r;
    z = v[2] / r;
    const T q = static_cast<T>(exponent), a0 = T(-0.5) * (q + 1) * (q + 2), a1 = q * (q + 2), a2 = T(-0.5) * q * (q + 1);
    const T d = r / cutoff, in = d > 1 ? T(1) : d;
    T power = 1;
    for (int i = 1; i < exponent; ++i) power *= in;
    e = 1 + power * in * (a0 + in * (a1 + in * a2));
    de = d > 1 ? T(0) : power * (q * a0 + in * ((q + 1) * a1 + in * (q + 2) * a2)) / cutoff;
    g = e / d;
    dg = de / d - e / (d * d) / cutoff;
    sine_cosine_of_pi(d, &s, &c);
  }

  // Calls f(n, value, derivative by r) for the radial functions, by the addition theorem.
  template <class F>
  __device__ void radial(int n_radial, T cutoff, const F& f) const {
    const T k = T(3.14159265358979323846) / cutoff;
    T sine = s, cosine = c;
    for (int n = 0; n < n_radial; ++n) {
      f(n, g * sine, dg * sine + g * (n + 1) * k * cosine);
      const T next = sine * c + cosine * s;
      cosine = cosine * c - sine * s;
      sine = next;
    }
  }

  // Packed tensors up to `order`.
  __device__ void tensors(int order, T* out) const {
    const T d = x * x - y * y, f = 5 * z * z - 1;
    out[0] = 1;
    if (order < 1) return;
    out[1] = x;
    out[2] = y;
    out[3] = z;
    if (order < 2) return;
    out[4] = T(S2) * x * y;
    out[5] = T(S2) * x * z;
    out[6] = T(S2) * y * z;
    out[7] = d / T(S2);
    out[8] = (3 * z * z - 1) / T(S6);
    if (order < 3) return;
    out[9] = T(0.5) * y * (3 * x * x - y * y);
    out[10] = T(S6) * x * y * z;
    out[11] = T(S15) * y * f;
    out[12] = T(S10) * z * (f - 2);
    out[13] = T(S15) * x * f;
    out[14] = T(S32) * z * d;
    out[15] = T(0.5) * x * (x * x - 3 * y * y);
  }

  // Adds to the gradient by the direction what gradients by its tensors, `by`, give.
  __device__ void add_tensors(int order, const T* by, T& gx, T& gy, T& gz) const {
    if (order < 1) return;
    const T d = x * x - y * y, f = 5 * z * z - 1, s2 = T(S2), s6 = T(S6), s10 = T(S10), s15 = T(S15), s32 = T(S32);
    gx += by[1];
    gy += by[2];
    gz += by[3];
    if (order < 2) return;
    gx += s2 * (by[4] * y + by[5] * z + by[7] * x);
    gy += s2 * (by[4] * x + by[6] * z - by[7] * y);
    gz += s2 * (by[5] * x + by[6] * y) + s6 * by[8] * z;
    if (order < 3) return;
    gx += 3 * by[9] * x * y + s6 * by[10] * y * z + s15 * by[13] * f + 2 * s32 * by[14] * x * z + T(1.5) * by[15] * d;
    gy += T(1.5) * by[9] * d + s6 * by[10] * x * z + s15 * by[11] * f - 2 * s32 * by[14] * y * z - 3 * by[15] * x * y;
    gz += s6 * by[10] * x * y + 10 * s15 * (by[11] * y + by[13] * x) * z + s10 * by[12] * (15 * z * z - 3) + s32 * by[14] * d;
  }

  // The gradient by the vector from those by distance and direction.
  __device__ void by_vector(T by_r, T gx, T gy, T gz, T* out) const {
    const T along = gx * x + gy * y + gz * z;
    out[0] = x * by_r + (gx - x * along) / r;
    out[1] = y * by_r + (gy - y * along) / r;
    out[2] = z * by_r + (gz - z * along) / r;
  }
};

}  // namespace ampmm::gpu
