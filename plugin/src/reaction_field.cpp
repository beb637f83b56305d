// The shifted reaction field between the charges of a periodic box: q_i q_j w(r) of all pairs nearer than a cutoff, without
// exclusions. What ampmm.embedding.use_shifted_reaction_field otherwise leaves to OpenMM's CustomNonbondedForce.
//
// Charges are sorted into columns along the third box vector, by their place along it; a charge then meets contiguous stretches
// of the columns around it, each pair once. Nothing is kept between calls.
#include "reaction_field.h"

#include <torch/library.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <tuple>

namespace ampmm {
namespace {

// 1/sqrt(x), written so that a loop of it is vectorised: a guess from the bits, and Newton's iteration to the precision of T.
inline float inverse_root(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = 0x5f3759df - (bits >> 1);
  float y;
  std::memcpy(&y, &bits, sizeof y);
  for (int i = 0; i < 3; ++i) y *= 1.5f - 0.5f * x * y * y;
  return y;
}
inline double inverse_root(double x) { return 1.0 / std::sqrt(x); }

// The charges in columns: those of column k are first[k]..first[k + 1] - 1, by their third fractional coordinate.
template <class T>
struct Columns {
  std::array<int64_t, 2> counts, reach;  // columns along a and b, and how many of them a cutoff reaches
  double span;                           // the cutoff as a fraction of the third width
  std::vector<int64_t> first, order;
  std::vector<double> height;
  std::vector<T> x, y, z, q;
  bool finite = true;

  Columns(const Box& box, const double* positions, const double* charges, int64_t n, double cutoff) {
    const auto widths = box.widths();
    for (int d = 0; d < 2; ++d) {
      counts[d] = std::max<int64_t>(1, static_cast<int64_t>(widths[d] / (0.5 * cutoff)));
      reach[d] = static_cast<int64_t>(std::ceil(cutoff * counts[d] / widths[d]));
    }
    span = cutoff / widths[2];
    std::vector<std::array<double, 3>> place(n);
    std::vector<int64_t> column(n);
    first.assign(counts[0] * counts[1] + 1, 0);
    for (int64_t i = 0; i < n; ++i) {
      auto& f = place[i];
      f = box.fractional(positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]);
      for (double& each : f) {
        each -= std::floor(each);
        finite = finite && std::isfinite(each);
        if (!(each < 1.0)) each = 0.0;  // rounding
      }
      int64_t cell[2];
      for (int d = 0; d < 2; ++d) cell[d] = std::min<int64_t>(counts[d] - 1, static_cast<int64_t>(f[d] * counts[d]));
      column[i] = cell[0] * counts[1] + cell[1];
      ++first[column[i] + 1];
    }
    std::partial_sum(first.begin(), first.end(), first.begin());
    order.resize(n);
    auto next = first;
    for (int64_t i = 0; i < n; ++i) order[next[column[i]]++] = i;
    for (size_t k = 0; k + 1 < first.size(); ++k)
      std::sort(order.begin() + first[k], order.begin() + first[k + 1],
                [&](int64_t i, int64_t j) { return place[i][2] < place[j][2]; });
    for (auto* each : {&x, &y, &z, &q}) each->resize(n + 64 / sizeof(T), T(0));
    height.resize(n);
    for (int64_t s = 0; s < n; ++s) {
      const int64_t i = order[s];
      const auto& f = place[i];
      const auto r = box.cartesian(f[0], f[1], f[2]);
      x[s] = static_cast<T>(r[0]);
      y[s] = static_cast<T>(r[1]);
      z[s] = static_cast<T>(r[2]);
      q[s] = static_cast<T>(charges[i]);
      height[s] = f[2];
    }
  }
};

// Charges handled at once. The arrays of the columns have as many more places at their end, without a charge.
template <class T>
constexpr int64_t LANES = 64 / sizeof(T);

// What a charge has gathered so far, lane by lane: its energy over the charge, and its force.
template <class T>
struct Gathered {
  T energy[LANES<T>] = {}, x[LANES<T>] = {}, y[LANES<T>] = {}, z[LANES<T>] = {};
};

// Adds the pairs of a charge at (xi, yi, zi) with those from `begin` to `end`, to what it has gathered and to the others' forces.
template <class T>
void with_stretch(const Columns<T>& c, const Kernel& w, T xi, T yi, T zi, T qi, int64_t begin, int64_t end, Gathered<T>& own, T* fx,
                  T* fy, T* fz) {
  const T k = T(w.k), a4 = T(w.a4), a6 = T(w.a6), shift = T(w.shift), limit = T(w.cutoff * w.cutoff);
  for (int64_t first = begin; first < end; first += LANES<T>) {
    const T *x = c.x.data() + first, *y = c.y.data() + first, *z = c.z.data() + first, *q = c.q.data() + first;
    T *gx = fx + first, *gy = fy + first, *gz = fz + first;
    const int32_t left = static_cast<int32_t>(std::min<int64_t>(end - first, LANES<T>));
#pragma omp simd
    for (int32_t l = 0; l < static_cast<int32_t>(LANES<T>); ++l) {
      const T dx = x[l] - xi, dy = y[l] - yi, dz = z[l] - zi, r2 = dx * dx + dy * dy + dz * dz;
      const T near = r2 < limit ? q[l] : T(0), factor = l < left ? near : T(0);
      const T inverse = inverse_root(r2 > T(1e-8) ? r2 : T(1e-8));  // charges on top of one another are excluded pairs
      own.energy[l] += factor * (inverse + r2 * (k + r2 * (a4 + r2 * a6)) - shift);
      // w'(r)/r
      const T slope = qi * factor * (2 * k + r2 * (4 * a4 + r2 * 6 * a6) - inverse * inverse * inverse);
      const T ax = slope * dx, ay = slope * dy, az = slope * dz;
      own.x[l] += ax;
      own.y[l] += ay;
      own.z[l] += az;
      gx[l] -= ax;
      gy[l] -= ay;
      gz[l] -= az;
    }
  }
}

// The charges of one column, with what they have gathered, meet those of another, or, `itself`, those above them in their own.
template <class T>
void between_columns(const Box& box, const Kernel& w, const Columns<T>& c, int64_t column, int64_t other, int64_t su, int64_t sv,
                     bool itself, std::vector<Gathered<T>>& own, T* fx, T* fy, T* fz) {
  const int64_t begin = c.first[other], end = c.first[other + 1];
  for (int sw = itself ? 0 : -1; sw <= 1; ++sw) {  // stretches in the image below, in the same and in the one above
    const auto d = box.cartesian(su, sv, sw);
    const T sx = T(d[0]), sy = T(d[1]), sz = T(d[2]);
    int64_t from = begin, to = begin;  // heights are sorted: both only go up
    for (int64_t i = c.first[column]; i < c.first[column + 1]; ++i) {
      const double low = c.height[i] - c.span - sw, high = c.height[i] + c.span - sw;
      if (itself && sw == 0) from = i + 1;
      else if (!itself)
        while (from < end && c.height[from] < low) ++from;
      while (to < end && c.height[to] < high) ++to;
      if (from < to)
        with_stretch<T>(c, w, c.x[i] - sx, c.y[i] - sy, c.z[i] - sz, c.q[i], from, to, own[i - c.first[column]], fx, fy, fz);
    }
  }
}

template <class T>
double all_pairs(const Box& box, const Kernel& w, const Columns<T>& c, double* forces) {
  if (!c.finite) return std::numeric_limits<double>::quiet_NaN();
  const int64_t n = c.order.size(), row = c.q.size(), n_columns = c.counts[0] * c.counts[1];
  const int threads = std::max(1, at::get_num_threads());
  std::vector<std::vector<T>> sums(threads);
  std::vector<double> energies(threads, 0.0);
  at::parallel_for(0, n_columns, 1, [&](int64_t first, int64_t last) {
    const int thread = at::get_thread_num();
    auto& sum = sums[thread];
    sum.resize(3 * row, T(0));
    T *fx = sum.data(), *fy = fx + row, *fz = fy + row;
    std::vector<Gathered<T>> own;
    for (int64_t column = first; column < last; ++column) {
      const int64_t cu = column / c.counts[1], cv = column % c.counts[1];
      own.assign(c.first[column + 1] - c.first[column], Gathered<T>());
      for (int64_t du = 0; du <= c.reach[0]; ++du)
        for (int64_t dv = du == 0 ? 0 : -c.reach[1]; dv <= c.reach[1]; ++dv) {
          // The column over there, and how many boxes away it is.
          const int64_t su = (cu + du) / c.counts[0];
          const int64_t sv = (cv + dv + c.reach[1] * c.counts[1]) / c.counts[1] - c.reach[1];
          const int64_t other = (cu + du - su * c.counts[0]) * c.counts[1] + cv + dv - sv * c.counts[1];
          between_columns<T>(box, w, c, column, other, su, sv, du == 0 && dv == 0, own, fx, fy, fz);
        }
      for (size_t k = 0; k < own.size(); ++k) {
        const int64_t i = c.first[column] + k;
        T energy = 0;
        for (int64_t l = 0; l < LANES<T>; ++l) {
          energy += own[k].energy[l];
          fx[i] += own[k].x[l];
          fy[i] += own[k].y[l];
          fz[i] += own[k].z[l];
        }
        energies[thread] += static_cast<double>(energy) * c.q[i];
      }
    }
  });
  for (const auto& sum : sums)
    for (int64_t s = 0; !sum.empty() && s < n; ++s)
      for (int64_t d = 0; d < 3; ++d) forces[3 * c.order[s] + d] += sum[d * row + s];
  return std::accumulate(energies.begin(), energies.end(), 0.0);
}

// Takes the pairs that do not count off again.
double take_off(const Box& box, const Kernel& w, const double* r, const double* q, const int64_t* pairs, int64_t n, double* forces) {
  double energy = 0.0;
  for (int64_t p = 0; p < n; ++p) {
    const int64_t i = pairs[2 * p], j = pairs[2 * p + 1];
    double d[3] = {r[3 * j] - r[3 * i], r[3 * j + 1] - r[3 * i + 1], r[3 * j + 2] - r[3 * i + 2]};
    box.nearest_image(d[0], d[1], d[2]);
    const double r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
    if (!(r2 < w.cutoff * w.cutoff)) continue;
    const double inverse = 1.0 / std::sqrt(std::max(r2, 1e-8)), qq = q[i] * q[j];
    energy += qq * (inverse + r2 * (w.k + r2 * (w.a4 + r2 * w.a6)) - w.shift);
    const double slope = qq * (2 * w.k + r2 * (4 * w.a4 + r2 * 6 * w.a6) - inverse * inverse * inverse);
    for (int k = 0; k < 3; ++k) {
      forces[3 * i + k] -= slope * d[k];
      forces[3 * j + k] += slope * d[k];
    }
  }
  return energy;
}

}  // namespace

// Positions (n, 3) and box (3, 3) in Angstrom, float64, exclusions (m, 2); energy () and forces (n, 3) over the unit of the
// charges' square per Angstrom. Pairs are summed up in single precision unless `precise`.
std::tuple<Tensor, Tensor> reaction_field(const Tensor& positions_, const Tensor& charges_, const Tensor& exclusions_,
                                          const Tensor& box_, at::ArrayRef<double> kernel, bool precise) {
  check_cpu(positions_, "positions");
  const Tensor positions = positions_.contiguous(), charges = charges_.contiguous(), exclusions = exclusions_.contiguous(),
               vectors = box_.contiguous();
  for (const Tensor& each : {positions, charges, vectors})
    TORCH_CHECK(each.scalar_type() == at::kDouble, "reaction_field: expected float64, got ", each.scalar_type());
  const int64_t n = charges.size(0);
  TORCH_CHECK(positions.dim() == 2 && positions.size(0) == n && positions.size(1) == 3, "positions: expected (", n, ", 3), got ",
              positions.sizes());
  const Kernel w(kernel);
  const Box box(vectors.data_ptr<double>());
  const auto widths = box.widths();
  // Not through a face's distance alone: OpenMM's rule, half the smallest diagonal element, makes nearest images unique.
  TORCH_CHECK(2 * w.cutoff <= std::min({box.a, box.b, box.c}) && widths[0] > 0, "box: the cutoff of ", w.cutoff,
              " is over half the box; use a larger box or a smaller cutoff");
  Tensor forces = at::zeros({n, 3}, positions.options());
  double *f = forces.data_ptr<double>(), energy = 0.0;
  const double *r = positions.data_ptr<double>(), *q = charges.data_ptr<double>();
  if (precise)
    energy = all_pairs<double>(box, w, Columns<double>(box, r, q, n, w.cutoff), f);
  else
    energy = all_pairs<float>(box, w, Columns<float>(box, r, q, n, w.cutoff), f);
  energy -= take_off(box, w, r, q, exclusions.data_ptr<int64_t>(), exclusions.size(0), f);
  return {at::scalar_tensor(energy, positions.options()), forces};
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "reaction_field(Tensor positions, Tensor charges, Tensor exclusions, Tensor box, float[] kernel, bool precise) -> (Tensor, "
      "Tensor)",
      &ampmm::reaction_field);
}
