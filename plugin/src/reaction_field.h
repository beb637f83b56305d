// Periodic boxes, and the kernel of the electrostatics in them.
#pragma once

#include "common.h"

#include <array>

namespace ampmm {

// w(r) = 1/r + r^2 (k + r^2 (a4 + r^2 a6)) - shift inside of the cutoff; bare Coulomb without the other numbers and without a cutoff.
struct Kernel {
  double k, a4, a6, shift, cutoff;
  explicit Kernel(at::ArrayRef<double> v) {
    TORCH_CHECK(v.size() == 5, "kernel: expected five numbers, got ", v.size());
    k = v[0], a4 = v[1], a6 = v[2], shift = v[3], cutoff = v[4];
  }
};

// A box in OpenMM's reduced form: a along x, b in the xy plane.
struct Box {
  double a = 1, bx = 0, b = 1, cx = 0, cy = 0, c = 1;
  Box() = default;
  explicit Box(const double* v) : a(v[0]), bx(v[3]), b(v[4]), cx(v[6]), cy(v[7]), c(v[8]) {}

  std::array<double, 3> fractional(double x, double y, double z) const {
    const double w = z / c, v = (y - w * cy) / b;
    return {(x - v * bx - w * cx) / a, v, w};
  }
  std::array<double, 3> cartesian(double u, double v, double w) const { return {u * a + v * bx + w * cx, v * b + w * cy, w * c}; }

  // Distances between opposite faces.
  std::array<double, 3> widths() const {
    const double u1 = 1 / a, u2 = -bx / (a * b), u3 = (bx * cy - cx * b) / (a * b * c), v2 = 1 / b, v3 = -cy / (b * c);
    return {1 / std::sqrt(u1 * u1 + u2 * u2 + u3 * u3), 1 / std::sqrt(v2 * v2 + v3 * v3), c};
  }

  // As OpenMM takes it, one box vector after another.
  void nearest_image(double& x, double& y, double& z) const {
    const double w = std::nearbyint(z / c);
    x -= w * cx;
    y -= w * cy;
    z -= w * c;
    const double v = std::nearbyint(y / b);
    x -= v * bx;
    y -= v * b;
    x -= std::nearbyint(x / a) * a;
  }
};

}  // namespace ampmm
