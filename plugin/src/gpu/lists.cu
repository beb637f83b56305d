// The lists of pairs in arrays of a fixed length: each center's near ones are counted, then listed where the counts say.
#include "launch.h"
#include "operators.h"

#include <ATen/Dispatch.h>

namespace ampmm::gpu {
namespace {

// The nearest image, as OpenMM takes it, of the vector from r to s; its square. Not inlined, so that both kernels round alike and list
// what was counted.
__device__ __noinline__ double nearest(const double* r, const double* s, const double* box, double* v) {
  for (int c = 0; c < 3; ++c) v[c] = s[c] - r[c];
  if (box)
    for (int axis = 2; axis >= 0; --axis) {
      const double turns = rint(v[axis] / box[3 * axis + axis]);
      for (int c = 0; c <= axis; ++c) v[c] -= turns * box[3 * axis + c];
    }
  return v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
}

constexpr int SEARCHERS = 256;  // threads of a block, for one center

__global__ void count_kernel(const double* positions, const double* others, int n_others, const double* box, double limit, bool distinct,
                             int* counts) {
  __shared__ int sums[SEARCHERS];
  double v[3];
  int own = 0;
  for (int j = threadIdx.x; j < n_others; j += SEARCHERS)
    own += nearest(positions + 3 * blockIdx.x, others + 3 * j, box, v) < limit && !(distinct && j == static_cast<int>(blockIdx.x));
  sums[threadIdx.x] = own;
  __syncthreads();
  for (int half = SEARCHERS / 2; half; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) counts[blockIdx.x] = sums[0];
}

template <class T>
__global__ void list_kernel(const double* positions, const double* others, int n_others, const double* box, double limit, bool distinct,
                            const int* counts, int n, int capacity, int64_t filling, T away, int64_t* centers, int64_t* neighbors, T* vectors,
                            int64_t* n_near) {
  __shared__ int ranks[2][SEARCHERS], before, total;
  const int t = threadIdx.x, i = blockIdx.x;
  if (t == 0) {
    before = total = 0;
    for (int k = 0; k < n; ++k) {
      if (k < i) before += counts[k];
      total += counts[k];
    }
    if (i == 0) *n_near = total;
  }
  __syncthreads();
  int place = before;  // of the first that this round finds
  for (int first = 0; first < n_others; first += SEARCHERS) {
    const int j = first + t;
    double v[3];
    const bool near = j < n_others && nearest(positions + 3 * i, others + 3 * j, box, v) < limit && !(distinct && j == i);
    int now = 0;
    ranks[0][t] = near;
    __syncthreads();
    for (int step = 1; step < SEARCHERS; step *= 2, now = 1 - now) {
      ranks[1 - now][t] = ranks[now][t] + (t >= step ? ranks[now][t - step] : 0);
      __syncthreads();
    }
    const int to = place + ranks[now][t] - 1;
    if (near && to < capacity) {
      centers[to] = i;
      neighbors[to] = j;
      for (int c = 0; c < 3; ++c) vectors[3 * to + c] = static_cast<T>(v[c]);
    }
    place += ranks[now][SEARCHERS - 1];
    __syncthreads();
  }
  for (int to = total + i * SEARCHERS + t; to < capacity; to += n * SEARCHERS) {
    centers[to] = n - 1;
    neighbors[to] = filling;
    for (int c = 0; c < 3; ++c) vectors[3 * to + c] = away;
  }
}

}  // namespace

Tensors padded_pairs(const Tensor& positions, const Tensor& others, const Tensor& box, const Tensor& like, const Padding& padding) {
  const int64_t n = positions.size(0), capacity = padding.capacity;
  const double limit = padding.cutoff * padding.cutoff;
  const Tensor counts = at::empty({n}, positions.options().dtype(at::kInt)), near = at::empty({}, positions.options().dtype(at::kLong));
  const Tensor centers = at::empty({capacity}, near.options()), neighbors = at::empty({capacity}, near.options());
  const Tensor vectors = at::empty({capacity, 3}, like.options());
  launch(positions, count_kernel, n, SEARCHERS, data<const double>(positions), data<const double>(others), int(others.size(0)),
         data<const double>(box), limit, padding.distinct, data<int>(counts));
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "padded_pairs", [&] {
    launch(positions, list_kernel<scalar_t>, n, SEARCHERS, data<const double>(positions), data<const double>(others), int(others.size(0)),
           data<const double>(box), limit, padding.distinct, data<const int>(counts), int(n), int(capacity), padding.neighbor,
           scalar_t(padding.away), data<int64_t>(centers), data<int64_t>(neighbors), data<scalar_t>(vectors), data<int64_t>(near));
  });
  return {centers, neighbors, vectors, near};
}

}  // namespace ampmm::gpu
