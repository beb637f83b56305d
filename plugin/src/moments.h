// Vectors and packed dipoles with quadrupoles, of one pair at a time; arrays are rows of m pairs, one row a component.
#pragma once

#include "common.h"

namespace ampmm {

template <class T>
struct Vector {
  T x, y, z;
};
template <class T>
inline T dot(const Vector<T>& a, const Vector<T>& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

// Components of a dipole and, packed (see ampmm/nn/multipoles.py), of a symmetric traceless quadrupole.
constexpr int64_t MOMENT_PARTS = 8;

template <class T>
struct Moments {
  Vector<T> dipole;
  T xx, xy, xz, yy, yz, zz;
  Moments(const T* rows, int64_t m, int64_t p) : dipole{rows[p], rows[m + p], rows[2 * m + p]} {
    const T s2 = T(0.70710678118654752), s6 = T(0.40824829046386302);
    const T difference = s2 * rows[6 * m + p], axial = s6 * rows[7 * m + p];
    xy = s2 * rows[3 * m + p];
    xz = s2 * rows[4 * m + p];
    yz = s2 * rows[5 * m + p];
    xx = difference - axial;
    yy = -difference - axial;
    zz = 2 * axial;
  }
};

// Qu
template <class T>
inline Vector<T> turned(const Moments<T>& q, const Vector<T>& u) {
  return {q.xx * u.x + q.xy * u.y + q.xz * u.z, q.xy * u.x + q.yy * u.y + q.yz * u.z, q.xz * u.x + q.yz * u.y + q.zz * u.z};
}

// Q:Q'
template <class T>
inline T contracted(const Moments<T>& a, const Moments<T>& b) {
  return a.xx * b.xx + a.yy * b.yy + a.zz * b.zz + 2 * (a.xy * b.xy + a.xz * b.xz + a.yz * b.yz);
}

// The packed components of the symmetric traceless part of g u: what Q:gu is as a product with packed ones.
template <class T>
inline void pack(const Vector<T>& g, const Vector<T>& u, T out[5]) {
  const T s2 = T(0.70710678118654752), s6 = T(0.40824829046386302);
  out[0] = s2 * (g.x * u.y + g.y * u.x);
  out[1] = s2 * (g.x * u.z + g.z * u.x);
  out[2] = s2 * (g.y * u.z + g.z * u.y);
  out[3] = s2 * (g.x * u.x - g.y * u.y);
  out[4] = s6 * (2 * g.z * u.z - g.x * u.x - g.y * u.y);
}

}  // namespace ampmm
