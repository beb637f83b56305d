// The operators where tensors lie on a GPU, each differentiable once by what evaluations need.
#pragma once

#include "operators.h"

namespace ampmm {

// Whether the kernels of gpu/ take a tensor: it lies on a GPU, or they are emulated on the CPU for tests.
bool takes_gpu(const at::Tensor& x);

namespace gpu {

std::tuple<Tensor, Tensor, Tensor, Tensor> pair_geometry(const Tensor& vectors, const GeometrySettings& s);
Tensor anisotropic_features(const Tensors& in, int64_t order);
Tensor polarized_features(const Tensors& in);
Tensor summed_pairs(const Tensors& in, int64_t lowest_order);  // pair_sum of one channel

}  // namespace gpu
}  // namespace ampmm
