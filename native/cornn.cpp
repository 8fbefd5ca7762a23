// coRNN: the whole scan of a slice of the batch, and its adjoint (spec sheet cornn.md 1.2 and 3).
#include "isa.hpp"
#include "lines.hpp"
#include "product.hpp"

namespace pendula {
namespace PENDULA_ISA {
namespace {

// A row of operands: y and z with room for whole panels, then the input.
template <typename T>
struct Row {
    int64_t units, inputs, room;
    Row(int64_t units_, int64_t inputs_) : units(units_), inputs(inputs_), room(padded<T>(units_)) {}
    int64_t stride() const { return 2 * room + inputs; }
    int64_t stacked() const { return 2 * units + inputs; }
};

}  // namespace

// sums over all steps and sequences are kept in double: float would lose digits
template <typename T>
inline void add(double* line, int64_t column, int64_t units, Vec<T> v) {
    for (int64_t i = 0; i < Vector<T>::size && column + i < units; ++i) line[column + i] += static_cast<double>(v[i]);
}

// z after a step of length h, from y, z before it and s = tanh of the force
template <typename T>
inline Vec<T> velocity(bool implicit, Vec<T> h, Vec<T> gamma, Vec<T> epsilon, Vec<T> s, Vec<T> y, Vec<T> z) {
    return implicit ? (z + h * (s - gamma * y)) / (epsilon * h + 1) : z + h * (s - gamma * y - epsilon * z);
}

template <typename T>
int64_t cornn_forward_scratch(int64_t units, int64_t inputs, int64_t batch) {
    const Row<T> row(units, inputs);
    return row.room * row.stacked() + 4 * row.room + 2 * batch * row.stride();
}

template <typename T>
void cornn_forward_pack(const pendula_cornn_forward& a) {
    const int64_t N = a.units, I = a.inputs;
    const Row<T> row(N, I);
    T* packed = static_cast<T*>(a.scratch);
    // column n of the packed matrix is row n of W, W_z and V
    pack(packed, row.stacked(), 0, static_cast<const T*>(a.W), N, N, 1, N);
    pack(packed, row.stacked(), N, static_cast<const T*>(a.W_z), N, N, 1, N);
    pack(packed, row.stacked(), 2 * N, static_cast<const T*>(a.V), I, N, 1, I);
    T* constants = packed + row.room * row.stacked();
    const void* from[4] = {a.b, a.dt, a.gamma, a.epsilon};
    for (int i = 0; i < 4; ++i) widen(constants + i * row.room, from[i], N, row.room);
}

template <typename T>
void cornn_forward_slice(const pendula_cornn_forward& a, int64_t begin, int64_t end) {
    const FlushDenormals guard;
    const int64_t N = a.units, I = a.inputs, B = a.batch, rows = end - begin;
    const Row<T> row(N, I);
    const int64_t stride = row.stride();
    const T* packed = static_cast<const T*>(a.scratch);
    const T *b = packed + row.room * row.stacked(), *dt = b + row.room, *gamma = dt + row.room,
            *epsilon = gamma + row.room;
    T* now = static_cast<T*>(a.scratch) + row.room * row.stacked() + 4 * row.room + 2 * begin * stride;
    T* next = now + rows * stride;
    for (int64_t r = 0; r < rows; ++r) {
        widen(now + r * stride, static_cast<const T*>(a.y0) + (begin + r) * N, N, row.room);
        widen(now + r * stride + row.room, static_cast<const T*>(a.z0) + (begin + r) * N, N, row.room);
    }
    const Stretch stretches[3] = {{0, N}, {row.room, N}, {2 * row.room, I}};
    const bool implicit = a.implicit != 0;
    for (int64_t t = 0; t < a.steps; ++t) {
        for (int64_t r = 0; r < rows; ++r)
            copy(now + r * stride + 2 * row.room, static_cast<const T*>(a.x) + (t * B + begin + r) * I, I);
        const int64_t first = (t * B + begin) * N;
        T* const y_out = static_cast<T*>(a.y) + first;
        if (a.kept && t && t % a.every == 0)
            for (int64_t r = 0; r < rows; ++r)
                copy(static_cast<T*>(a.kept) + ((t / a.every - 1) * B + begin + r) * N, now + r * stride + row.room, N);
        T* const s_out = a.s ? static_cast<T*>(a.s) + first : nullptr;
        const T* const tau = a.tau ? static_cast<const T*>(a.tau) + t * B + begin : nullptr;
        product<T>(now, stride, rows, stretches, 3, packed, row.stacked(), N,
                   [&](int64_t r, int64_t column, Vec<T> sum) {
                       // beyond the last unit everything is zero and stays so
                       T *const old = now + r * stride + column, *const young = next + r * stride + column;
                       const Vec<T> y = load(old), z = load(old + row.room), s = tanh<T>(sum + load(b + column));
                       Vec<T> h = load(dt + column);
                       if (tau) h *= tau[r];
                       Vec<T> z_new = velocity<T>(implicit, h, load(gamma + column), load(epsilon + column), s, y, z);
                       Vec<T> y_new = y + h * z_new, shown = y_new;
                       if (a.lengths && t >= a.lengths[begin + r]) {
                           z_new = z;
                           y_new = y;
                           shown = Vec<T>{};
                       }
                       store(young, y_new);
                       store(young + row.room, z_new);
                       store_up_to(y_out + r * N, column, N, shown);
                       if (s_out) store_up_to(s_out + r * N, column, N, s);
                   });
        T* const swapped = now;
        now = next;
        next = swapped;
    }
    for (int64_t r = 0; r < rows; ++r) {
        copy(static_cast<T*>(a.y_last) + (begin + r) * N, now + r * stride, N);
        copy(static_cast<T*>(a.z_last) + (begin + r) * N, now + r * stride + row.room, N);
    }
}

template <typename T>
int64_t cornn_backward_scratch(int64_t units, int64_t batch) {
    const int64_t room = padded<T>(units);
    // the two transposed matrices, the constants, and for each sequence both cotangents and that of the drive
    return 2 * room * units + 3 * room + 3 * batch * room;
}

template <typename T>
void cornn_backward_pack(const pendula_cornn_backward& a) {
    const int64_t N = a.units, room = padded<T>(N);
    T* packed = static_cast<T*>(a.scratch);
    pack(packed, N, 0, static_cast<const T*>(a.W), N, N, N, 1);
    pack(packed + room * N, N, 0, static_cast<const T*>(a.W_z), N, N, N, 1);
    const void* from[3] = {a.dt, a.gamma, a.epsilon};
    for (int i = 0; i < 3; ++i) widen(packed + 2 * room * N + i * room, from[i], N, room);
}

template <typename T>
void cornn_backward_slice(const pendula_cornn_backward& a, int64_t begin, int64_t end, int64_t thread) {
    const FlushDenormals guard;
    constexpr int64_t L = Vector<T>::size;
    const int64_t N = a.units, B = a.batch, rows = end - begin, room = padded<T>(N);
    const T* packed = static_cast<const T*>(a.scratch);
    const T *dt = packed + 2 * room * N, *gamma = dt + room, *epsilon = gamma + room;
    // cotangents of y, z and the drive, a row of 3 * room per sequence
    T* const work = static_cast<T*>(a.scratch) + 2 * room * N + 3 * room + 3 * begin * room;
    const int64_t stride = 3 * room;
    for (int64_t r = 0; r < rows; ++r) {
        widen(work + r * stride, static_cast<const T*>(a.by_state_y) + (begin + r) * N, N, room);
        widen(work + r * stride + room, static_cast<const T*>(a.by_state_z) + (begin + r) * N, N, room);
    }
    double* const by_dt = a.by_dt ? static_cast<double*>(a.by_dt) + thread * N : nullptr;
    double* const by_gamma = a.by_dt ? static_cast<double*>(a.by_gamma) + thread * N : nullptr;
    double* const by_epsilon = a.by_dt ? static_cast<double*>(a.by_epsilon) + thread * N : nullptr;
    const bool implicit = a.implicit != 0, sums = a.by_dt || a.by_tau;
    const int64_t taken = 2 * N + a.inputs;
    // what each step took: y as the outputs show it, z from the kept one onwards, x
    for (int64_t t = a.first; t <= a.last; ++t)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t sequence = begin + r;
            T* const line = static_cast<T*>(a.rows) + ((t - a.first) * B + sequence) * taken;
            if (t == a.first) {
                copy(line + N, static_cast<const T*>(a.z) + sequence * N, N);
            } else {
                const T* const before = line - B * taken;
                const T* const s_line = static_cast<const T*>(a.s) + ((t - 1) * B + sequence) * N;
                const T scale = a.tau ? static_cast<const T*>(a.tau)[(t - 1) * B + sequence] : T(1);
                for (int64_t c = 0; c < N; c += L)
                    store_up_to(line + N, c, N,
                                velocity<T>(implicit, load(dt + c) * scale, load(gamma + c), load(epsilon + c),
                                            load_up_to(s_line, c, N), load_up_to(before, c, N),
                                            load_up_to(before + N, c, N)));
            }
            copy(line, t ? static_cast<const T*>(a.y) + ((t - 1) * B + sequence) * N
                         : static_cast<const T*>(a.y0) + sequence * N, N);
            if (t < a.last)
                copy(line + 2 * N, static_cast<const T*>(a.x) + (t * B + sequence) * a.inputs, a.inputs);
        }
    const Stretch whole[1] = {{2 * room, N}};
    for (int64_t t = a.last - 1; t >= a.first; --t) {
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t at = (t * B + begin + r) * N;
            const bool runs = !a.lengths || t < a.lengths[begin + r];
            T *const by_y = work + r * stride, *const by_z = by_y + room, *const by_a = by_z + room;
            T* const p_out = static_cast<T*>(a.by_drive) + ((t - a.first) * B + begin + r) * N;
            if (!runs) {
                for (int64_t c = 0; c < room; ++c) by_a[c] = T(0);
                for (int64_t c = 0; c < N; ++c) p_out[c] = T(0);
                if (a.by_tau) static_cast<T*>(a.by_tau)[t * B + begin + r] = T(0);
                continue;
            }
            const T* const took = static_cast<const T*>(a.rows) + ((t - a.first) * B + begin + r) * taken;
            const T *const y_old = took, *const z_old = took + N, *const z_now = took + B * taken + N;
            const T* const s_now = static_cast<const T*>(a.s) + at;
            const T* const shown = a.by_y ? static_cast<const T*>(a.by_y) + at : nullptr;
            const T scale = a.tau ? static_cast<const T*>(a.tau)[t * B + begin + r] : T(1);
            Vec<T> by_scale = Vec<T>{};
            for (int64_t c = 0; c < room; c += L) {
                const Vec<T> d = load(dt + c), h = d * scale, g = load(gamma + c), e = load(epsilon + c);
                const Vec<T> s = load_up_to(s_now, c, N);
                Vec<T> gy = load(by_y + c), gz = load(by_z + c);
                if (shown) gy += load_up_to(shown, c, N);
                gz += h * gy;
                const Vec<T> q = implicit ? gz / (e * h + 1) : gz;
                const Vec<T> p = h * q * (1 - s * s);
                if (sums) {
                    const Vec<T> y = load_up_to(y_old, c, N), z = load_up_to(z_now, c, N);
                    const Vec<T> damped = implicit ? z : load_up_to(z_old, c, N);
                    const Vec<T> by_h = gy * z + q * (s - g * y - e * damped);
                    if (by_dt) {
                        add<T>(by_dt, c, N, by_h * scale);
                        add<T>(by_gamma, c, N, -h * q * y);
                        add<T>(by_epsilon, c, N, -h * q * damped);
                    }
                    by_scale += by_h * d;
                }
                store(by_y + c, gy - h * g * q);
                store(by_z + c, implicit ? q : q - h * e * q);
                store(by_a + c, p);
                store_up_to(p_out, c, N, p);
            }
            if (a.by_tau) {
                T total = 0;
                for (int64_t i = 0; i < L; ++i) total += by_scale[i];
                static_cast<T*>(a.by_tau)[t * B + begin + r] = total;
            }
        }
        for (int64_t half = 0; half < 2; ++half)
            product<T>(work, stride, rows, whole, 1, packed + half * room * N, N, N,
                       [&](int64_t r, int64_t column, Vec<T> sum) {
                           T* const line = work + r * stride + half * room + column;
                           store(line, load(line) + sum);
                       });
    }
    for (int64_t r = 0; r < rows; ++r) {
        copy(static_cast<T*>(a.by_state_y) + (begin + r) * N, work + r * stride, N);
        copy(static_cast<T*>(a.by_state_z) + (begin + r) * N, work + r * stride + room, N);
    }
}

#define PENDULA_FOR(T)                                                                           \
    template int64_t cornn_forward_scratch<T>(int64_t, int64_t, int64_t);                        \
    template void cornn_forward_pack<T>(const pendula_cornn_forward&);                           \
    template void cornn_forward_slice<T>(const pendula_cornn_forward&, int64_t, int64_t);        \
    template int64_t cornn_backward_scratch<T>(int64_t, int64_t);                                \
    template void cornn_backward_pack<T>(const pendula_cornn_backward&);                         \
    template void cornn_backward_slice<T>(const pendula_cornn_backward&, int64_t, int64_t, int64_t);
PENDULA_FOR(float)
PENDULA_FOR(double)

}  // namespace PENDULA_ISA
}  // namespace pendula
