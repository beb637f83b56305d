// The operators' kernels for the GPU: values, and first derivatives by what evaluations need them of; never by weights.
// Tensors are contiguous; an undefined one stands for what is not there, or is not wanted.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

namespace ampmm::gpu {

using at::Tensor;
using Tensors = std::vector<Tensor>;

// pairs.cu
struct GeometrySettings {
  double cutoff;
  int64_t exponent, n_radial, order;
};
Tensors geometry(const Tensor& vectors, const GeometrySettings& s);  // direction, tensors, radial functions, envelope
Tensor geometry_backward(const Tensor& vectors, const Tensors& by, const GeometrySettings& s);

// anisotropic.cu
// Inputs as the operators': multipoles, unit, radial, by_center, by_neighbor, matrix, centers, neighbors, table.
Tensor anisotropic(const Tensors& in, int64_t order);
Tensors anisotropic_backward(const Tensors& in, int64_t order, const Tensor& by);  // by multipoles, unit, radial

// pairs.cu
// multipoles, tensors, radial, charges, by_center, matrix, centers.
Tensor polarized(const Tensors& in);
Tensors polarized_backward(const Tensors& in, const Tensor& by);  // by multipoles, tensors, radial

std::tuple<Tensor, Tensor> charge_potential(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors,
                                            int64_t n_atoms, at::ArrayRef<double> kernel);
std::tuple<Tensor, Tensor> sums_over_pairs(const Tensor& values, const Tensor& centers, const Tensor& neighbors, int64_t n_centers,
                                           int64_t n_neighbors);

// lists.cu
struct Padding {
  int64_t capacity, neighbor;
  double cutoff, away;  // away: components of the vectors that fill up
  bool distinct;        // no pair of an index with itself
};
// centers, neighbors, vectors of the type of `like`, and how many are near.
Tensors padded_pairs(const Tensor& positions, const Tensor& others, const Tensor& box, const Tensor& like, const Padding& padding);

// networks.cu
constexpr int64_t MAX_WIDTH = 128;

// features, leading, center_part, neighbor_part, centers, neighbors, scale, tensors, w1, w2, b2, w3.
Tensors pair_sum(const Tensors& in, int64_t lowest_order);  // sum, arguments of both activations, coefficients
// By features, leading, center_part, neighbor_part, scale, tensors; what is not `wanted` is undefined.
Tensors pair_sum_backward(const Tensors& in, const Tensors& kept, const Tensor& by, int64_t lowest_order, const std::vector<bool>& wanted);

// atoms.cu
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias);
Tensor linear_backward(const Tensor& by, const Tensor& weight);

// x, w1, b1, w2, b2, w3.
Tensors node_network(const Tensors& in);  // result, arguments of both activations
Tensor node_network_backward(const Tensors& in, const Tensors& kept, const Tensor& by);

Tensor with_norms(const Tensor& hidden, const Tensor& multipoles, int64_t order);
Tensors with_norms_backward(const Tensor& multipoles, const Tensor& by, int64_t n_hidden, int64_t order);

}  // namespace ampmm::gpu
