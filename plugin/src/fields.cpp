// What MM charges make at the QM atoms, and what pairs give back as forces; and the pairs themselves. Derivatives are written out by
// the callers: nothing here is part of autograd's graph.
#include "gpu/autograd.h"
#include "moments.h"
#include "operators.h"
#include "radial_weights.h"
#include "reaction_field.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

#include <numeric>

namespace ampmm {
namespace {

// A tile's distances and directions, and k_e q times the kernel and its slope. Vectors lie component by component.
template <class T>
struct Pairs {
  T x[TILE], y[TILE], z[TILE], inverse[TILE], value[TILE], slope[TILE];

  Pairs(const Tensor& vectors, const T* source, const int64_t* neighbors, const Kernel& w, int64_t first, int64_t m) {
    const T *vx = column<T>(vectors, 0, first), *vy = column<T>(vectors, 1, first), *vz = column<T>(vectors, 2, first);
    T q[TILE];
    for (int64_t p = 0; p < m; ++p) q[p] = source[neighbors[first + p]];
    const T k = T(w.k), a4 = T(w.a4), a6 = T(w.a6), shift = T(w.shift), limit = T(w.cutoff);
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      const T r2 = vx[p] * vx[p] + vy[p] * vy[p] + vz[p] * vz[p], r = std::sqrt(r2), own = r < limit ? q[p] : T(0);
      inverse[p] = 1 / r;
      x[p] = vx[p] * inverse[p];
      y[p] = vy[p] * inverse[p];
      z[p] = vz[p] * inverse[p];
      value[p] = own * (inverse[p] + r2 * (k + r2 * (a4 + r2 * a6)) - shift);
      slope[p] = own * (r * (2 * k + r2 * (4 * a4 + r2 * 6 * a6)) - inverse[p] * inverse[p]);
    }
  }
};

template <class T>
std::tuple<Tensor, Tensor> potential(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors,
                                     int64_t n_atoms, const Kernel& w) {
  const int64_t n = vectors.size(0);
  Sum total({n_atoms}, vectors);
  Tensor gradients = new_columns(n, 3, vectors);
  for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
    const Pairs<T> t(vectors, source.data_ptr<T>(), neighbors.data_ptr<int64_t>(), w, first, m);
    T *gx = column<T>(gradients, 0, first), *gy = column<T>(gradients, 1, first), *gz = column<T>(gradients, 2, first);
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      gx[p] = t.slope[p] * t.x[p];
      gy[p] = t.slope[p] * t.y[p];
      gz[p] = t.slope[p] * t.z[p];
    }
    const int64_t* i = centers.data_ptr<int64_t>() + first;
    T* sum = total.data<T>(thread);
    for (int64_t p = 0; p < m; ++p) sum[i[p]] += t.value[p];
  });
  return {total.total(), gradients};
}

constexpr int64_t FIELDS = 1 + MOMENT_PARTS;

// Of orders 0 to 2, packed: B0, B1 u and B2 R2 with B0 = w, B1 r = w/r, B2 r^2 = 3 w/r^2.
template <class T>
Tensor fields(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors, int64_t n_atoms,
              const Kernel& w) {
  Sum total({n_atoms, FIELDS}, vectors);
  for_tiles(vectors.size(0), TILE, [&](int64_t first, int64_t m, int thread) {
    const Pairs<T> t(vectors, source.data_ptr<T>(), neighbors.data_ptr<int64_t>(), w, first, m);
    T rows[FIELDS * TILE];
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      const Vector<T> u{t.x[p], t.y[p], t.z[p]};
      const T dipole = t.value[p] * t.inverse[p], quadrupole = 3 * dipole * t.inverse[p];
      T packed[5];
      pack(u, u, packed);
      rows[p] = t.value[p];
      rows[m + p] = dipole * u.x;
      rows[2 * m + p] = dipole * u.y;
      rows[3 * m + p] = dipole * u.z;
      for (int64_t c = 0; c < 5; ++c) rows[(4 + c) * m + p] = quadrupole * packed[c];
    }
    scatter_components(rows, m, centers.data_ptr<int64_t>() + first, FIELDS, total.data<T>(thread));
  });
  return total.total();
}

// The derivative of moments times fields by the vectors, see MultipoleField.pair_gradients.
template <class T>
Tensor field_gradients(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors,
                       const Tensor& moments, const Kernel& w) {
  const int64_t n = vectors.size(0);
  Tensor gradients = new_columns(n, 3, vectors);
  for_tiles(n, TILE, [&](int64_t first, int64_t m, int) {
    const Pairs<T> t(vectors, source.data_ptr<T>(), neighbors.data_ptr<int64_t>(), w, first, m);
    T rows[FIELDS * TILE];
    gather_components(moments.data_ptr<T>(), FIELDS, centers.data_ptr<int64_t>() + first, m, rows);
    T *gx = column<T>(gradients, 0, first), *gy = column<T>(gradients, 1, first), *gz = column<T>(gradients, 2, first);
#pragma omp simd
    for (int64_t p = 0; p < m; ++p) {
      const Vector<T> u{t.x[p], t.y[p], t.z[p]};
      const Moments<T> own(rows + m, m, p);
      const Vector<T> turn = turned(own, u);
      const T along = dot(own.dipole, u), both = dot(turn, u), inverse = t.inverse[p], scaled = t.value[p] * inverse;
      const T radial = rows[p] * t.slope[p] + inverse * (along * (t.slope[p] - 2 * scaled) +
                                                         both * inverse * (3 * t.slope[p] - 12 * scaled));
      const T across = scaled * inverse, twice = 6 * inverse;
      gx[p] = radial * u.x + across * (own.dipole.x + twice * turn.x);
      gy[p] = radial * u.y + across * (own.dipole.y + twice * turn.y);
      gz[p] = radial * u.z + across * (own.dipole.z + twice * turn.z);
    }
  });
  return gradients;
}

// What belongs to pairs (n, 3), summed onto their centers and onto their neighbors.
template <class T>
std::tuple<Tensor, Tensor> pair_sums(const Tensor& values, const Tensor& centers, const Tensor& neighbors, int64_t n_centers,
                                     int64_t n_neighbors) {
  const int64_t n = values.size(0);
  Tensor by_center = at::zeros({n_centers, 3}, values.options()), by_neighbor = at::zeros({n_neighbors, 3}, values.options());
  scatter_components(values.data_ptr<T>(), n, centers.data_ptr<int64_t>(), 3, by_center.data_ptr<T>());
  const T *x = column<T>(values, 0), *y = column<T>(values, 1), *z = column<T>(values, 2);
  const int64_t* j = neighbors.data_ptr<int64_t>();
  T* to = by_neighbor.data_ptr<T>();
  for (int64_t p = 0; p < n; ++p) {
    T* own = to + 3 * j[p];
    own[0] += x[p];
    own[1] += y[p];
    own[2] += z[p];
  }
  return {by_center, by_neighbor};
}

struct Given {
  Tensor vectors, source, centers, neighbors;
  Kernel w;
};

Given checked(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors, at::ArrayRef<double> kernel) {
  check_cpu(vectors, "vectors");
  TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == 3, "vectors: expected (n_pairs, 3), got ", vectors.sizes());
  TORCH_CHECK(source.scalar_type() == vectors.scalar_type(), "charges: expected ", vectors.scalar_type(), ", got ", source.scalar_type());
  return {as_columns(vectors.detach()), source.detach().contiguous(), centers.contiguous(), neighbors.contiguous(), Kernel(kernel)};
}

}  // namespace

std::tuple<Tensor, Tensor> charge_potential(const Tensor& vectors, const Tensor& source, const Tensor& centers,
                                            const Tensor& neighbors, int64_t n_atoms, at::ArrayRef<double> kernel) {
  if (takes_gpu(vectors)) {
    const Kernel checked(kernel);
    return gpu::charge_potential(vectors.detach().contiguous(), source.detach().contiguous(), centers.contiguous(), neighbors.contiguous(),
                                 n_atoms, kernel);
  }
  const Given g = checked(vectors, source, centers, neighbors, kernel);
  std::tuple<Tensor, Tensor> r;
  AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "charge_potential", [&] {
    r = potential<scalar_t>(g.vectors, g.source, g.centers, g.neighbors, n_atoms, g.w);
  });
  return r;
}

Tensor charge_fields(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors, int64_t n_atoms,
                     at::ArrayRef<double> kernel) {
  const Given g = checked(vectors, source, centers, neighbors, kernel);
  Tensor r;
  AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "charge_fields", [&] {
    r = fields<scalar_t>(g.vectors, g.source, g.centers, g.neighbors, n_atoms, g.w);
  });
  return r;
}

Tensor charge_field_gradients(const Tensor& vectors, const Tensor& source, const Tensor& centers, const Tensor& neighbors,
                              const Tensor& moments, at::ArrayRef<double> kernel) {
  const Given g = checked(vectors, source, centers, neighbors, kernel);
  const Tensor own = moments.detach().contiguous();
  TORCH_CHECK(own.dim() == 2 && own.size(1) == FIELDS, "moments: expected (N, 9), got ", own.sizes());
  Tensor r;
  AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "charge_field_gradients", [&] {
    r = field_gradients<scalar_t>(g.vectors, g.source, g.centers, g.neighbors, own, g.w);
  });
  return r;
}

std::tuple<Tensor, Tensor> sums_over_pairs(const Tensor& values_, const Tensor& centers, const Tensor& neighbors, int64_t n_centers,
                                           int64_t n_neighbors) {
  TORCH_CHECK(values_.dim() == 2 && values_.size(1) == 3, "values: expected (n_pairs, 3), got ", values_.sizes());
  if (takes_gpu(values_))
    return gpu::sums_over_pairs(values_.detach().contiguous(), centers.contiguous(), neighbors.contiguous(), n_centers, n_neighbors);
  check_cpu(values_, "values");
  const Tensor values = as_columns(values_.detach());
  std::tuple<Tensor, Tensor> r;
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "sums_over_pairs", [&] {
    r = pair_sums<scalar_t>(values, centers.contiguous(), neighbors.contiguous(), n_centers, n_neighbors);
  });
  return r;
}

// The listed pairs that are nearer than a cutoff, with their nearest-image vectors, in single precision if `single`.
std::tuple<Tensor, Tensor, Tensor> near_pairs(const Tensor& positions_, const Tensor& others_, const Tensor& centers_,
                                              const Tensor& neighbors_, const std::optional<Tensor>& box, double cutoff, bool single) {
  check_cpu(positions_, "positions");
  const Tensor positions = positions_.contiguous(), others = others_.contiguous(), centers = centers_.contiguous(),
               neighbors = neighbors_.contiguous();
  const Tensor vectors = box ? box->contiguous() : Tensor();
  for (const Tensor& each : {positions, others})
    TORCH_CHECK(each.scalar_type() == at::kDouble, "near_pairs: expected float64, got ", each.scalar_type());
  const int64_t n = centers.size(0);
  const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), n / (8 * TILE))), share = (n + threads - 1) / threads;
  std::vector<std::vector<int64_t>> kept(threads);
  std::vector<std::vector<double>> found(threads);
  const double *r = positions.data_ptr<double>(), *s = others.data_ptr<double>();
  const int64_t *ci = centers.data_ptr<int64_t>(), *cj = neighbors.data_ptr<int64_t>();
  const double infinite = std::numeric_limits<double>::infinity();
  const double limit = cutoff < infinite ? cutoff * cutoff : infinite;
  const Box none, given = box ? Box(vectors.data_ptr<double>()) : none;
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      auto &index = kept[k];
      auto &v = found[k];
      for (int64_t first = k * share; first < std::min(n, (k + 1) * share); first += TILE) {
        const int64_t m = std::min({TILE, n - first, (k + 1) * share - first});
        double x[TILE], y[TILE], z[TILE], r2[TILE];
        for (int64_t p = 0; p < m; ++p) {
          const double *a = r + 3 * ci[first + p], *b = s + 3 * cj[first + p];
          x[p] = b[0] - a[0];
          y[p] = b[1] - a[1];
          z[p] = b[2] - a[2];
        }
        if (box)
#pragma omp simd
          for (int64_t p = 0; p < m; ++p) given.nearest_image(x[p], y[p], z[p]);
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) r2[p] = x[p] * x[p] + y[p] * y[p] + z[p] * z[p];
        for (int64_t p = 0; p < m; ++p)
          if (r2[p] < limit) {
            index.push_back(first + p);
            v.insert(v.end(), {x[p], y[p], z[p]});
          }
      }
    }
  });
  int64_t total = 0;
  for (const auto& each : kept) total += each.size();
  Tensor i = at::empty({total}, centers.options()), j = at::empty({total}, centers.options());
  Tensor out = at::empty({3, total}, positions.options().dtype(single ? at::kFloat : at::kDouble));
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "near_pairs", [&] {
    int64_t *pi = i.data_ptr<int64_t>(), *pj = j.data_ptr<int64_t>(), q = 0;
    scalar_t* to = out.data_ptr<scalar_t>();
    for (int64_t k = 0; k < threads; ++k)
      for (size_t p = 0; p < kept[k].size(); ++p, ++q) {
        pi[q] = ci[kept[k][p]];
        pj[q] = cj[kept[k][p]];
        for (int64_t d = 0; d < 3; ++d) to[d * total + q] = static_cast<scalar_t>(found[k][3 * p + d]);
      }
  });
  return {i, j, out.t()};
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "charge_potential(Tensor vectors, Tensor source, Tensor centers, Tensor neighbors, int n_atoms, float[] kernel) -> (Tensor, Tensor)",
      &ampmm::charge_potential);
  library.def("charge_fields(Tensor vectors, Tensor source, Tensor centers, Tensor neighbors, int n_atoms, float[] kernel) -> Tensor",
              &ampmm::charge_fields);
  library.def(
      "charge_field_gradients(Tensor vectors, Tensor source, Tensor centers, Tensor neighbors, Tensor moments, float[] kernel) -> Tensor",
      &ampmm::charge_field_gradients);
  library.def(
      "sums_over_pairs(Tensor values, Tensor centers, Tensor neighbors, int n_centers, int n_neighbors) -> (Tensor, Tensor)",
      &ampmm::sums_over_pairs);
  library.def(
      "near_pairs(Tensor positions, Tensor others, Tensor centers, Tensor neighbors, Tensor? box, float cutoff, bool single) -> "
      "(Tensor, Tensor, Tensor)",
      &ampmm::near_pairs);
}
