// The nine scalars of two atoms' dipoles and quadrupoles, for every channel of AMP-BMS: D1.u, D2.u, D1.D2, Q1:R2, Q2:R2, (Q1u).D2,
// (Q2u).D1, Q1:Q2, (Q1u).(Q2u), with 1 the sender, 2 the receiver, u the unit vector.
#include "moments.h"
#include "once.h"

#include <torch/library.h>

#include <ATen/Dispatch.h>

namespace ampmm {
namespace {

enum { MOMENTS, UNIT, RECEIVERS, SENDERS };
constexpr int64_t PARTS = MOMENT_PARTS, SCALARS = 9;

// The gradient by an atom's packed moments, from that by the dipole and, for the quadrupole, by Qu and by Q:other.
template <class T>
inline void store(T* rows, int64_t m, int64_t p, const Vector<T>& by_dipole, const Vector<T>& g, const Vector<T>& u, T by_other,
                  const T* other) {
  T packed[5];
  pack(g, u, packed);
  rows[p] = by_dipole.x;
  rows[m + p] = by_dipole.y;
  rows[2 * m + p] = by_dipole.z;
  for (int64_t c = 0; c < 5; ++c) rows[(3 + c) * m + p] = packed[c] + by_other * other[(3 + c) * m + p];
}

struct Channels {
  // Component c of channel k, in the rows of an atom's moments (8, n_channels).
  template <class T>
  static void gather(const T* moments, int64_t n_channels, int64_t channel, const int64_t* index, int64_t m, T* rows) {
    for (int64_t c = 0; c < PARTS; ++c)
      for (int64_t p = 0; p < m; ++p) rows[c * m + p] = moments[(index[p] * PARTS + c) * n_channels + channel];
  }

  template <class T>
  static Tensor forward_kernel(const Tensor& moments, const Tensor& unit, const int64_t* receivers, const int64_t* senders) {
    const int64_t n = unit.size(0), n_channels = moments.size(2);
    Tensor out = new_columns(n, SCALARS * n_channels, unit);
    const T* all = moments.data_ptr<T>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int) {
      T one[PARTS * TILE], two[PARTS * TILE];
      const T *x = column<T>(unit, 0, first), *y = column<T>(unit, 1, first), *z = column<T>(unit, 2, first);
      for (int64_t channel = 0; channel < n_channels; ++channel) {
        gather(all, n_channels, channel, senders + first, m, one);
        gather(all, n_channels, channel, receivers + first, m, two);
        T* f = column<T>(out, SCALARS * channel, first);
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          const Vector<T> u{x[p], y[p], z[p]};
          const Moments<T> a(one, m, p), b(two, m, p);
          const Vector<T> d1 = a.dipole, d2 = b.dipole, t1 = turned(a, u), t2 = turned(b, u);
          f[p] = dot(d1, u);
          f[n + p] = dot(d2, u);
          f[2 * n + p] = dot(d1, d2);
          f[3 * n + p] = dot(t1, u);
          f[4 * n + p] = dot(t2, u);
          f[5 * n + p] = dot(t1, d2);
          f[6 * n + p] = dot(t2, d1);
          f[7 * n + p] = contracted(a, b);
          f[8 * n + p] = dot(t1, t2);
        }
      }
    });
    return out;
  }

  template <class T>
  static std::vector<Tensor> backward_kernel(const Tensor& moments, const Tensor& unit, const int64_t* receivers,
                                             const int64_t* senders, const Tensor& by_out) {
    const int64_t n = unit.size(0), n_channels = moments.size(2);
    Tensor by_unit = zero_columns(n, 3, unit);
    Sum by_moments({moments.size(0), PARTS, n_channels}, unit);
    const T* all = moments.data_ptr<T>();
    for_tiles(n, TILE, [&](int64_t first, int64_t m, int thread) {
      T one[PARTS * TILE], two[PARTS * TILE], by_one[PARTS * TILE], by_two[PARTS * TILE];
      const T *x = column<T>(unit, 0, first), *y = column<T>(unit, 1, first), *z = column<T>(unit, 2, first);
      T *to_x = column<T>(by_unit, 0, first), *to_y = column<T>(by_unit, 1, first), *to_z = column<T>(by_unit, 2, first);
      T* sum = by_moments.data<T>(thread);
      for (int64_t channel = 0; channel < n_channels; ++channel) {
        gather(all, n_channels, channel, senders + first, m, one);
        gather(all, n_channels, channel, receivers + first, m, two);
        const T* g = column<T>(by_out, SCALARS * channel, first);
#pragma omp simd
        for (int64_t p = 0; p < m; ++p) {
          const Vector<T> u{x[p], y[p], z[p]};
          const Moments<T> a(one, m, p), b(two, m, p);
          const Vector<T> d1 = a.dipole, d2 = b.dipole, t1 = turned(a, u), t2 = turned(b, u);
          const T g0 = g[p], g1 = g[n + p], g2 = g[2 * n + p], g3 = g[3 * n + p], g4 = g[4 * n + p], g5 = g[5 * n + p],
                  g6 = g[6 * n + p], g7 = g[7 * n + p], g8 = g[8 * n + p];
          const Vector<T> by_t1{g5 * d2.x + g8 * t2.x + g3 * u.x, g5 * d2.y + g8 * t2.y + g3 * u.y, g5 * d2.z + g8 * t2.z + g3 * u.z};
          const Vector<T> by_t2{g6 * d1.x + g8 * t1.x + g4 * u.x, g6 * d1.y + g8 * t1.y + g4 * u.y, g6 * d1.z + g8 * t1.z + g4 * u.z};
          const Vector<T> by_d1{g0 * u.x + g2 * d2.x + g6 * t2.x, g0 * u.y + g2 * d2.y + g6 * t2.y, g0 * u.z + g2 * d2.z + g6 * t2.z};
          const Vector<T> by_d2{g1 * u.x + g2 * d1.x + g5 * t1.x, g1 * u.y + g2 * d1.y + g5 * t1.y, g1 * u.z + g2 * d1.z + g5 * t1.z};
          const Vector<T> back1 = turned(a, by_t1), back2 = turned(b, by_t2);
          to_x[p] += g0 * d1.x + g1 * d2.x + g3 * t1.x + g4 * t2.x + back1.x + back2.x;
          to_y[p] += g0 * d1.y + g1 * d2.y + g3 * t1.y + g4 * t2.y + back1.y + back2.y;
          to_z[p] += g0 * d1.z + g1 * d2.z + g3 * t1.z + g4 * t2.z + back1.z + back2.z;
          store(by_one, m, p, by_d1, by_t1, u, g7, two);
          store(by_two, m, p, by_d2, by_t2, u, g7, one);
        }
        for (int64_t c = 0; c < PARTS; ++c)
          for (int64_t p = 0; p < m; ++p) {
            sum[(senders[first + p] * PARTS + c) * n_channels + channel] += by_one[c * m + p];
            sum[(receivers[first + p] * PARTS + c) * n_channels + channel] += by_two[c * m + p];
          }
      }
    });
    return {by_moments.total(), by_unit};
  }

  static std::vector<Tensor> tidy(const std::vector<Tensor>& in) {
    return {in[MOMENTS].contiguous(), as_columns(in[UNIT]), in[RECEIVERS].contiguous(), in[SENDERS].contiguous()};
  }

  static std::vector<Tensor> forward(const Options&, const std::vector<Tensor>& given) {
    const auto in = tidy(given);
    Tensor out;
    AT_DISPATCH_FLOATING_TYPES(in[UNIT].scalar_type(), "channel_features", [&] {
      out = forward_kernel<scalar_t>(in[MOMENTS], in[UNIT], in[RECEIVERS].data_ptr<int64_t>(), in[SENDERS].data_ptr<int64_t>());
    });
    return {out};
  }

  static std::vector<Tensor> backward(const Options&, const std::vector<Tensor>& given, const std::vector<Tensor>& by) {
    const auto in = tidy(given);
    std::vector<Tensor> r;
    AT_DISPATCH_FLOATING_TYPES(in[UNIT].scalar_type(), "channel_features_backward", [&] {
      r = backward_kernel<scalar_t>(in[MOMENTS], in[UNIT], in[RECEIVERS].data_ptr<int64_t>(), in[SENDERS].data_ptr<int64_t>(),
                                    as_columns(by[0]));
    });
    return r;
  }
};

}  // namespace

Tensor channel_features(const Tensor& moments, const Tensor& unit, const Tensor& receivers, const Tensor& senders) {
  check_cpu(unit, "unit");
  TORCH_CHECK(moments.dim() == 3 && moments.size(1) == PARTS, "moments: expected (N, 8, n_channels), got ", moments.sizes());
  return run_once<Channels>({}, {moments, unit, receivers, senders})[0];
}

}  // namespace ampmm

TORCH_LIBRARY_FRAGMENT(ampmm, library) {
  library.def("channel_features(Tensor moments, Tensor unit, Tensor receivers, Tensor senders) -> Tensor", &ampmm::channel_features);
}
