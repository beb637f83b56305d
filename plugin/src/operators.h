// The operators themselves, for those that are made of others.
#pragma once

#include "common.h"

#include <optional>
#include <tuple>

namespace ampmm {

std::tuple<Tensor, Tensor, Tensor, Tensor> pair_geometry(const Tensor& vectors, double cutoff, int64_t exponent, int64_t n_radial,
                                                         int64_t order);

Tensor anisotropic_features(const Tensor& multipoles, const Tensor& unit, const Tensor& radial, const Tensor& by_center,
                            const Tensor& by_neighbor, const Tensor& matrix, const Tensor& centers, const Tensor& neighbors,
                            const Tensor& table);
// The same without autograd, from its inputs; and the gradients by multipoles, unit and radial.
Tensor anisotropic_values(const std::vector<Tensor>& in);
std::vector<Tensor> anisotropic_gradients(const std::vector<Tensor>& in, const Tensor& by);

Tensor polarized_features(const Tensor& multipoles, const Tensor& tensors, const Tensor& radial, const Tensor& charges,
                          const Tensor& by_center, const Tensor& matrix, const Tensor& centers);

Tensor pair_sum(const Tensor& features, const std::optional<Tensor>& leading, const Tensor& center_part,
                const std::optional<Tensor>& neighbor_part, const Tensor& centers, const Tensor& neighbors, const Tensor& scale,
                const std::optional<Tensor>& tensors, const Tensor& w1, const Tensor& w2, const Tensor& b2,
                const std::optional<Tensor>& w3, int64_t lowest_order, int64_t n_channels);

}  // namespace ampmm
