// Numbers that the CPU's and the GPU's kernels share.
#pragma once

#include <cstdint>

namespace ampmm {

// Square roots of 2, 6, 0.15, 0.1 and 1.5.
constexpr double S2 = 1.4142135623730951, S6 = 2.449489742783178, S15 = 0.3872983346207417, S10 = 0.31622776601683794, S32 = 1.224744871391589;

constexpr int MAX_ORDER = 3;
constexpr int MAX_COMPONENTS = (MAX_ORDER + 1) * (MAX_ORDER + 1);

// Orders 0, 1, ... that have so many packed components in all, or that reach so many.
inline int64_t orders_of(int64_t components) {
  int64_t n = 0;
  while (n * n < components) ++n;
  return n;
}

constexpr double NORM_EPSILON = 1.0e-4;  // of multipoles' norms, as in ampmm/nn/multipoles.py

}  // namespace ampmm
