// Products of a matrix with a tile whose pairs lie along vector registers: W x, x with a row of COLUMNS pairs for each component.
//
// Where the processor multiplies in bfloat16 (AVX512-BF16), W and x can be rounded to that; sums stay in single precision.
#pragma once

#include "common.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace ampmm {

#ifdef __AVX512F__
constexpr int64_t REGISTER_BYTES = 64, BLOCK_ROWS = 8;
#else
constexpr int64_t REGISTER_BYTES = 32, BLOCK_ROWS = 4;
#endif
constexpr int64_t COLUMNS = 64;  // 128 components of a tile, 32 kB in single precision, stay in a core's first cache

template <class T>
struct Register {
  typedef T type __attribute__((vector_size(REGISTER_BYTES)));
  static constexpr int64_t lanes = REGISTER_BYTES / sizeof(T);
};

inline int64_t filled_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

#ifdef __AVX512BF16__
constexpr bool HAS_BFLOAT16 = true;
#else
constexpr bool HAS_BFLOAT16 = false;
#endif

// W as the products read it: any strides, or, `narrow`, in bfloat16, two columns side by side, BLOCK_ROWS rows at a time.
template <class T>
struct Operand {
  int64_t rows, columns, by_row, by_column;
  bool narrow;
  Tensor values;

  Operand(const Tensor& w, bool in_bfloat16)
      : rows(w.size(0)), columns(w.size(1)), by_row(w.stride(0)), by_column(w.stride(1)),
        narrow(in_bfloat16 && HAS_BFLOAT16 && sizeof(T) == 4), values(w) {
    if (!narrow) return;
    const int64_t r = filled_up(rows, BLOCK_ROWS), n = filled_up(columns, 2);
    const Tensor full = at::constant_pad_nd(w, {0, n - columns, 0, r - rows}).to(at::kBFloat16);
    values = full.view({r / BLOCK_ROWS, BLOCK_ROWS, n / 2, 2}).transpose(1, 2).contiguous();
  }
};

// BLOCK_ROWS rows of W, which begin at `w`, with V registers of pairs of x.
template <class T, int V>
inline void block_product(const T* const* w, int64_t by_column, const T* x, int64_t n, T* y) {
  using R = typename Register<T>::type;
  constexpr int64_t lanes = Register<T>::lanes;
  R sum[BLOCK_ROWS][V] = {};
  for (int64_t k = 0, place = 0; k < n; ++k, place += by_column, x += COLUMNS) {
    R own[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) own[v] = *reinterpret_cast<const R*>(x + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK_ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += w[r][place] * own[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < BLOCK_ROWS; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) *reinterpret_cast<R*>(y + r * COLUMNS + v * lanes) = sum[r][v];
}

#ifdef __AVX512BF16__
// Two rows of x at a time in bfloat16, side by side.
inline void side_by_side(const float* x, int64_t n, int64_t m, uint32_t* out) {
  alignas(64) int16_t order[32];
  for (int16_t i = 0; i < 16; ++i) {
    order[2 * i] = i;
    order[2 * i + 1] = static_cast<int16_t>(i + 16);
  }
  const __m512i places = _mm512_load_si512(order);
  for (int64_t k = 0; k < n; k += 2, x += 2 * COLUMNS, out += COLUMNS)
    for (int64_t p = 0; p < m; p += 16) {
      const __m512 second = k + 1 < n ? _mm512_load_ps(x + COLUMNS + p) : _mm512_setzero_ps();
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, _mm512_load_ps(x + p));
      _mm512_store_si512(out + p, _mm512_permutexvar_epi16(places, both));
    }
}

// As block_product, for n pairs of columns.
template <int V>
inline void narrow_product(const uint32_t* w, const uint32_t* x, int64_t n, float* y) {
  __m512 sum[BLOCK_ROWS][V] = {};
  for (int64_t k = 0; k < n; ++k, w += BLOCK_ROWS, x += COLUMNS) {
    __m512bh own[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) own[v] = (__m512bh)_mm512_load_si512(x + v * 16);
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK_ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)_mm512_set1_epi32(w[r]), own[v]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < BLOCK_ROWS; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) _mm512_store_ps(y + r * COLUMNS + v * 16, sum[r][v]);
}
#endif

// Calls done(row, its W x) for all rows, after the product of their block, which is then in cache. m pairs, a multiple of the lanes.
template <class T, class F>
void tile_product(const Operand<T>& w, const T* x, int64_t m, const F& done) {
  constexpr int64_t lanes = Register<T>::lanes;
  alignas(64) T y[BLOCK_ROWS * COLUMNS];
  // f(first pair, whether there are two registers of them)
  const auto blocks = [&](int64_t row, const auto& f) {
    int64_t p = 0;
    for (; p + lanes < m; p += 2 * lanes) f(p, std::true_type());
    if (p < m) f(p, std::false_type());
    for (int64_t r = 0; r < std::min(BLOCK_ROWS, w.rows - row); ++r) done(row + r, y + r * COLUMNS);
  };
#ifdef __AVX512BF16__
  if constexpr (sizeof(T) == 4)
    if (w.narrow) {
      const int64_t n = (w.columns + 1) / 2;
      const Tensor rounded = at::empty({n * COLUMNS}, w.values.options().dtype(at::kInt));
      uint32_t* own = reinterpret_cast<uint32_t*>(rounded.data_ptr<int32_t>());
      side_by_side(x, w.columns, m, own);
      const uint32_t* values = static_cast<const uint32_t*>(w.values.data_ptr());
      for (int64_t row = 0; row < w.rows; row += BLOCK_ROWS, values += BLOCK_ROWS * n)
        blocks(row, [&](int64_t p, auto two) { narrow_product<two.value ? 2 : 1>(values, own + p, n, y + p); });
      return;
    }
#endif
  for (int64_t row = 0; row < w.rows; row += BLOCK_ROWS) {
    const T* begin[BLOCK_ROWS];  // rows that fill up repeat the last one
    for (int64_t r = 0; r < BLOCK_ROWS; ++r) begin[r] = w.values.template data_ptr<T>() + std::min(row + r, w.rows - 1) * w.by_row;
    blocks(row, [&](int64_t p, auto two) { block_product<T, two.value ? 2 : 1>(begin, w.by_column, x + p, w.columns, y + p); });
  }
}

}  // namespace ampmm
