// Products of matrices by the BLAS that torch brings.
#include "common.h"

extern "C" {
__attribute__((weak)) void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*,
                                  const float*, const int*, const float*, float*, const int*);
__attribute__((weak)) void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*,
                                  const int*, const double*, const int*, const double*, double*, const int*);
}

namespace ampmm {
namespace {

// How BLAS, which counts along columns, sees a matrix: its leading dimension, and whether it is the transpose.
struct Layout {
  int leading = 0;
  bool columns = false, rows = false;

  explicit Layout(const Tensor& x) {
    columns = x.stride(0) == 1 && x.stride(1) >= x.size(0);
    rows = !columns && x.stride(1) == 1 && x.stride(0) >= x.size(1);
    leading = static_cast<int>(columns ? x.stride(1) : x.stride(0));
  }
  bool known() const { return columns || rows; }
};

// c (m, n), along its columns, = a b + beta c.
void gemm(char ta, char tb, int m, int n, int k, const Tensor& a, int lda, const Tensor& b, int ldb, double beta, Tensor& c, int ldc) {
  if (c.scalar_type() == at::kFloat) {
    const float one = 1.0f, scale = static_cast<float>(beta);
    sgemm_(&ta, &tb, &m, &n, &k, &one, a.data_ptr<float>(), &lda, b.data_ptr<float>(), &ldb, &scale, c.data_ptr<float>(), &ldc);
  } else {
    const double one = 1.0;
    dgemm_(&ta, &tb, &m, &n, &k, &one, a.data_ptr<double>(), &lda, b.data_ptr<double>(), &ldb, &beta, c.data_ptr<double>(), &ldc);
  }
}

bool multiplied(Tensor& out, const Tensor& a, const Tensor& b, double beta) {
  const auto type = out.scalar_type();
  const bool there = type == at::kFloat ? sgemm_ != nullptr : type == at::kDouble && dgemm_ != nullptr;
  const Layout x(a), y(b), z(out);
  if (!there || !x.known() || !y.known() || !z.known() || out.numel() == 0 || a.numel() == 0) return false;
  const int m = static_cast<int>(out.size(0)), n = static_cast<int>(out.size(1)), k = static_cast<int>(a.size(1));
  if (z.columns)
    gemm(x.columns ? 'n' : 't', y.columns ? 'n' : 't', m, n, k, a, x.leading, b, y.leading, beta, out, z.leading);
  else  // the transpose of all: out^T = b^T a^T
    gemm(y.columns ? 't' : 'n', x.columns ? 't' : 'n', n, m, k, b, y.leading, a, x.leading, beta, out, z.leading);
  return true;
}

}  // namespace

void product(Tensor out, const Tensor& a, const Tensor& b) {
  if (!multiplied(out, a, b, 0.0)) at::mm_out(out, a, b);
}

void add_product(Tensor out, const Tensor& a, const Tensor& b) {
  if (!multiplied(out, a, b, 1.0)) at::addmm_out(out, out, a, b);
}

}  // namespace ampmm
