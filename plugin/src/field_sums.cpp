// The fields of MM charges at QM atoms, sum_m q w_b(r) R(u) for every field b, where w_b is a Linear of the radial functions times their
// envelope (-F): a tile of one atom's pairs after the other. Nothing of a pair is kept; the derivatives compute its weights again.
#include "composed.h"
#include "operators.h"
#include "shares.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

#include <utility>

namespace ampmm {
namespace {

enum { VECTORS, CHARGES, CENTERS, MATRIX, BIAS };

// What all tiles have in common.
template <class T>
struct Fields {
  Tensors in;
  double cutoff;
  int64_t exponent, C, n_radial, n_fields;
  Operand<T> matrix, matrix_back;

  Fields(const Tensors& given, double cutoff_, int64_t exponent_, int64_t order)
      : in(contiguous(given)), cutoff(cutoff_), exponent(exponent_), C((order + 1) * (order + 1)), n_radial(in[MATRIX].size(1)),
        n_fields(in[MATRIX].size(0)), matrix(in[MATRIX], false), matrix_back(in[MATRIX].t(), false) {}

  const T* data(int k) const { return in[k].template data_ptr<T>(); }
};

// Arrays are rows of COLUMNS pairs.
template <class T>
class FieldTile {
 public:
  explicit FieldTile(const Fields<T>& all)
      : net(all), scratch(at::empty({2 * (net.n_radial + net.n_fields) * COLUMNS}, net.in[VECTORS].options())) {
    T* next = scratch.template data_ptr<T>();
    const auto take = [&](int64_t n) { return std::exchange(next, next + n * COLUMNS); };
    radial = take(net.n_radial);
    by_radial = take(net.n_radial);
    w = take(net.n_fields);
    by_w = take(net.n_fields);
  }

  // Adds to the fields.
  void forward(const Share& own, T* fields) {
    const Tile<T, COLUMNS> t = weights(own);
    T* sum = fields + own.center * net.n_fields * net.C;
    for (int64_t k = 0; k < net.n_fields; ++k) {
      T source[COLUMNS];
#pragma omp simd
      for (int64_t p = 0; p < t.m; ++p) source[p] = w[k * COLUMNS + p] * q[p] * t.e[p];
      for (int64_t c = 0; c < net.C; ++c) {
        T total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t p = 0; p < t.m; ++p) total += source[p] * R[c][p];
        sum[k * net.C + c] += total;
      }
    }
  }

  // From the gradients by the fields to those by vectors and charges.
  void backward(const Share& own, const T* by_fields, T* vectors, T* charges) {
    const Tile<T, COLUMNS> t = weights(own);
    const T* by = by_fields + own.center * net.n_fields * net.C;
    T by_source[COLUMNS] = {}, by_R[MAX_COMPONENTS][COLUMNS] = {};  // of q e, and of R times that
    for (int64_t k = 0; k < net.n_fields; ++k) {
      const T* own_w = w + k * COLUMNS;
      T along[COLUMNS] = {};
      for (int64_t c = 0; c < net.C; ++c) {
        const T g = by[k * net.C + c];
#pragma omp simd
        for (int64_t p = 0; p < t.m; ++p) {
          along[p] += g * R[c][p];
          by_R[c][p] += g * own_w[p];
        }
      }
#pragma omp simd
      for (int64_t p = 0; p < t.m; ++p) {
        by_source[p] += along[p] * own_w[p];
        by_w[k * COLUMNS + p] = along[p] * q[p] * t.e[p];
      }
    }
    T by_e[COLUMNS];
    for (int64_t p = 0; p < t.m; ++p) by_e[p] = by_source[p] * q[p];
    for (int64_t c = 0; c < net.C; ++c)
#pragma omp simd
      for (int64_t p = 0; p < t.m; ++p) by_R[c][p] *= q[p] * t.e[p];
    tile_product(net.matrix_back, by_w, t.m, [&](int64_t n, const T* row) { std::copy_n(row, t.m, by_radial + n * COLUMNS); });
    by_vectors(own, t, by_e, net.C, by_R[0], net.n_radial, by_radial, vectors);
    for (int64_t p = 0; p < own.count; ++p) charges[own.first + p] = by_source[p] * t.e[p];
  }

 private:
  const Fields<T>& net;
  Tensor scratch;
  T *radial, *by_radial, *w, *by_w;
  T q[COLUMNS], R[16][COLUMNS];

  Tile<T, COLUMNS> weights(const Share& own) {
    const Tile<T, COLUMNS> t = filled_tile(own, net.data(VECTORS), net.data(CHARGES), net.cutoff, net.exponent, q);
    tensors_of(t, R);
    t.radial(net.n_radial, [&](int64_t n, int64_t p, T value, T) { radial[n * COLUMNS + p] = value; });
    const T* bias = net.data(BIAS);
    tile_product(net.matrix, radial, t.m, [&](int64_t k, const T* product) {
      T* row = w + k * COLUMNS;
#pragma omp simd
      for (int64_t p = 0; p < t.m; ++p) row[p] = bias[k] + product[p];
    });
    return t;
  }
};

struct FieldSum {
  // options: number of atoms, exponent, order; cutoff.
  template <class T>
  static Tensor forward_kernel(const Options& o, const Tensors& in) {
    const Fields<T> net(in, o.real[0], o.whole[1], o.whole[2]);
    const auto all = shares(net.in[CENTERS], o.whole[0]);
    Sum total({o.whole[0], net.n_fields, net.C}, in[VECTORS]);
    for_shares(all, [&] { return FieldTile<T>(net); },
               [&](int64_t k, FieldTile<T>& tile, int thread) { tile.forward(all[k], total.data<T>(thread)); });
    return total.total();
  }

  template <class T>
  static Tensors backward_kernel(const Options& o, const Tensors& in, const Tensor& by) {
    const Fields<T> net(in, o.real[0], o.whole[1], o.whole[2]);
    const auto all = shares(net.in[CENTERS], o.whole[0]);
    const Tensor vectors = at::empty_like(net.in[VECTORS]), charges = at::empty_like(net.in[CHARGES]);
    for_shares(all, [&] { return FieldTile<T>(net); }, [&](int64_t k, FieldTile<T>& tile, int) {
      tile.backward(all[k], by.data_ptr<T>(), vectors.data_ptr<T>(), charges.data_ptr<T>());
    });
    return {vectors, charges};
  }

  static Tensors forward(const Options& o, const Tensors& in, Tensors*) {
    Tensor r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "field_sums", [&] { r = forward_kernel<scalar_t>(o, in); });
    return {r};
  }

  static Tensors backward(const Options& o, const Tensors& in, const Tensors&, const Tensors& by) {
    Tensors r;
    AT_DISPATCH_FLOATING_TYPES(in[VECTORS].scalar_type(), "field_sums_backward",
                               [&] { r = backward_kernel<scalar_t>(o, in, by[0].contiguous()); });
    return r;
  }

  // All pairs at once.
  static Tensors composed(const Options& o, const Tensors& in) {
    const auto [unit, tensors, radial, envelope] = pair_geometry(in[VECTORS], o.real[0], o.whole[1], in[MATRIX].size(1), o.whole[2]);
    const Tensor sources = at::linear(radial, in[MATRIX], in[BIAS]) * (in[CHARGES] * envelope).unsqueeze(1);
    std::vector<int64_t> atoms, lengths;  // a product for every run of one atom's pairs: nothing of pairs times fields times components
    const Tensor centers = in[CENTERS].contiguous();
    for_runs(centers.data_ptr<int64_t>(), centers.size(0), [&](int64_t begin, int64_t end, int64_t i) {
      atoms.push_back(i);
      lengths.push_back(end - begin);
    });
    const Tensors left = sources.split_with_sizes(lengths), right = tensors.split_with_sizes(lengths);
    const Tensor zeros = at::zeros({o.whole[0], in[MATRIX].size(0), tensors.size(1)}, radial.options());
    Tensors sums;
    for (size_t k = 0; k < atoms.size(); ++k) sums.push_back(left[k].t().mm(right[k]));
    return {sums.empty() ? zeros + sources.sum() : zeros.index_add(0, at::tensor(atoms, centers.options()), at::stack(sums))};
  }
};

}  // namespace

Tensor field_sums(const Tensor& vectors, const Tensor& charges, const Tensor& centers, int64_t n_atoms, const Tensor& matrix,
                  const Tensor& bias, double cutoff, int64_t exponent, int64_t order) {
  check_pairs(vectors, charges, centers);
  TORCH_CHECK(matrix.dim() == 2 && bias.dim() == 1 && bias.size(0) == matrix.size(0), "matrix, bias: expected (n_fields, n_radial) and "
              "(n_fields), got ", matrix.sizes(), " and ", bias.sizes());
  TORCH_CHECK(0 <= order && order <= MAX_ORDER, "order: expected 0 to 3, got ", order);
  return run_composed<FieldSum>({{n_atoms, exponent, order}, {cutoff}}, {vectors, charges, centers}, {matrix, bias})[0];
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def(
      "field_sums(Tensor vectors, Tensor charges, Tensor centers, int n_atoms, Tensor matrix, Tensor bias, float cutoff, int exponent, "
      "int order) -> Tensor",
      &ampmm::field_sums);
}
