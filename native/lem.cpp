// LEM: the whole scan of a slice of the batch, and its adjoint (spec sheet baselines.md 1.8).
//
// Blocks of N are 1, 2, z, y, in the order of V. With g = tanh(a_z), q = tanh(a_y), h_i = dt tau s_i:
//   z_n = z + h_1 (g - z),   y_n = y + h_2 (q - y)
// and from the cotangents gy of y_n and gz of z_n, p being those of a (derived here):
//   p_2 = h_2 (1 - s_2) (q - y) gy,   p_y = h_2 (1 - q^2) gy,   then gz += W_y^T p_y,
//   p_1 = h_1 (1 - s_1) (g - z) gz,   p_z = h_1 (1 - g^2) gz,
//   by y = (1 - h_2) gy + W^T (p_1, p_2, p_z),   by z = (1 - h_1) gz,
//   by dt tau = s_1 (g - z) gz + s_2 (q - y) gy.
#include "isa.hpp"
#include "lines.hpp"
#include "product.hpp"

namespace pendula {
namespace PENDULA_ISA {
namespace {

// A row of operands: y, z and both steps, with room for whole panels, then the input; and y, z and the input again in
// pairs, for narrow products.
template <typename T>
struct Row {
    int64_t units, inputs, room;
    bool narrow;
    Row(int64_t units_, int64_t inputs_, bool narrow_)
        : units(units_), inputs(inputs_), room(padded<T>(units_)), narrow(NARROWS<T> && narrow_) {}
    int64_t in_pairs() const { return 4 * room + inputs; }
    int64_t stride() const { return in_pairs() + (narrow ? room + pairs(inputs) : 0); }
    int64_t stacked() const { return lines<T>(narrow, units) + lines<T>(narrow, inputs); }
    int64_t block() const { return room * (units + inputs); }
};

// A row of cotangents: by y, by z, p_1, p_2, p_z, p_y, one vector for the step's length, and each p in pairs.
template <typename T>
int64_t cotangents(int64_t room) {
    return 6 * room + Vector<T>::size + (NARROWS<T> ? 2 * room : 0);
}

// (1 + tanh(a / 2)) / 2 with tanh(|a| / 2) = e / (e + 2), e = exp(|a|) - 1, is (e + 1) / (e + 2), and 1 / (e + 2) for
// a < 0: there the sum of 1 and a tanh near -1 would lose the digits of a small gate, which is a long memory.
template <typename T>
inline Vec<T> sigmoid(Vec<T> a) {
    constexpr T largest = sizeof(T) == 4 ? T(87) : T(700);
    const Vec<T> e = exponential_less_one<T>(at_most<T>(a < 0 ? -a : a, largest));
    return (a < 0 ? all<T>(1) : e + 1) / (e + 2);
}

// sums over all steps and sequences are kept in double: float would lose digits
template <typename T>
inline void add_to(double* line, int64_t column, int64_t units, Vec<T> v) {
    for (int64_t i = 0; i < Vector<T>::size && column + i < units; ++i) line[column + i] += static_cast<double>(v[i]);
}

}  // namespace

template <typename T>
int64_t lem_forward_scratch(int64_t units, int64_t inputs, int64_t batch) {
    const Row<T> row(units, inputs, true);
    return 4 * row.block() + 5 * row.room + batch * row.stride();
}

template <typename T>
void lem_forward_pack(const pendula_lem_forward& a) {
    const int64_t N = a.units, I = a.inputs;
    const Row<T> row(N, I, a.narrow != 0);
    T* const packed = static_cast<T*>(a.scratch);
    T* const constants = packed + 4 * row.block();
    // column n of a packed block is row n of its part of W (of W_y in the last one) and of V
    for (int64_t k = 0; k < 4; ++k) {
        T* const block = packed + k * row.block();
        const T* const W = k < 3 ? static_cast<const T*>(a.W) + k * N * N : static_cast<const T*>(a.W_y);
        const T* const V = static_cast<const T*>(a.V) + k * N * I;
        pack_either(row.narrow, block, row.stacked(), 0, W, N, N, 1, N);
        pack_either(row.narrow, block, row.stacked(), lines<T>(row.narrow, N), V, I, N, 1, I);
        widen(constants + k * row.room, a.b ? static_cast<const T*>(a.b) + k * N : nullptr, N, row.room);
    }
    widen(constants + 4 * row.room, a.dt, N, row.room);
}

template <typename T>
void lem_forward_slice(const pendula_lem_forward& a, int64_t begin, int64_t end) {
    const FlushDenormals guard;
    const int64_t N = a.units, I = a.inputs, B = a.batch, rows = end - begin;
    const Row<T> row(N, I, a.narrow != 0);
    const int64_t room = row.room, stride = row.stride(), in_pairs = row.in_pairs();
    const bool narrow = row.narrow;
    const T* const packed = static_cast<const T*>(a.scratch);
    const T *const b = packed + 4 * row.block(), *const dt = b + 4 * room;
    T* const work = static_cast<T*>(a.scratch) + 4 * row.block() + 5 * room + begin * stride;
    for (int64_t r = 0; r < rows; ++r) {
        widen(work + r * stride, static_cast<const T*>(a.y0) + (begin + r) * N, N, room);
        widen(work + r * stride + room, static_cast<const T*>(a.z0) + (begin + r) * N, N, room);
        pair_up(narrow, work + r * stride + in_pairs, work + r * stride, 2 * room);
    }
    const Stretch whole[2][2] = {{{0, N}, {4 * room, I}}, {{room, N}, {4 * room, I}}};
    const Stretch paired[2][2] = {{{in_pairs, pairs(N)}, {in_pairs + room, pairs(I)}},
                                  {{in_pairs + room / 2, pairs(N)}, {in_pairs + room, pairs(I)}}};
    const auto(&stretches)[2][2] = narrow ? paired : whole;
    // block k of the weights times y, or z in the last one, and x
    const auto multiply = [&](int64_t k, const auto& then) {
        product_either(narrow, work, stride, rows, stretches[k / 3], 2, packed + k * row.block(), row.stacked(), 0, N,
                       then);
    };
    for (int64_t t = 0; t < a.steps; ++t) {
        const int64_t first = t * B + begin;
        for (int64_t r = 0; r < rows; ++r) {
            const T* const x = static_cast<const T*>(a.x) + (first + r) * I;
            copy(work + r * stride + 4 * room, x, I);
            pair_up(narrow, work + r * stride + in_pairs + room, x, I);
        }
        if (a.kept && t && t % a.every == 0)
            for (int64_t r = 0; r < rows; ++r)
                copy(static_cast<T*>(a.kept) + ((t / a.every - 1) * B + begin + r) * N, work + r * stride + room, N);
        T* const y_out = static_cast<T*>(a.y) + first * N;
        T* const gates = a.gates ? static_cast<T*>(a.gates) + first * 4 * N : nullptr;
        const T* const tau = a.tau ? static_cast<const T*>(a.tau) + first : nullptr;
        const auto keep = [&](int64_t r, int64_t k, int64_t column, Vec<T> v) {
            if (gates) store_up_to(gates + (4 * r + k) * N, column, N, v);
        };
        const auto runs = [&](int64_t r) { return !a.lengths || t < a.lengths[begin + r]; };
        // beyond the last unit dt is zero, so both states are zero and stay so
        for (int64_t k = 0; k < 2; ++k)
            multiply(k, [&](int64_t r, int64_t column, Vec<T> sum) {
                const Vec<T> s = sigmoid<T>(sum + load(b + k * room + column));
                Vec<T> h = load(dt + column);
                if (tau) h *= tau[r];
                store(work + r * stride + (2 + k) * room + column, h * s);
                keep(r, k, column, s);
            });
        multiply(2, [&](int64_t r, int64_t column, Vec<T> sum) {
            T* const line = work + r * stride + column;
            const Vec<T> g = tanh<T>(sum + load(b + 2 * room + column)), z = load(line + room);
            if (runs(r)) {
                const Vec<T> z_new = z + load(line + 2 * room) * (g - z);
                store(line + room, z_new);
                pair_up<T>(narrow, work + r * stride + in_pairs + (room + column) / 2, z_new);
            }
            keep(r, 2, column, g);
        });
        multiply(3, [&](int64_t r, int64_t column, Vec<T> sum) {
            T* const line = work + r * stride + column;
            const Vec<T> q = tanh<T>(sum + load(b + 3 * room + column)), y = load(line);
            Vec<T> shown = Vec<T>{};
            if (runs(r)) {
                shown = y + load(line + 3 * room) * (q - y);
                store(line, shown);
                pair_up<T>(narrow, work + r * stride + in_pairs + column / 2, shown);
            }
            store_up_to(y_out + r * N, column, N, shown);
            keep(r, 3, column, q);
        });
    }
    for (int64_t r = 0; r < rows; ++r) {
        copy(static_cast<T*>(a.y_last) + (begin + r) * N, work + r * stride, N);
        copy(static_cast<T*>(a.z_last) + (begin + r) * N, work + r * stride + room, N);
    }
}

template <typename T>
int64_t lem_backward_scratch(int64_t units, int64_t batch) {
    const int64_t room = padded<T>(units);
    return 4 * room * units + room + batch * cotangents<T>(room);
}

template <typename T>
void lem_backward_pack(const pendula_lem_backward& a) {
    const int64_t N = a.units, room = padded<T>(N);
    T* const packed = static_cast<T*>(a.scratch);
    const bool narrow = a.narrow != 0;
    const int64_t own = lines<T>(narrow, N);
    for (int64_t k = 0; k < 3; ++k)
        pack_either(narrow, packed, 3 * own, k * own, static_cast<const T*>(a.W) + k * N * N, N, N, N, 1);
    pack_either(narrow, packed + 3 * room * N, own, 0, static_cast<const T*>(a.W_y), N, N, N, 1);
    widen(packed + 4 * room * N, a.dt, N, room);
}

// What each step of the chunk took: y as the outputs show it, x, 1 (for the bias), and z after the step, from the kept
// one onwards.
template <typename T>
inline void lem_operands(const pendula_lem_backward& a, const T* dt, int64_t begin, int64_t end) {
    const int64_t N = a.units, I = a.inputs, B = a.batch, taken = 2 * N + I + 1;
    for (int64_t t = a.first; t < a.last; ++t)
        for (int64_t sequence = begin; sequence < end; ++sequence) {
            T* const line = static_cast<T*>(a.rows) + ((t - a.first) * B + sequence) * taken;
            const int64_t at = t * B + sequence;
            copy(line, t ? static_cast<const T*>(a.y) + (at - B) * N : static_cast<const T*>(a.y0) + sequence * N, N);
            copy(line + N, static_cast<const T*>(a.x) + at * I, I);
            line[N + I] = T(1);
            T* const z_line = line + N + I + 1;
            const T* const before = t == a.first ? static_cast<const T*>(a.z) + sequence * N : z_line - B * taken;
            const T* const gates = static_cast<const T*>(a.gates) + at * 4 * N;
            const T scale = a.tau ? static_cast<const T*>(a.tau)[at] : T(1);
            for (int64_t c = 0; c < N; c += Vector<T>::size) {
                const Vec<T> z = load_up_to(before, c, N), h = load(dt + c) * scale * load_up_to(gates, c, N);
                store_up_to(z_line, c, N, z + h * (load_up_to(gates + 2 * N, c, N) - z));
            }
        }
}

template <typename T>
void lem_backward_slice(const pendula_lem_backward& a, int64_t begin, int64_t end, int64_t thread) {
    const FlushDenormals guard;
    constexpr int64_t L = Vector<T>::size;
    const int64_t N = a.units, B = a.batch, rows = end - begin, room = padded<T>(N), stride = cotangents<T>(room);
    const T* const packed = static_cast<const T*>(a.scratch);
    const T* const dt = packed + 4 * room * N;
    T* const work = static_cast<T*>(a.scratch) + 4 * room * N + room + begin * stride;
    for (int64_t r = 0; r < rows; ++r) {
        widen(work + r * stride, static_cast<const T*>(a.by_state_y) + (begin + r) * N, N, room);
        widen(work + r * stride + room, static_cast<const T*>(a.by_state_z) + (begin + r) * N, N, room);
    }
    lem_operands<T>(a, dt, begin, end);
    double* const by_dt = a.by_dt ? static_cast<double*>(a.by_dt) + thread * N : nullptr;
    const int64_t taken = 2 * N + a.inputs + 1;
    const bool narrow = NARROWS<T> && a.narrow;
    // p_1, p_2, p_z and p_y
    const int64_t own = lines<T>(narrow, N), in_pairs = 6 * room + L;
    Stretch ps[4];
    for (int64_t k = 0; k < 4; ++k) ps[k] = {narrow ? in_pairs + k * room / 2 : (2 + k) * room, own};
    for (int64_t t = a.last - 1; t >= a.first; --t) {
        const int64_t first = t * B + begin;
        const T* const gates = static_cast<const T*>(a.gates) + first * 4 * N;
        const T* const tau = a.tau ? static_cast<const T*>(a.tau) + first : nullptr;
        const T* const shown = a.by_y ? static_cast<const T*>(a.by_y) + first * N : nullptr;
        const T* const took = static_cast<const T*>(a.rows) + ((t - a.first) * B + begin) * taken;
        T* const p_out = static_cast<T*>(a.by_drive) + ((t - a.first) * B + begin) * 4 * N;
        const auto runs = [&](int64_t r) { return !a.lengths || t < a.lengths[begin + r]; };
        // a state, its goal and its gate s: the cotangents of both pre-activations, and what of the state's is left
        const auto part = [&](int64_t r, int64_t c, int64_t gate, Vec<T> before, Vec<T> by_new) {
            T* const line = work + r * stride + c;
            const T* const kept = gates + 4 * r * N;
            const int64_t goal = gate + 2;
            const Vec<T> s = load_up_to(kept + gate * N, c, N), e = load_up_to(kept + goal * N, c, N);
            const Vec<T> d = load(dt + c), by_h = s * (e - before) * by_new;
            const T scale = tau ? tau[r] : T(1);
            const Vec<T> h = d * scale, p_gate = h * (1 - s) * by_h, p_goal = h * s * (1 - e * e) * by_new;
            store(line + (2 + gate) * room, p_gate);
            store(line + (2 + goal) * room, p_goal);
            pair_up<T>(narrow, work + r * stride + in_pairs + (gate * room + c) / 2, p_gate);
            pair_up<T>(narrow, work + r * stride + in_pairs + (goal * room + c) / 2, p_goal);
            store_up_to(p_out + (4 * r + gate) * N, c, N, p_gate);
            store_up_to(p_out + (4 * r + goal) * N, c, N, p_goal);
            if (by_dt) add_to<T>(by_dt, c, N, by_h * scale);
            if (tau) {
                T* const total = work + r * stride + 6 * room;
                store(total, load(total) + by_h * d);
            }
            return by_new - h * s * by_new;
        };
        for (int64_t r = 0; r < rows; ++r) {
            T* const line = work + r * stride;
            if (tau) store(line + 6 * room, Vec<T>{});
            if (!runs(r)) {
                for (int64_t c = 2 * room; c < stride; ++c) line[c] = T(0);
                for (int64_t c = 0; c < 4 * N; ++c) p_out[4 * r * N + c] = T(0);
                continue;
            }
            for (int64_t c = 0; c < room; c += L) {
                Vec<T> gy = load(line + c);
                if (shown) gy += load_up_to(shown + r * N, c, N);
                store(line + c, part(r, c, 1, load_up_to(took + r * taken, c, N), gy));
            }
        }
        product_either(narrow, work, stride, rows, ps + 3, 1, packed + 3 * room * N, own, 0, N,
                       [&](int64_t r, int64_t column, Vec<T> sum) {
                           if (!runs(r)) return;
                           T* const by_z = work + r * stride + room + column;
                           const T* const z = t == a.first ? static_cast<const T*>(a.z) + (begin + r) * N
                                                           : took + (r - B) * taken + N + a.inputs + 1;
                           store(by_z, part(r, column, 0, load_up_to(z, column, N), load(by_z) + sum));
                       });
        product_either(narrow, work, stride, rows, ps, 3, packed, 3 * own, 0, N,
                       [&](int64_t r, int64_t column, Vec<T> sum) {
                           T* const by_y = work + r * stride + column;
                           store(by_y, load(by_y) + sum);
                       });
        for (int64_t r = 0; tau && r < rows; ++r) {
            T total = 0;
            for (int64_t i = 0; i < L; ++i) total += work[r * stride + 6 * room + i];
            static_cast<T*>(a.by_tau)[first + r] = total;
        }
    }
    for (int64_t r = 0; r < rows; ++r) {
        copy(static_cast<T*>(a.by_state_y) + (begin + r) * N, work + r * stride, N);
        copy(static_cast<T*>(a.by_state_z) + (begin + r) * N, work + r * stride + room, N);
    }
}

#define PENDULA_FOR(T)                                                                       \
    template int64_t lem_forward_scratch<T>(int64_t, int64_t, int64_t);                      \
    template void lem_forward_pack<T>(const pendula_lem_forward&);                           \
    template void lem_forward_slice<T>(const pendula_lem_forward&, int64_t, int64_t);        \
    template int64_t lem_backward_scratch<T>(int64_t, int64_t);                              \
    template void lem_backward_pack<T>(const pendula_lem_backward&);                         \
    template void lem_backward_slice<T>(const pendula_lem_backward&, int64_t, int64_t, int64_t);
PENDULA_FOR(float)
PENDULA_FOR(double)

}  // namespace PENDULA_ISA
}  // namespace pendula
