// Energies of QM-QM pairs that are functions of the distance, with factors that belong to the atoms: Coulomb and dispersion at long
// range, and the repulsion of screened nuclei. The formulas are those of ampmm/physics.
#include "once.h"
#include "reaction_field.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

// 6x^5 - 15x^4 + 10x^3, clipped to 0..1, and its slope.
template <class T>
inline T smooth_step(T x) {
  const T s = x * x * x * (x * (x * 6 - 15) + 10);
  return s < 0 ? T(0) : s > 1 ? T(1) : s;
}
template <class T>
inline T smooth_step_slope(T x) {
  const T rest = 1 - x;
  return x > 0 && x < 1 ? 30 * x * x * rest * rest : T(0);
}

template <class T>
struct Value {
  T value, slope;
};

struct LongRange {
  enum { VECTORS, CHARGES, SQRT_C6, SQRT_R4R2, CENTERS, NEIGHBORS };

  // The reaction field, switched on below `graph`, times `constant`; dispersion at unit C6, in `hartree` and `bohr`.
  struct Parameters {
    Kernel w;
    double graph, constant, s8, a1, a2, bohr, hartree;
    explicit Parameters(const std::vector<double>& v)
        : w(at::ArrayRef<double>(v.data(), 5)), graph(v[5]), constant(v[6]), s8(v[7]), a1(v[8]), a2(v[9]), bohr(v[10]), hartree(v[11]) {}

    template <class T>
    Value<T> coulomb(T r) const {
      const T inside = r < T(w.cutoff) ? T(constant) : T(0), inverse = 1 / r, r2 = r * r;
      const T value = inverse + r2 * (T(w.k) + r2 * (T(w.a4) + r2 * T(w.a6))) - T(w.shift);
      const T slope = r * (2 * T(w.k) + r2 * (4 * T(w.a4) + r2 * 6 * T(w.a6))) - inverse * inverse;
      const T x = r / T(graph), step = smooth_step(x);
      return {inside * value * step, inside * (slope * step + value * smooth_step_slope(x) / T(graph))};
    }

    template <class T>
    Value<T> dispersion(T distance, T product) const {
      const T r = distance / T(bohr), square = r * r, fourth = square * square;
      const T root = T(a1) * product + T(a2), damping = root * root, sixth = damping * damping * damping;
      const T share = T(s8) * product * product, six = 1 / (fourth * square + sixth), eight = 1 / (fourth * fourth + sixth * damping);
      const T falls = 6 * six * six + 8 * share * square * eight * eight;
      return {-T(hartree) * (six + share * eight), T(hartree / bohr) * fourth * r * falls};
    }
  };

  // f(pair, distance, i, j) for all pairs, of vectors that lie component by component.
  template <class T, class F>
  static void each(const std::vector<Tensor>& in, const F& f) {
    const int64_t n = in[VECTORS].size(0);
    const T *x = column<T>(in[VECTORS], 0), *y = column<T>(in[VECTORS], 1), *z = column<T>(in[VECTORS], 2);
    const int64_t *i = in[CENTERS].data_ptr<int64_t>(), *j = in[NEIGHBORS].data_ptr<int64_t>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
      for (int64_t p = first; p < first + m; ++p) f(p, std::sqrt(x[p] * x[p] + y[p] * y[p] + z[p] * z[p]), i[p], j[p], thread);
    });
  }

  template <class T>
  static std::vector<Tensor> forward_kernel(const Parameters& o, const std::vector<Tensor>& in) {
    Tensor coulomb = at::empty({in[VECTORS].size(0)}, in[VECTORS].options()), dispersion = at::empty_like(coulomb);
    T *pc = coulomb.data_ptr<T>(), *pd = dispersion.data_ptr<T>();
    const T *q = in[CHARGES].data_ptr<T>(), *c = in[SQRT_C6].data_ptr<T>(), *s = in[SQRT_R4R2].data_ptr<T>();
    each<T>(in, [&](int64_t p, T r, int64_t i, int64_t j, int) {
      pc[p] = q[i] * q[j] * o.coulomb(r).value;
      pd[p] = c[i] * c[j] * o.dispersion(r, s[i] * s[j]).value;
    });
    return {coulomb, dispersion};
  }

  template <class T>
  static std::vector<Tensor> backward_kernel(const Parameters& o, const std::vector<Tensor>& in, const Tensor& by_coulomb,
                                             const Tensor& by_dispersion) {
    const int64_t n = in[VECTORS].size(0), n_atoms = in[CHARGES].size(0);
    Tensor by_vectors = new_columns(n, 3, in[VECTORS]);
    Sum by_atoms({2, n_atoms}, in[VECTORS]);
    const T *q = in[CHARGES].data_ptr<T>(), *c = in[SQRT_C6].data_ptr<T>(), *s = in[SQRT_R4R2].data_ptr<T>();
    const T *gc = by_coulomb.data_ptr<T>(), *gd = by_dispersion.data_ptr<T>();
    each<T>(in, [&](int64_t p, T r, int64_t i, int64_t j, int thread) {
      const Value<T> coulomb = o.coulomb(r), dispersion = o.dispersion(r, s[i] * s[j]);
      T *by_q = by_atoms.data<T>(thread), *by_c = by_q + n_atoms;
      const T a = gc[p] * coulomb.value, b = gd[p] * dispersion.value;
      by_q[i] += a * q[j];
      by_q[j] += a * q[i];
      by_c[i] += b * c[j];
      by_c[j] += b * c[i];
      const T along = (gc[p] * q[i] * q[j] * coulomb.slope + gd[p] * c[i] * c[j] * dispersion.slope) / r;
      for (int64_t d = 0; d < 3; ++d) column<T>(by_vectors, d)[p] = along * column<T>(in[VECTORS], d)[p];
    });
    const Tensor total = by_atoms.total();
    return {by_vectors, total[0], total[1]};
  }

  static std::vector<Tensor> tidy(std::vector<Tensor> in) {
    for (size_t k = 0; k < in.size(); ++k) in[k] = k == VECTORS ? as_columns(in[k]) : in[k].contiguous();
    return in;
  }

  static std::vector<Tensor> forward(const Options& o, const std::vector<Tensor>& in) {
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "long_range",
                               [&] { r = forward_kernel<scalar_t>(Parameters(o.real), tidy(in)); });
    return r;
  }

  static std::vector<Tensor> backward(const Options& o, const std::vector<Tensor>& in, const std::vector<Tensor>& by) {
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "long_range_backward", [&] {
      r = backward_kernel<scalar_t>(Parameters(o.real), tidy(in), by[0].contiguous(), by[1].contiguous());
    });
    return r;
  }
};

// k_e Z Z'/r sum_k c_k exp(-a_k r/a), switched off over the last Angstrom before the cutoff.
struct Nuclei {
  enum { DISTANCES, FIRST, SECOND };

  template <class T>
  static std::vector<Tensor> kernel(const Options& o, const std::vector<Tensor>& in, bool slopes) {
    const int64_t n = in[DISTANCES].size(0);
    const T cutoff = T(o.real[0]), constant = T(o.real[1]), screening = T(o.real[2]);
    const double *heights = o.real.data() + 3, *decays = o.real.data() + 7;
    Tensor out = at::empty_like(in[DISTANCES]);
    const T* r = in[DISTANCES].data_ptr<T>();
    const int64_t *first = in[FIRST].data_ptr<int64_t>(), *second = in[SECOND].data_ptr<int64_t>();
    T* to = out.data_ptr<T>();
    static const std::vector<double> powers = [] {
      std::vector<double> all(256);
      for (size_t z = 0; z < all.size(); ++z) all[z] = std::pow(static_cast<double>(z), 0.23);
      return all;
    }();
    for_tiles(n, TILE, [&](int64_t begin, int64_t m, int) {
      for (int64_t p = begin; p < begin + m; ++p) {
        if (!(r[p] < cutoff)) {  // no exponentials where all is switched off
          to[p] = r[p] >= cutoff ? T(0) : r[p];
          continue;
        }
        const T per_length = T(powers[first[p] & 255] + powers[second[p] & 255]) / screening;
        T screened = 0, falls = 0;
        for (int k = 0; k < 4; ++k) {
          const T part = T(heights[k]) * exponential(-T(decays[k]) * per_length * r[p]);
          screened += part;
          falls += T(decays[k]) * part;
        }
        const T bare = constant * first[p] * second[p] / r[p], x = r[p] - (cutoff - 1), left = 1 - smooth_step(x);
        to[p] = slopes ? -bare * ((falls * per_length + screened / r[p]) * left + screened * smooth_step_slope(x)) : bare * screened * left;
      }
    });
    return {out};
  }

  static Tensor run(const Options& o, const std::vector<Tensor>& in, bool slopes) {
    Tensor r;
    AT_DISPATCH_FLOATING_TYPES(in[DISTANCES].scalar_type(), "nuclear_repulsion", [&] {
      r = kernel<scalar_t>(o, {in[DISTANCES].contiguous(), in[FIRST].contiguous(), in[SECOND].contiguous()}, slopes)[0];
    });
    return r;
  }
  static std::vector<Tensor> forward(const Options& o, const std::vector<Tensor>& in) { return {run(o, in, false)}; }
  static std::vector<Tensor> backward(const Options& o, const std::vector<Tensor>& in, const std::vector<Tensor>& by) {
    return {by[0] * run(o, in, true)};
  }
};

}  // namespace

std::tuple<Tensor, Tensor> long_range_energies(const Tensor& vectors, const Tensor& charges, const Tensor& sqrt_c6,
                                               const Tensor& sqrt_r4r2, const Tensor& centers, const Tensor& neighbors,
                                               at::ArrayRef<double> parameters) {
  check_cpu(vectors, "vectors");
  TORCH_CHECK(parameters.size() == 12, "parameters: expected twelve numbers, got ", parameters.size());
  auto r = run_once<LongRange>({{}, parameters.vec()}, {vectors, charges, sqrt_c6, sqrt_r4r2, centers, neighbors});
  return {r[0], r[1]};
}

Tensor nuclear_repulsion(const Tensor& distances, const Tensor& first, const Tensor& second, at::ArrayRef<double> parameters) {
  check_cpu(distances, "distances");
  TORCH_CHECK(parameters.size() == 11, "parameters: expected eleven numbers, got ", parameters.size());
  return run_once<Nuclei>({{}, parameters.vec()}, {distances, first, second})[0];
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "long_range_energies(Tensor vectors, Tensor charges, Tensor sqrt_c6, Tensor sqrt_r4r2, Tensor centers, Tensor neighbors, "
      "float[] parameters) -> (Tensor, Tensor)",
      &ampmm::long_range_energies);
  library.def("nuclear_repulsion(Tensor distances, Tensor first, Tensor second, float[] parameters) -> Tensor", &ampmm::nuclear_repulsion);
}
