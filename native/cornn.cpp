// coRNN: the whole scan of a slice of the batch, and its adjoint (spec sheet cornn.md 1.2 and 3).
#include <type_traits>

#include "isa.hpp"
#include "lines.hpp"
#include "product.hpp"

namespace pendula {
namespace PENDULA_ISA {
namespace {

// A row of operands: y and z with room for whole panels, then the input; and again in pairs, for narrow products.
template <typename T>
struct Row {
    int64_t units, inputs, room;
    bool narrow;
    Row(int64_t units_, int64_t inputs_, bool narrow_)
        : units(units_), inputs(inputs_), room(padded<T>(units_)), narrow(NARROWS<T> && narrow_) {}
    // whole vectors, so that none of y and z lies across two lines of memory
    int64_t in_pairs() const { return whole_vectors<T>(2 * room + inputs); }
    int64_t stride() const { return in_pairs() + (narrow ? whole_vectors<T>(room + pairs(inputs)) : 0); }
    int64_t stacked() const { return 2 * units + inputs; }
    int64_t stacked_lines() const { return 2 * lines<T>(narrow, units) + lines<T>(narrow, inputs); }
};

}  // namespace

// z after a step of length h, from y, z before it and s = tanh of the force
template <typename T>
inline Vec<T> velocity(bool implicit, Vec<T> h, Vec<T> gamma, Vec<T> epsilon, Vec<T> s, Vec<T> y, Vec<T> z) {
    // s comes last, and late
    return implicit ? ((z - h * (gamma * y)) + h * s) / (epsilon * h + 1) : (z - h * (gamma * y + epsilon * z)) + h * s;
}

template <typename T>
bool cornn_narrows() {
    return NARROWS<T>;
}

template <typename T>
int64_t cornn_forward_scratch(int64_t units, int64_t inputs, int64_t batch) {
    const Row<T> row(units, inputs, true);
    return row.room * row.stacked() + 4 * row.room + 2 * batch * row.stride();
}

template <typename T>
void cornn_forward_pack(const pendula_cornn_forward& a) {
    const int64_t N = a.units, I = a.inputs;
    const Row<T> row(N, I, a.narrow != 0);
    T* packed = static_cast<T*>(a.scratch);
    // column n of the packed matrix is row n of W, W_z and V
    const int64_t units = lines<T>(row.narrow, N), stacked = row.stacked_lines();
    pack_either(row.narrow, packed, stacked, 0, static_cast<const T*>(a.W), N, N, 1, N);
    pack_either(row.narrow, packed, stacked, units, static_cast<const T*>(a.W_z), N, N, 1, N);
    pack_either(row.narrow, packed, stacked, 2 * units, static_cast<const T*>(a.V), I, N, 1, I);
    T* constants = packed + row.room * row.stacked();
    const void* from[4] = {a.b, a.dt, a.gamma, a.epsilon};
    constexpr int64_t L = Vector<T>::size;
    // a vector of each, side by side: one place to read from
    for (int64_t c = 0; c < row.room; c += L)
        for (int64_t i = 0; i < 4; ++i)
            widen(constants + 4 * c + i * L, from[i] && c < N ? static_cast<const T*>(from[i]) + c : nullptr, N - c, L);
}

// How many threads can share the units of a sequence.
template <typename T>
int64_t parts_of_units(int64_t units) {
    return padded<T>(units) / panel_width<T>();
}

// Sequences begin to end - 1. A team of threads has the same ones, and each of its parts some panels of units.
template <typename T>
void cornn_forward_slice(const pendula_cornn_forward& a, int64_t begin, int64_t end, const Team& team) {
    const FlushDenormals guard;
    const int64_t N = a.units, I = a.inputs, B = a.batch, rows = end - begin;
    const Row<T> row(N, I, a.narrow != 0);
    const int64_t stride = row.stride(), room = row.room, in_pairs = row.in_pairs();
    const T* packed = static_cast<const T*>(a.scratch);
    const T* const constants = packed + room * row.stacked();
    T* now = static_cast<T*>(a.scratch) + room * row.stacked() + 4 * room + 2 * begin * stride;
    T* next = now + rows * stride;
    const bool leads = team.part == 0;
    const Share<T> own(N, team.part, team.parts);
    const bool narrow = row.narrow;
    const auto take = [&](T* lines, int64_t t) {
        for (int64_t r = 0; leads && t < a.steps && r < rows; ++r) {
            const T* const x = static_cast<const T*>(a.x) + (t * B + begin + r) * I;
            T* const line = lines + r * stride;
            pair_up(narrow, line + in_pairs + room, x, I);
            copy_few(line + 2 * room, x, I);
        }
    };
    for (int64_t r = 0; leads && r < rows; ++r) {
        T* const line = now + r * stride;
        widen(line, static_cast<const T*>(a.y0) + (begin + r) * N, N, room);
        widen(line + room, static_cast<const T*>(a.z0) + (begin + r) * N, N, room);
        pair_up(narrow, line + in_pairs, line, 2 * room);
    }
    take(now, 0);
    team.meet();
    const Stretch stretches[3] = {{0, N}, {room, N}, {2 * room, I}};
    const Stretch in_pairs_too[3] = {
        {in_pairs, pairs(N)}, {in_pairs + room / 2, pairs(N)}, {in_pairs + room, pairs(I)}};
    const bool implicit = a.implicit != 0;
    const bool past = go_past_caches<T>(a.steps * B, N, a.y, a.s), plain = !implicit && !a.tau && !a.lengths;
    for (int64_t t = 0; t < a.steps; ++t) {
        take(next, t + 1);
        const int64_t first = (t * B + begin) * N;
        T* const y_out = static_cast<T*>(a.y) + first;
        if (leads && a.kept && t && t % a.every == 0)
            for (int64_t r = 0; r < rows; ++r)
                copy(static_cast<T*>(a.kept) + ((t / a.every - 1) * B + begin + r) * N, now + r * stride + room, N);
        T* const s_out = a.s ? static_cast<T*>(a.s) + first : nullptr;
        const T* const tau = a.tau ? static_cast<const T*>(a.tau) + t * B + begin : nullptr;
        const int64_t* const lengths = a.lengths ? a.lengths + begin : nullptr;
        const auto update = [=](auto is_narrow, auto is_plain) {
            return [=](int64_t column) {
                constexpr int64_t L = Vector<T>::size;
                const T* const constant = constants + 4 * column;
                const Vec<T> bias = load(constant), dt = load(constant + L), gamma = load(constant + 2 * L),
                             epsilon = load(constant + 3 * L);
                const T* const old = now + column;
                T *const young = next + column, *const paired = next + in_pairs + column / 2;
                return [=](int64_t r, Vec<T> sum) {
                    const Vec<T> y = load(old + r * stride), z = load(old + r * stride + room), s = tanh<T>(sum + bias);
                    Vec<T> h = dt;
                    if (!is_plain() && tau) h *= tau[r];
                    Vec<T> z_new = velocity<T>(!is_plain() && implicit, h, gamma, epsilon, s, y, z);
                    Vec<T> y_new = y + h * z_new, shown = y_new;
                    if (!is_plain() && lengths && t >= lengths[r]) {
                        z_new = z;
                        y_new = y;
                        shown = Vec<T>{};
                    }
                    store(young + r * stride, y_new);
                    store(young + r * stride + room, z_new);
                    if constexpr (is_narrow()) {
                        pair_up<T>(true, paired + r * stride, y_new);
                        pair_up<T>(true, paired + r * stride + room / 2, z_new);
                    }
                    put_up_to(past, y_out + r * N, column, N, shown);
                    if (s_out) put_up_to(past, s_out + r * N, column, N, s);
                };
            };
        };
        const std::true_type yes;
        const std::false_type no;
        if (narrow)
            product<T, NARROWS<T>>(now, stride, rows, in_pairs_too, 3, packed, row.stacked_lines(), own.from, own.to,
                                   update(yes, no));
        else if (plain)
            product<T>(now, stride, rows, stretches, 3, packed, row.stacked_lines(), own.from, own.to, update(no, yes));
        else
            product<T>(now, stride, rows, stretches, 3, packed, row.stacked_lines(), own.from, own.to, update(no, no));
        T* const swapped = now;
        now = next;
        next = swapped;
        team.meet();
    }
    settle();
    for (int64_t r = 0; leads && r < rows; ++r) {
        copy(static_cast<T*>(a.y_last) + (begin + r) * N, now + r * stride, N);
        copy(static_cast<T*>(a.z_last) + (begin + r) * N, now + r * stride + room, N);
    }
}

namespace {

// Inputs up to here are multiplied number by number: a panel of columns would be mostly padding.
constexpr int64_t NARROW = 16;

// How the scratch of the backward pass is laid out, in elements.
template <typename T>
struct Backward {
    int64_t units, inputs, every, room, taken, width, lines;
    bool narrow;
    explicit Backward(const pendula_cornn_backward& a)
        : units(a.units),
          inputs(a.inputs),
          every(a.every < a.steps ? a.every : a.steps),
          room(padded<T>(a.units)),
          taken(2 * a.units + (wide() ? a.inputs : 0)),
          width(padded<T>(taken)),
          lines(wide() ? 0 : a.inputs),
          narrow(NARROWS<T> && a.narrow) {}
    bool wide() const { return inputs > NARROW; }
    // V, packed, or narrow by columns
    int64_t v_size() const { return wide() ? padded<T>(inputs) * units : inputs * room; }
    int64_t packed() const { return 2 * room * units + v_size() + 3 * room; }
    // sums of a thread: the gradients of W, W_z (and V) side by side, of narrow V by columns, of b
    int64_t sums() const { return units * width + (lines + 1) * room; }
    // of a sequence: a line; what the steps of a chunk took, and their drive's cotangents
    int64_t sequence() const { return line() + (every + 1) * taken + every * units; }
    // cotangents of y, z and the drive, and of the drive in pairs, for narrow products
    int64_t line() const { return 3 * room + (narrow ? room / 2 : 0); }
    // a panel beyond the end of a thread's chunk may be read
    int64_t thread() const { return sums() + panel_width<T>(); }
    int64_t size(int64_t threads, int64_t batch) const { return packed() + threads * thread() + batch * sequence(); }
};

}  // namespace

template <typename T>
int64_t cornn_backward_scratch(const pendula_cornn_backward& a) {
    return Backward<T>(a).size(a.threads, a.batch);
}

template <typename T>
void cornn_backward_pack(const pendula_cornn_backward& a) {
    const Backward<T> plan(a);
    const int64_t N = a.units, room = plan.room;
    T* to = static_cast<T*>(a.scratch);
    const void* matrices[2] = {a.W, a.W_z};
    for (int i = 0; i < 2; ++i)
        pack_either(plan.narrow, to + i * room * N, lines<T>(plan.narrow, N), 0, static_cast<const T*>(matrices[i]), N,
                    N, N, 1);
    T* const v = to + 2 * room * N;
    if (plan.wide())
        pack(v, N, 0, static_cast<const T*>(a.V), N, a.inputs, a.inputs, 1);
    else
        for (int64_t i = 0; i < a.inputs; ++i)
            for (int64_t n = 0; n < room; ++n)
                v[i * room + n] = n < N ? static_cast<const T*>(a.V)[n * a.inputs + i] : T(0);
    const void* from[3] = {a.dt, a.gamma, a.epsilon};
    for (int i = 0; i < 3; ++i) widen(v + plan.v_size() + i * room, from[i], N, room);
}

// What the steps of a chunk took: y as the outputs show it, z from the kept one onwards, and x; and what the last left.
template <typename T>
inline void cornn_operands(const pendula_cornn_backward& a, const Backward<T>& plan, T* took, const T* dt,
                           int64_t first, int64_t last, int64_t begin, int64_t rows, const Share<T>& own) {
    const int64_t N = a.units, I = a.inputs, B = a.batch, taken = plan.taken;
    const T *const gamma = dt + plan.room, *const epsilon = gamma + plan.room;
    const T* const z_first = first ? static_cast<const T*>(a.kept) + (first / plan.every - 1) * B * N
                                   : static_cast<const T*>(a.z0);
    for (int64_t t = first; t <= last; ++t)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t sequence = begin + r;
            T* const line = took + ((t - first) * rows + r) * taken;
            const T* const y = t ? static_cast<const T*>(a.y) + (t - 1) * B * N : static_cast<const T*>(a.y0);
            copy(line + own.from, y + sequence * N + own.from, own.count());
            if (plan.wide() && t < last && !own.from)
                copy(line + 2 * N, static_cast<const T*>(a.x) + (t * B + sequence) * I, I);
            if (t == first) {
                copy(line + N + own.from, z_first + sequence * N + own.from, own.count());
                continue;
            }
            const T* const before = line - rows * taken;
            const T* const s_line = static_cast<const T*>(a.s) + ((t - 1) * B + sequence) * N;
            const T scale = a.tau ? static_cast<const T*>(a.tau)[(t - 1) * B + sequence] : T(1);
            for (int64_t c = own.from; c < own.to; c += Vector<T>::size)
                store_up_to(line + N, c, N,
                            velocity<T>(a.implicit != 0, load(dt + c) * scale, load(gamma + c), load(epsilon + c),
                                        load_up_to(s_line, c, N), load_up_to(before, c, N),
                                        load_up_to(before + N, c, N)));
        }
}

// Sequences begin to end - 1, as in the forward pass. Without by_tau, which is a sum over the units, a team may do it.
template <typename T>
void cornn_backward_slice(const pendula_cornn_backward& a, int64_t begin, int64_t end, int64_t thread,
                          const Team& team) {
    const FlushDenormals guard;
    constexpr int64_t L = Vector<T>::size;
    const Backward<T> plan(a);
    const Share<T> own(a.units, team.part, team.parts);
    const bool leads = team.part == 0;
    const int64_t N = a.units, I = a.inputs, B = a.batch, rows = end - begin, room = plan.room, taken = plan.taken;
    const T* const packed = static_cast<const T*>(a.scratch);
    const T *const packed_v = packed + 2 * room * N, *const dt = packed_v + plan.v_size(), *const gamma = dt + room,
                   *const epsilon = gamma + room;
    T* const sum_w = static_cast<T*>(a.scratch) + plan.packed() + thread * plan.thread() + begin * plan.sequence();
    T *const sum_v = sum_w + N * plan.width, *const sum_b = sum_v + plan.lines * room;
    T* const work = sum_w + plan.sums();
    T *const took = work + rows * plan.line(), *const p = took + (plan.every + 1) * rows * taken;
    const int64_t stride = plan.line();
    const bool narrow = plan.narrow;
    for (int64_t i = 0; leads && i < plan.sums(); ++i) sum_w[i] = T(0);
    for (int64_t r = 0; leads && r < rows; ++r) {
        widen(work + r * stride, static_cast<const T*>(a.by_state_y) + (begin + r) * N, N, room);
        widen(work + r * stride + room, static_cast<const T*>(a.by_state_z) + (begin + r) * N, N, room);
    }
    team.meet();
    double* const by_dt = a.by_dt ? static_cast<double*>(a.by_dt) + thread * N : nullptr;
    double* const by_gamma = a.by_dt ? static_cast<double*>(a.by_gamma) + thread * N : nullptr;
    double* const by_epsilon = a.by_dt ? static_cast<double*>(a.by_epsilon) + thread * N : nullptr;
    const bool implicit = a.implicit != 0, sums = a.by_dt || a.by_tau;
    const Stretch drive[1] = {{(narrow ? 3 : 2) * room, lines<T>(narrow, N)}}, adjoint[1] = {{0, N}};
    for (int64_t first = (a.steps - 1) / plan.every * plan.every; first >= 0; first -= plan.every) {
        const int64_t last = first + plan.every < a.steps ? first + plan.every : a.steps;
        cornn_operands<T>(a, plan, took, dt, first, last, begin, rows, own);
        for (int64_t t = last - 1; t >= first; --t) {
            const int64_t back = ahead_of(t, B * N, rows * N);
            for (int64_t r = 0; r < rows; ++r) {
                const int64_t at = (t * B + begin + r) * N;
                T *const by_y = work + r * stride, *const by_z = by_y + room, *const by_a = by_z + room;
                T* const p_line = p + ((t - first) * rows + r) * N;
                if (a.lengths && t >= a.lengths[begin + r]) {
                    for (int64_t c = own.from; c < own.whole; ++c) by_a[c] = T(0);
                    for (int64_t c = own.from / 2; narrow && c < own.whole / 2; ++c) by_a[room + c] = T(0);
                    for (int64_t c = own.from; c < own.to; ++c) p_line[c] = T(0);
                    if (a.by_tau) static_cast<T*>(a.by_tau)[t * B + begin + r] = T(0);
                    continue;
                }
                const T* const line = took + ((t - first) * rows + r) * taken;
                const T *const y_old = line, *const z_old = line + N, *const z_now = line + rows * taken + N;
                const T* const s_now = static_cast<const T*>(a.s) + at;
                const T* const shown = a.by_y ? static_cast<const T*>(a.by_y) + at : nullptr;
                const T scale = a.tau ? static_cast<const T*>(a.tau)[t * B + begin + r] : T(1);
                Vec<T> by_scale = Vec<T>{};
                for (int64_t c = own.from; c < own.whole; c += L) {
                    if (shown) expect(shown + c - back);
                    const Vec<T> d = load(dt + c), h = d * scale, g = load(gamma + c), e = load(epsilon + c);
                    const Vec<T> s = load_up_to(s_now, c, N);
                    Vec<T> gy = load(by_y + c), gz = load(by_z + c);
                    if (shown) gy += load_up_to(shown, c, N);
                    gz += h * gy;
                    const Vec<T> q = implicit ? gz / (e * h + 1) : gz;
                    const Vec<T> by_drive = h * q * (1 - s * s);
                    if (sums) {
                        const Vec<T> y = load_up_to(y_old, c, N), z = load_up_to(z_now, c, N);
                        const Vec<T> damped = implicit ? z : load_up_to(z_old, c, N);
                        const Vec<T> by_h = gy * z + q * (s - g * y - e * damped);
                        if (by_dt) {
                            add_to<T>(by_dt, c, N, by_h * scale);
                            add_to<T>(by_gamma, c, N, -h * q * y);
                            add_to<T>(by_epsilon, c, N, -h * q * damped);
                        }
                        by_scale += by_h * d;
                    }
                    store(by_y + c, gy - h * g * q);
                    store(by_z + c, implicit ? q : q - h * e * q);
                    store(by_a + c, by_drive);
                    pair_up<T>(narrow, by_a + room + c / 2, by_drive);
                    store(sum_b + c, load(sum_b + c) + by_drive);
                    store_up_to(p_line, c, N, by_drive);
                }
                if (a.by_tau) {
                    static_cast<T*>(a.by_tau)[t * B + begin + r] = total<T>(by_scale);
                }
            }
            team.meet();
            for (int64_t half = 0; half < 2; ++half) {
                const T* const matrix = packed + half * room * N;
                const auto take_in = [&](int64_t r, int64_t column, Vec<T> sum) {
                    T* const line = work + r * stride + half * room + column;
                    store(line, load(line) + sum);
                };
                product_either(narrow, work, stride, rows, drive, 1, matrix, drive[0].count, own.from, own.to, take_in);
            }
            team.meet();
        }
        const int64_t count = (last - first) * rows;
        outer<T>(sum_w + own.from * plan.width, own.count(), taken, p + own.from, N, took, taken, count);
        for (int64_t t = first; leads && t < last; ++t) {
            const T* const p_rows = p + (t - first) * rows * N;
            const T* const x = static_cast<const T*>(a.x) + (t * B + begin) * I;
            T* const by_x = a.by_x ? static_cast<T*>(a.by_x) + (t * B + begin) * I : nullptr;
            if (plan.wide()) {
                if (by_x)
                    product<T>(p_rows, N, rows, adjoint, 1, packed_v, N, I,
                               [&](int64_t r, int64_t c, Vec<T> sum) { store_up_to(by_x + r * I, c, I, sum); });
                continue;
            }
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t i = 0; i < I; ++i) {
                    const Vec<T> value = all(x[r * I + i]);
                    T* const sum = sum_v + i * room;
                    for (int64_t c = 0; c < N; c += L)
                        store(sum + c, load(sum + c) + value * load_up_to(p_rows + r * N, c, N));
                }
            if (by_x)
                for (int64_t r = 0; r < rows; ++r)
                    for (int64_t i = 0; i < I; ++i) {
                        Vec<T> sum = Vec<T>{};
                        for (int64_t c = 0; c < N; c += L)
                            sum += load_up_to(p_rows + r * N, c, N) * load(packed_v + i * room + c);
                        by_x[r * I + i] = total<T>(sum);
                    }
        }
        // before the next chunk takes the place of this one
        team.meet();
    }
    for (int64_t r = 0; leads && r < rows; ++r) {
        copy(static_cast<T*>(a.by_state_y) + (begin + r) * N, work + r * stride, N);
        copy(static_cast<T*>(a.by_state_z) + (begin + r) * N, work + r * stride + room, N);
    }
}

// The sums of all threads, always in the same order.
template <typename T>
void cornn_backward_sum(const pendula_cornn_backward& a, int64_t threads) {
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs;
    for (int64_t i = 0; i < threads; ++i) {
        const T* const sum_w = static_cast<const T*>(a.scratch) + plan.packed() + i * plan.thread() +
                               (a.batch * i / threads) * plan.sequence();
        const T *const sum_v = sum_w + N * plan.width, *const sum_b = sum_v + plan.lines * plan.room;
        const auto into = [i](void* to, int64_t at, T value) {
            T* const line = static_cast<T*>(to) + at;
            *line = i ? *line + value : value;
        };
        for (int64_t n = 0; n < N; ++n) {
            for (int64_t k = 0; k < N; ++k) {
                into(a.by_W, n * N + k, sum_w[n * plan.width + k]);
                into(a.by_W_z, n * N + k, sum_w[n * plan.width + N + k]);
            }
            for (int64_t k = 0; k < I; ++k)
                into(a.by_V, n * I + k, plan.wide() ? sum_w[n * plan.width + 2 * N + k] : sum_v[k * plan.room + n]);
            into(a.by_b, n, sum_b[n]);
        }
    }
}

#define PENDULA_FOR(T)                                                                               \
    template bool cornn_narrows<T>();                                                                \
    template int64_t cornn_forward_scratch<T>(int64_t, int64_t, int64_t);                            \
    template void cornn_forward_pack<T>(const pendula_cornn_forward&);                               \
    template int64_t parts_of_units<T>(int64_t);                                                \
    template void cornn_forward_slice<T>(const pendula_cornn_forward&, int64_t, int64_t, const Team&); \
    template int64_t cornn_backward_scratch<T>(const pendula_cornn_backward&);                       \
    template void cornn_backward_pack<T>(const pendula_cornn_backward&);                             \
    template void cornn_backward_slice<T>(const pendula_cornn_backward&, int64_t, int64_t, int64_t, const Team&); \
    template void cornn_backward_sum<T>(const pendula_cornn_backward&, int64_t);
PENDULA_FOR(float)
PENDULA_FOR(double)

}  // namespace PENDULA_ISA
}  // namespace pendula
