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

// A row of operands: y, z and both steps, with room for whole panels, then the input of this step and of the next; and
// y, z and both inputs again in pairs, for narrow products.
template <typename T>
struct Row {
    int64_t units, inputs, room;
    bool narrow;
    Row(int64_t units_, int64_t inputs_, bool narrow_)
        : units(units_), inputs(inputs_), room(padded<T>(units_)), narrow(NARROWS<T> && narrow_) {}
    int64_t in_pairs() const { return whole_vectors<T>(4 * room + 2 * inputs); }
    int64_t stride() const { return in_pairs() + (narrow ? whole_vectors<T>(room + 2 * pairs(inputs)) : 0); }
    int64_t stacked() const { return lines<T>(narrow, units) + lines<T>(narrow, inputs); }
    int64_t block() const { return room * (units + inputs); }
};

// 1 / (1 + e^-a), as 1 + w over 1 + w + c (1 - w), and for a < 0 as c (1 - w) over it: the sum of 1 and a tanh near -1
// would lose the digits of a small gate, which is a long memory.
template <typename T>
inline Vec<T> sigmoid(Vec<T> a) {
    constexpr T largest = sizeof(T) == 4 ? T(87) : T(700);
    const Split<T> e = split<T, false>(at_most<T>(a < 0 ? -a : a, largest) * T(0.5));
    const Vec<T> large = 1 + e.w, small = e.c - e.c * e.w;
    return (a < 0 ? small : large) / (large + small);
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

// Sequences begin to end - 1. A team of threads has the same ones, and each of its parts some panels of units.
template <typename T>
void lem_forward_slice(const pendula_lem_forward& a, int64_t begin, int64_t end, const Team& team) {
    const FlushDenormals guard;
    const int64_t N = a.units, I = a.inputs, B = a.batch, rows = end - begin;
    const Row<T> row(N, I, a.narrow != 0);
    const int64_t room = row.room, stride = row.stride(), in_pairs = row.in_pairs();
    const bool narrow = row.narrow;
    const T* const packed = static_cast<const T*>(a.scratch);
    const T *const b = packed + 4 * row.block(), *const dt = b + 4 * room;
    T* const work = static_cast<T*>(a.scratch) + 4 * row.block() + 5 * room + begin * stride;
    const bool leads = team.part == 0;
    const Share<T> share(N, team.part, team.parts);
    const int64_t from = share.from, to = share.to;
    const auto take = [&](int64_t t) {
        for (int64_t r = 0; leads && t < a.steps && r < rows; ++r) {
            const T* const x = static_cast<const T*>(a.x) + (t * B + begin + r) * I;
            copy(work + r * stride + 4 * room + t % 2 * I, x, I);
            pair_up(narrow, work + r * stride + in_pairs + room + t % 2 * pairs(I), x, I);
        }
    };
    take(0);
    for (int64_t r = 0; leads && r < rows; ++r) {
        widen(work + r * stride, static_cast<const T*>(a.y0) + (begin + r) * N, N, room);
        widen(work + r * stride + room, static_cast<const T*>(a.z0) + (begin + r) * N, N, room);
        pair_up(narrow, work + r * stride + in_pairs, work + r * stride, 2 * room);
    }
    team.meet();
    const bool past = go_past_caches<T>(a.steps * B, N, a.y, a.gates);
    for (int64_t t = 0; t < a.steps; ++t) {
        const int64_t first = t * B + begin;
        take(t + 1);
        if (a.kept && t && t % a.every == 0)
            for (int64_t r = 0; r < rows; ++r)
                copy(static_cast<T*>(a.kept) + ((t / a.every - 1) * B + begin + r) * N + from,
                     work + r * stride + room + from, to - from);
        // block k of the weights times y, or z in the last one, and x
        const auto multiply = [&](int64_t k, const auto& then) {
            const int64_t state = k / 3 * room;
            const Stretch numbers[2] = {{state, N}, {4 * room + t % 2 * I, I}};
            const Stretch paired[2] = {{in_pairs + state / 2, pairs(N)},
                                       {in_pairs + room + t % 2 * pairs(I), pairs(I)}};
            product_either(narrow, work, stride, rows, narrow ? paired : numbers, 2, packed + k * row.block(),
                           row.stacked(), from, to, then);
        };
        T* const y_out = static_cast<T*>(a.y) + first * N;
        T* const gates = a.gates ? static_cast<T*>(a.gates) + first * 4 * N : nullptr;
        const T* const tau = a.tau ? static_cast<const T*>(a.tau) + first : nullptr;
        const auto keep = [&](int64_t r, int64_t k, int64_t column, Vec<T> v) {
            if (gates) put_up_to(past, gates + (4 * r + k) * N, column, N, v);
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
        // the last block reads z of all parts, and the first ones of the next step y
        team.meet();
        multiply(3, [&](int64_t r, int64_t column, Vec<T> sum) {
            T* const line = work + r * stride + column;
            const Vec<T> q = tanh<T>(sum + load(b + 3 * room + column)), y = load(line);
            Vec<T> shown = Vec<T>{};
            if (runs(r)) {
                shown = y + load(line + 3 * room) * (q - y);
                store(line, shown);
                pair_up<T>(narrow, work + r * stride + in_pairs + column / 2, shown);
            }
            put_up_to(past, y_out + r * N, column, N, shown);
            keep(r, 3, column, q);
        });
        team.meet();
    }
    settle();
    for (int64_t r = 0; leads && r < rows; ++r) {
        copy(static_cast<T*>(a.y_last) + (begin + r) * N, work + r * stride, N);
        copy(static_cast<T*>(a.z_last) + (begin + r) * N, work + r * stride + room, N);
    }
}

namespace {

// Inputs up to here are multiplied number by number: a panel of columns would be mostly padding.
constexpr int64_t NARROW = 16;

// How the scratch of the backward pass is laid out, in elements.
template <typename T>
struct Backward {
    int64_t units, inputs, every, room, taken, width;
    bool narrow;
    explicit Backward(const pendula_lem_backward& a)
        : units(a.units),
          inputs(a.inputs),
          every(a.every < a.steps ? a.every : a.steps),
          room(padded<T>(a.units)),
          taken(2 * a.units + (wide() ? a.inputs : 0)),
          width(padded<T>(taken - a.units)),
          narrow(NARROWS<T> && a.narrow) {}
    bool wide() const { return inputs > NARROW; }
    // rows of a packed block
    int64_t own() const { return lines<T>(narrow, units); }
    // V, packed, or narrow by columns
    int64_t v_size() const { return wide() ? padded<T>(inputs) * 4 * units : inputs * 4 * room; }
    int64_t packed() const { return 4 * room * units + v_size() + room; }
    // sums of a thread: the gradients of W and W_y, each beside that of wide V; of b, and of narrow V by columns
    int64_t sums() const { return 4 * units * width + (wide() ? 1 : 1 + inputs) * 4 * room; }
    // cotangents of y and z, p_1, p_2, p_z, p_y, a vector for the step's length, and each p in pairs
    int64_t in_pairs() const { return 6 * room + Vector<T>::size; }
    int64_t line() const { return in_pairs() + (narrow ? 2 * room : 0); }
    // of a sequence: a line; what the steps of a chunk took, and their drive's cotangents
    int64_t sequence() const { return line() + every * (taken + 4 * units); }
    // a panel beyond the end of a thread's chunk may be read
    int64_t thread() const { return sums() + panel_width<T>(); }
    int64_t size(int64_t threads, int64_t batch) const { return packed() + threads * thread() + batch * sequence(); }
};

}  // namespace

template <typename T>
int64_t lem_backward_scratch(const pendula_lem_backward& a) {
    return Backward<T>(a).size(a.threads, a.batch);
}

template <typename T>
void lem_backward_pack(const pendula_lem_backward& a) {
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs, room = plan.room, own = plan.own();
    T *const to = static_cast<T*>(a.scratch), *const v = to + 4 * room * N;
    for (int64_t k = 0; k < 4; ++k) {
        const T* const V = static_cast<const T*>(a.V) + k * N * I;
        if (k < 3)
            pack_either(plan.narrow, to, 3 * own, k * own, static_cast<const T*>(a.W) + k * N * N, N, N, N, 1);
        else
            pack_either(plan.narrow, to + 3 * room * N, own, 0, static_cast<const T*>(a.W_y), N, N, N, 1);
        if (plan.wide())
            pack_either(plan.narrow, v, 4 * own, k * own, V, N, I, I, 1);
        else
            for (int64_t i = 0; i < I; ++i)
                for (int64_t n = 0; n < room; ++n) v[(4 * i + k) * room + n] = n < N ? V[n * I + i] : T(0);
    }
    widen(v + plan.v_size(), a.dt, N, room);
}

// What each step from `first` to `last` took: y as the outputs show it, wide x, and z after the step, from the kept one
// onwards.
template <typename T>
inline void lem_operands(const pendula_lem_backward& a, const Backward<T>& plan, T* took, const T* dt, const T* z_first,
                         int64_t first, int64_t last, int64_t begin, int64_t rows) {
    const int64_t N = a.units, I = a.inputs, B = a.batch, taken = plan.taken;
    for (int64_t t = first; t < last; ++t)
        for (int64_t r = 0; r < rows; ++r) {
            T *const line = took + ((t - first) * rows + r) * taken, *const z_line = line + taken - N;
            const int64_t at = t * B + begin + r;
            const T* const y0 = static_cast<const T*>(a.y0) + (begin + r) * N;
            copy(line, t ? static_cast<const T*>(a.y) + (at - B) * N : y0, N);
            if (plan.wide()) copy(line + N, static_cast<const T*>(a.x) + at * I, I);
            const T* const before = t == first ? z_first + r * N : z_line - rows * taken;
            const T* const gates = static_cast<const T*>(a.gates) + at * 4 * N;
            const T scale = a.tau ? static_cast<const T*>(a.tau)[at] : T(1);
            for (int64_t c = 0; c < N; c += Vector<T>::size) {
                const Vec<T> z = load_up_to(before, c, N), h = load(dt + c) * scale * load_up_to(gates, c, N);
                store_up_to(z_line, c, N, z + h * (load_up_to(gates + 2 * N, c, N) - z));
            }
        }
}

// What is not in the products of whole panels: the gradients of b and of narrow V, and of a narrow input.
template <typename T>
inline void lem_few(const pendula_lem_backward& a, const Backward<T>& plan, const T* x, const T* work, const T* V,
                    T* sums, T* by_x, int64_t rows) {
    const int64_t I = plan.wide() ? 0 : a.inputs, stride = plan.line(), four = 4 * plan.room;
    const T* const p = work + 2 * plan.room;
    for (int64_t c = 0; c < four; c += Vector<T>::size) {
        Vec<T> sum = load(sums + c);
        for (int64_t r = 0; r < rows; ++r) sum += load(p + r * stride + c);
        store(sums + c, sum);
    }
    for (int64_t i = 0; i < I; ++i) {
        T* const line = sums + (i + 1) * four;
        for (int64_t c = 0; c < four; c += Vector<T>::size) {
            Vec<T> sum = load(line + c);
            for (int64_t r = 0; r < rows; ++r) sum += all(x[r * I + i]) * load(p + r * stride + c);
            store(line + c, sum);
        }
    }
    for (int64_t r = 0; by_x && r < rows; ++r)
        for (int64_t i = 0; i < I; ++i) {
            Vec<T> sum = Vec<T>{};
            for (int64_t c = 0; c < four; c += Vector<T>::size)
                sum += load(p + r * stride + c) * load(V + i * four + c);
            by_x[r * I + i] = total<T>(sum);
        }
}

template <typename T>
void lem_backward_slice(const pendula_lem_backward& a, int64_t begin, int64_t end, int64_t thread) {
    const FlushDenormals guard;
    constexpr int64_t L = Vector<T>::size;
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs, B = a.batch, rows = end - begin, room = plan.room, taken = plan.taken;
    const T* const packed = static_cast<const T*>(a.scratch);
    const T *const packed_v = packed + 4 * room * N, *const dt = packed_v + plan.v_size();
    T* const sum_w = static_cast<T*>(a.scratch) + plan.packed() + thread * plan.thread() + begin * plan.sequence();
    T *const sum_b = sum_w + 4 * N * plan.width, *const work = sum_w + plan.sums();
    const int64_t stride = plan.line(), in_pairs = plan.in_pairs(), own = plan.own();
    T *const took = work + rows * stride, *const p = took + plan.every * rows * taken;
    const bool narrow = plan.narrow;
    for (int64_t i = 0; i < plan.sums(); ++i) sum_w[i] = T(0);
    for (int64_t r = 0; r < rows; ++r) {
        widen(work + r * stride, static_cast<const T*>(a.by_state_y) + (begin + r) * N, N, room);
        widen(work + r * stride + room, static_cast<const T*>(a.by_state_z) + (begin + r) * N, N, room);
        // products leave out half a panel that has no units, and sums over p don't
        for (int64_t c = 2 * room; c < stride; ++c) work[r * stride + c] = T(0);
    }
    double* const by_dt = a.by_dt ? static_cast<double*>(a.by_dt) + thread * N : nullptr;
    // p_1, p_2, p_z and p_y
    Stretch ps[4];
    for (int64_t k = 0; k < 4; ++k) ps[k] = {narrow ? in_pairs + k * room / 2 : (2 + k) * room, own};
    for (int64_t first = (a.steps - 1) / plan.every * plan.every; first >= 0; first -= plan.every) {
        const int64_t last = first + plan.every < a.steps ? first + plan.every : a.steps;
        const T* const z_first = (first ? static_cast<const T*>(a.kept) + (first / plan.every - 1) * B * N
                                        : static_cast<const T*>(a.z0)) + begin * N;
        lem_operands<T>(a, plan, took, dt, z_first, first, last, begin, rows);
        for (int64_t t = last - 1; t >= first; --t) {
            const int64_t at = t * B + begin;
            const T* const gates = static_cast<const T*>(a.gates) + at * 4 * N;
            const T* const tau = a.tau ? static_cast<const T*>(a.tau) + at : nullptr;
            const T* const shown = a.by_y ? static_cast<const T*>(a.by_y) + at * N : nullptr;
            const T* const lines_now = took + (t - first) * rows * taken;
            T* const p_out = p + (t - first) * rows * 4 * N;
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
                    T* const sum = work + r * stride + 6 * room;
                    store(sum, load(sum) + by_h * d);
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
                    store(line + c, part(r, c, 1, load_up_to(lines_now + r * taken, c, N), gy));
                }
            }
            const auto to_z = [&](int64_t r, int64_t column, Vec<T> sum) {
                if (!runs(r)) return;
                T* const by_z = work + r * stride + room + column;
                const T* const z = t == first ? z_first + r * N : lines_now + (r - rows + 1) * taken - N;
                store(by_z, part(r, column, 0, load_up_to(z, column, N), load(by_z) + sum));
            };
            product_either(narrow, work, stride, rows, ps + 3, 1, packed + 3 * room * N, own, 0, N, to_z);
            const auto to_y = [&](int64_t r, int64_t column, Vec<T> sum) {
                T* const by_y = work + r * stride + column;
                store(by_y, load(by_y) + sum);
            };
            product_either(narrow, work, stride, rows, ps, 3, packed, 3 * own, 0, N, to_y);
            for (int64_t r = 0; tau && r < rows; ++r)
                static_cast<T*>(a.by_tau)[at + r] = total<T>(load(work + r * stride + 6 * room));
            T* const by_x = a.by_x ? static_cast<T*>(a.by_x) + at * I : nullptr;
            const auto to_x = [&](int64_t r, int64_t c, Vec<T> sum) { store_up_to(by_x + r * I, c, I, sum); };
            if (by_x && plan.wide()) product_either(narrow, work, stride, rows, ps, 4, packed_v, 4 * own, 0, I, to_x);
            lem_few(a, plan, static_cast<const T*>(a.x) + at * I, work, packed_v, sum_b, by_x, rows);
        }
        const int64_t count = (last - first) * rows;
        outer<T>(sum_w, 3 * N, taken - N, p, 4 * N, took, taken, count);
        outer<T>(sum_w + 3 * N * plan.width, N, taken - N, p + 3 * N, 4 * N, took + N, taken, count);
    }
    for (int64_t r = 0; r < rows; ++r) {
        copy(static_cast<T*>(a.by_state_y) + (begin + r) * N, work + r * stride, N);
        copy(static_cast<T*>(a.by_state_z) + (begin + r) * N, work + r * stride + room, N);
    }
}

// The sums of all threads, always in the same order.
template <typename T>
void lem_backward_sum(const pendula_lem_backward& a, int64_t threads) {
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs, width = plan.width;
    for (int64_t i = 0; i < threads; ++i) {
        const T* const sum_w = static_cast<const T*>(a.scratch) + plan.packed() + i * plan.thread() +
                               (a.batch * i / threads) * plan.sequence();
        const T* const sum_b = sum_w + 4 * N * width;
        const auto into = [i](void* to, int64_t at, T value) {
            T* const place = static_cast<T*>(to) + at;
            *place = i ? *place + value : value;
        };
        for (int64_t m = 0; m < 4 * N; ++m) {
            // y and x for the gates and z's goal, x and z for y's goal
            const bool last = m >= 3 * N;
            const T *const line = sum_w + m * width, *const of_state = line + (last ? plan.taken - 2 * N : 0);
            for (int64_t k = 0; k < N; ++k) into(last ? a.by_W_y : a.by_W, (last ? m - 3 * N : m) * N + k, of_state[k]);
            const int64_t place = m / N * plan.room + m % N;
            for (int64_t k = 0; k < I; ++k)
                into(a.by_V, m * I + k,
                     plan.wide() ? line[(last ? 0 : N) + k] : sum_b[4 * (k + 1) * plan.room + place]);
            into(a.by_b, m, sum_b[place]);
        }
    }
}

#define PENDULA_FOR(T)                                                                           \
    template int64_t lem_forward_scratch<T>(int64_t, int64_t, int64_t);                          \
    template void lem_forward_pack<T>(const pendula_lem_forward&);                               \
    template void lem_forward_slice<T>(const pendula_lem_forward&, int64_t, int64_t, const Team&); \
    template int64_t lem_backward_scratch<T>(const pendula_lem_backward&);                       \
    template void lem_backward_pack<T>(const pendula_lem_backward&);                             \
    template void lem_backward_slice<T>(const pendula_lem_backward&, int64_t, int64_t, int64_t); \
    template void lem_backward_sum<T>(const pendula_lem_backward&, int64_t);
PENDULA_FOR(float)
PENDULA_FOR(double)

}  // namespace PENDULA_ISA
}  // namespace pendula
