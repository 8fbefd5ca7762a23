// UnICORNN: a chunk of the scan of a slice of the batch, and its adjoint (spec sheet unicornn.md 1.2, 3.1, 3.2).
#include "isa.hpp"
#include "lines.hpp"

namespace pendula {
namespace PENDULA_ISA {
namespace {

// Some rows at a time go through all steps of the chunk, so that their states stay in the first cache.
constexpr int64_t ELEMENTS_AT_ONCE = 1024;

int64_t rows_at_once(int64_t units) { return units < ELEMENTS_AT_ONCE ? ELEMENTS_AT_ONCE / units : 1; }

}  // namespace

template <typename T>
void unicornn_forward_slice(const pendula_unicornn_forward& a, int64_t begin, int64_t end) {
    const FlushDenormals guard;
    const int64_t N = a.units, B = a.batch, together = rows_at_once(N);
    const T *const w = static_cast<const T*>(a.w), *const h0 = static_cast<const T*>(a.h),
                   *const alpha = static_cast<const T*>(a.alpha);
    for (int64_t first = begin; first < end; first += together) {
        const int64_t stop = first + together < end ? first + together : end;
        for (int64_t t = 0; t < a.steps; ++t)
            for (int64_t row = first; row < stop; ++row) {
                const int64_t at = (t * B + row) * N;
                T *const y_line = static_cast<T*>(a.y) + row * N, *const z_line = static_cast<T*>(a.z) + row * N;
                T* const shown = static_cast<T*>(a.outputs) + at;
                if (a.left && t >= a.left[row]) {
                    for (int64_t c = 0; c < N; ++c) shown[c] = T(0);
                    continue;
                }
                const T* const drive = static_cast<const T*>(a.drive) + at;
                const T tau = a.tau ? static_cast<const T*>(a.tau)[t * B + row] : T(1);
                for (int64_t c = 0; c < N; c += Vector<T>::size) {
                    const Vec<T> h = load_up_to(h0, c, N) * tau;
                    Vec<T> y = load_up_to(y_line, c, N), z = load_up_to(z_line, c, N);
                    z -= h * (tanh<T>(load_up_to(w, c, N) * y + load_up_to(drive, c, N)) + load_up_to(alpha, c, N) * y);
                    y += h * z;
                    store_up_to(z_line, c, N, z);
                    store_up_to(y_line, c, N, y);
                    store_up_to(shown, c, N, y);
                }
            }
    }
}

template <typename T>
void unicornn_backward_slice(const pendula_unicornn_backward& a, int64_t begin, int64_t end) {
    const FlushDenormals guard;
    const int64_t N = a.units, B = a.batch, together = rows_at_once(N);
    const T *const w0 = static_cast<const T*>(a.w), *const h0 = static_cast<const T*>(a.h),
                   *const alpha0 = static_cast<const T*>(a.alpha);
    for (int64_t first = begin; first < end; first += together) {
        const int64_t stop = first + together < end ? first + together : end;
        for (int64_t t = a.steps - 1; t >= 0; --t)
            for (int64_t row = first; row < stop; ++row) {
                const int64_t at = (t * B + row) * N, own = row * N;
                T* const by_drive = static_cast<T*>(a.by_drive) + at;
                if (a.left && t >= a.left[row]) {
                    for (int64_t c = 0; c < N; ++c) by_drive[c] = T(0);
                    continue;
                }
                T *const y_line = static_cast<T*>(a.y) + own, *const z_line = static_cast<T*>(a.z) + own;
                T *const by_y_line = static_cast<T*>(a.by_y) + own, *const by_z_line = static_cast<T*>(a.by_z) + own;
                T *const by_w = static_cast<T*>(a.by_w) + own, *const by_h = static_cast<T*>(a.by_h) + own,
                         *const by_alpha = static_cast<T*>(a.by_alpha) + own;
                const T* const drive = static_cast<const T*>(a.drive) + at;
                const T* const shown = a.by_outputs ? static_cast<const T*>(a.by_outputs) + at : nullptr;
                const T* const kept = a.rebuild ? nullptr
                                      : t       ? static_cast<const T*>(a.outputs) + at - B * N
                                                : static_cast<const T*>(a.before) + own;
                const T tau = a.tau ? static_cast<const T*>(a.tau)[t * B + row] : T(1);
                Vec<T> by_tau = Vec<T>{};
                for (int64_t c = 0; c < N; c += Vector<T>::size) {
                    const Vec<T> w = load_up_to(w0, c, N), alpha = load_up_to(alpha0, c, N);
                    const Vec<T> scale = load_up_to(h0, c, N), h = scale * tau;
                    const Vec<T> z = load_up_to(z_line, c, N);
                    const Vec<T> y = kept ? load_up_to(kept, c, N) : load_up_to(y_line, c, N) - h * z;
                    const Vec<T> s = tanh<T>(w * y + load_up_to(drive, c, N)), f = s + alpha * y;
                    Vec<T> gy = load_up_to(by_y_line, c, N), gz = load_up_to(by_z_line, c, N);
                    if (shown) gy += load_up_to(shown, c, N);
                    gz += h * gy;
                    const Vec<T> p = -h * gz * (1 - s * s), of_h = gy * z - gz * f;
                    store_up_to(by_drive, c, N, p);
                    store_up_to(by_w, c, N, load_up_to(by_w, c, N) + p * y);
                    store_up_to(by_h, c, N, load_up_to(by_h, c, N) + of_h * tau);
                    store_up_to(by_alpha, c, N, load_up_to(by_alpha, c, N) - h * gz * y);
                    by_tau += of_h * scale;
                    store_up_to(by_y_line, c, N, gy + p * w - h * alpha * gz);
                    store_up_to(by_z_line, c, N, gz);
                    store_up_to(y_line, c, N, y);
                    store_up_to(z_line, c, N, z + h * f);
                }
                if (a.by_tau) {
                    T total = 0;
                    for (int64_t i = 0; i < Vector<T>::size; ++i) total += by_tau[i];
                    static_cast<T*>(a.by_tau)[t * B + row] += total;
                }
            }
    }
}

#define PENDULA_FOR(T)                                                                            \
    template void unicornn_forward_slice<T>(const pendula_unicornn_forward&, int64_t, int64_t);   \
    template void unicornn_backward_slice<T>(const pendula_unicornn_backward&, int64_t, int64_t);
PENDULA_FOR(float)
PENDULA_FOR(double)

}  // namespace PENDULA_ISA
}  // namespace pendula
