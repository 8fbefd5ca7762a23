// n-t-ODERNN: the whole scan of a slice of the batch, and its adjoint (spec sheet odernn.md 2.2, 2.3 and 5).
//
// A point P has t lines, the derivatives z_0 .. z_{t-1}. With h = dt tau, d the drive that stage i sees and
//   s_i = tanh(sum_m W_m P_i[m] + d),  f_i = s_i - sum_m gamma_m P_i[m],  K_i = (P_i[1], .., P_i[t-1], f_i):
//   P_i = Z + h sum_{j<i} a_ij K_j,   Z+ = Z + h sum_i b_i K_i.
// Backward, from g by Z+ and from the last stage down, G_i being by P_i and p_i by what tanh is taken of:
//   q = b_i g + sum_{j>i} a_ji G_j,   p_i = h q[t-1] (1 - s_i^2),
//   G_i[m] = W_m^T p_i + h q[m-1] - gamma_m h q[t-1],   by Z: g + sum_i G_i,
//   by h: sum_i <K_i, q>,   by gamma_m: - sum_i h q[t-1] P_i[m].
// Semi-implicit Euler has one stage and takes the derivatives one after the other, each with the new one above it; so
// backward g[m] first gets h g[m-1], and G has no h q[m-1].
#include <algorithm>
#include <vector>

#include "isa.hpp"
#include "lines.hpp"
#include "product.hpp"

namespace pendula {
namespace PENDULA_ISA {
namespace {

// Inputs up to here are multiplied number by number in the backward pass: a panel of columns would be mostly padding.
constexpr int64_t NARROW = 16;

// Sequences that go through all stages of a step together: so few that their lines stay in cache from stage to stage.
template <typename T>
int64_t together(int64_t line) {
    constexpr int64_t cached = (1 << 16) / sizeof(T);
    return std::max(cached / line / ROWS, int64_t{1}) * ROWS;
}

// The tableau in the type of the numbers: what of each slope leads to a stage, or (stage n) to the next step, and how
// far into the step a stage lies.
template <typename T>
class Scheme {
   public:
    template <typename Arguments>
    explicit Scheme(const Arguments& a) : stages_(a.stages) {
        for (int64_t i = 0; i <= stages_; ++i) {
            double when = 0;
            for (int64_t j = 0; j < stages_; ++j) {
                const double weight = a.tableau[i * stages_ + j];
                when += weight;
                weights_.push_back(static_cast<T>(weight));
            }
            when_.push_back(static_cast<T>(when));
        }
    }
    T weight(int64_t stage, int64_t slope) const { return weights_[stage * stages_ + slope]; }
    T when(int64_t stage) const { return when_[stage]; }
    // the sum of slope(j) over the stages j < count, as they lead to a stage
    template <typename Slope>
    Vec<T> towards(int64_t stage, int64_t count, const Slope& slope) const {
        const T* const row = weights_.data() + stage * stages_;
        Vec<T> sum = Vec<T>{};
        for (int64_t j = 0; j < count; ++j)
            if (row[j] != 0) sum += row[j] * slope(j);
        return sum;
    }

   private:
    int64_t stages_;
    std::vector<T> weights_, when_;
};

// How the scratch of the forward pass is laid out, in elements.
template <typename T>
struct Forward {
    int64_t units, inputs, order, stages, room;
    bool linear;
    explicit Forward(const pendula_odernn_forward& a)
        : units(a.units), inputs(a.inputs), order(a.order), stages(a.stages), room(padded<T>(a.units)),
          linear(a.linear != 0) {}
    int64_t stacked() const { return order * units + inputs; }
    // W, U; b, dt, gamma
    int64_t packed() const { return room * stacked(); }
    int64_t constants() const { return (2 + order) * room; }
    // A sequence's line: the points, where the only one of one stage needs another to go to; f of each; the drive and
    // the one before. A vector more, so that lines don't meet in the same places of a cache.
    int64_t point() const { return order * room; }
    int64_t f() const { return std::max(stages, int64_t{2}) * point(); }
    int64_t drive() const { return f() + stages * room; }
    int64_t before() const { return drive() + room; }
    int64_t line() const { return drive() + (linear ? 2 : 1) * room + Vector<T>::size; }
};

std::vector<Stretch> stretches_of(int64_t order, int64_t room, int64_t units) {
    std::vector<Stretch> all;
    for (int64_t m = 0; m < order; ++m) all.push_back({m * room, units});
    return all;
}

}  // namespace

template <typename T>
int64_t odernn_forward_scratch(const pendula_odernn_forward& a) {
    const Forward<T> plan(a);
    return plan.packed() + plan.constants() + a.batch * plan.line();
}

template <typename T>
void odernn_forward_pack(const pendula_odernn_forward& a) {
    const int64_t N = a.units, I = a.inputs;
    const Forward<T> plan(a);
    T* const packed = static_cast<T*>(a.scratch);
    // column n of the packed matrix is row n of W_0, .., W_{t-1} and U
    for (int64_t m = 0; m < a.order; ++m)
        pack(packed, plan.stacked(), m * N, static_cast<const T*>(a.W) + m * N * N, N, N, 1, N);
    pack(packed, plan.stacked(), a.order * N, static_cast<const T*>(a.U), I, N, 1, I);
    T* const constants = packed + plan.packed();
    widen(constants, a.b, N, plan.room);
    widen(constants + plan.room, a.dt, N, plan.room);
    for (int64_t m = 0; m < a.order; ++m)
        widen(constants + (2 + m) * plan.room, static_cast<const T*>(a.gamma) + m * N, N, plan.room);
}

template <typename T>
void odernn_forward_slice(const pendula_odernn_forward& a, int64_t begin, int64_t end) {
    const FlushDenormals guard;
    const Forward<T> plan(a);
    const Scheme<T> scheme(a);
    const int64_t N = a.units, I = a.inputs, B = a.batch, order = a.order, stages = a.stages, rows = end - begin;
    const int64_t room = plan.room, stride = plan.line(), point = plan.point(), state = (order + plan.linear) * N;
    const bool linear = plan.linear, semi_implicit = a.semi_implicit != 0;
    const T* const packed = static_cast<const T*>(a.scratch);
    const T *const b = packed + plan.packed(), *const dt = b + room, *const gamma = dt + room;
    T* const work = static_cast<T*>(a.scratch) + plan.packed() + plan.constants() + begin * stride;
    const std::vector<Stretch> on_point = stretches_of(order, room, N);
    const Stretch on_x[1] = {{0, I}};
    for (int64_t r = 0; r < rows; ++r) {
        const T* const Z = static_cast<const T*>(a.Z0) + (begin + r) * state;
        for (int64_t m = 0; m < order; ++m) widen(work + r * stride + m * room, Z + m * N, N, room);
        if (linear) widen(work + r * stride + plan.before(), Z + order * N, N, room);
    }
    // where the point lies that a step starts from, and the one that it leads to: with more than one stage the last one
    // no longer reads the first point
    int64_t now = 0;
    const bool past = go_past_caches<T>(a.steps * B, N, a.y, a.s);
    for (int64_t t = 0; t < a.steps; ++t) {
        const int64_t next = stages > 1 ? 0 : point - now, at_once = together<T>(stride);
        const auto place = [&](int64_t i) { return i ? i * point : now; };
        for (int64_t first = 0; first < rows; first += at_once) {
            const int64_t count = std::min(at_once, rows - first), at = t * B + begin + first;
            T* const lines = work + first * stride;
            const T* const tau = a.tau ? static_cast<const T*>(a.tau) + at : nullptr;
            if (a.kept && t && t % a.every == 0)
                for (int64_t r = 0; r < count; ++r)
                    for (int64_t m = 0; m < order; ++m)
                        copy(static_cast<T*>(a.kept) + (((t / a.every - 1) * B + begin + first + r) * order + m) * N,
                             lines + r * stride + now + m * room, N);
            product<T>(static_cast<const T*>(a.x) + at * I, I, count, on_x, 1, packed + order * N * panel_width<T>(),
                       plan.stacked(), N, [&](int64_t r, int64_t column, Vec<T> sum) {
                           T* const line = lines + r * stride + column;
                           const Vec<T> drive = sum + load(b + column);
                           store(line + plan.drive(), drive);
                           if (linear && !t) {
                               // NaN: there was none yet
                               const Vec<T> before = load(line + plan.before());
                               store(line + plan.before(), before == before ? before : drive);
                           }
                       });
            for (int64_t i = 0; i < stages; ++i) {
                T* const s_out = a.s ? static_cast<T*>(a.s) + ((t * stages + i) * B + begin + first) * N : nullptr;
                const bool last = i + 1 == stages;
                const int64_t to = last ? next : place(i + 1);
                const auto update = [&](int64_t r, int64_t column, Vec<T> sum) {
                    T* const line = lines + r * stride + column;
                    const T *const Z = line + now, *const P = line + place(i);
                    Vec<T> drive = load(line + plan.drive());
                    if (linear) {
                        const Vec<T> before = load(line + plan.before());
                        drive = before + scheme.when(i) * (drive - before);
                    }
                    const Vec<T> s = tanh<T>(sum + drive);
                    if (s_out) put_up_to(past, s_out + r * N, column, N, s);
                    Vec<T> f = s;
                    for (int64_t m = 0; m < order; ++m) f -= load(gamma + m * room + column) * load(P + m * room);
                    const bool runs = !a.lengths || t < a.lengths[begin + first + r];
                    if (last) {
                        T* const y = static_cast<T*>(a.y) + (at + r) * N;
                        if (!runs) {
                            for (int64_t m = 0; m < order && to != now; ++m)
                                store(line + to + m * room, load(Z + m * room));
                            put_up_to(past, y, column, N, Vec<T>{});
                            return;
                        }
                        if (linear) store(line + plan.before(), load(line + plan.drive()));
                    }
                    Vec<T> h = load(dt + column);
                    if (tau) h *= tau[r];
                    if (semi_implicit) {
                        Vec<T> above = f;
                        for (int64_t m = order - 1; m >= 0; --m) {
                            above = load(Z + m * room) + h * above;
                            store(line + to + m * room, above);
                        }
                    } else {
                        store(line + plan.f() + i * room, f);
                        for (int64_t m = 0; m < order; ++m) {
                            const Vec<T> slope = scheme.towards(i + 1, i + 1, [&](int64_t j) {
                                return load(m + 1 < order ? line + place(j) + (m + 1) * room
                                                          : line + plan.f() + j * room);
                            });
                            store(line + to + m * room, load(Z + m * room) + h * slope);
                        }
                    }
                    if (last) put_up_to(past, static_cast<T*>(a.y) + (at + r) * N, column, N, load(line + to));
                };
                product<T>(lines + place(i), stride, count, on_point.data(), static_cast<int>(order), packed,
                           plan.stacked(), N, update);
            }
        }
        now = next;
    }
    settle();
    for (int64_t r = 0; r < rows; ++r) {
        T* const Z = static_cast<T*>(a.Z_last) + (begin + r) * state;
        for (int64_t m = 0; m < order; ++m) copy(Z + m * N, work + r * stride + now + m * room, N);
        if (linear) copy(Z + order * N, work + r * stride + plan.before(), N);
    }
}

namespace {

// How the scratch of the backward pass is laid out, in elements.
template <typename T>
struct Backward {
    int64_t units, inputs, order, stages, every, room, taken, width;
    explicit Backward(const pendula_odernn_backward& a)
        : units(a.units),
          inputs(a.inputs),
          order(a.order),
          stages(a.stages),
          every(std::min(a.every, a.steps)),
          room(padded<T>(a.units)),
          taken(a.order * a.units),
          width(padded<T>(taken)) {}
    bool wide() const { return inputs > NARROW; }
    int64_t block() const { return order * room; }
    // W; U, packed, or narrow by columns; dt, gamma
    int64_t u_size() const { return wide() ? padded<T>(inputs) * units : inputs * room; }
    int64_t packed() const { return block() * units + u_size() + (1 + order) * room; }
    // sums of a thread: the gradients of W_0, .. side by side, of U (narrow: by columns), of b
    int64_t u_sums() const { return wide() ? units * padded<T>(inputs) : inputs * room; }
    int64_t sums() const { return units * width + u_sums() + room; }
    // of a sequence: g, G of each stage, the cotangent of the drive before, and a vector for that of h
    int64_t before() const { return (1 + stages) * block(); }
    int64_t by_scale() const { return before() + room; }
    int64_t line() const { return by_scale() + Vector<T>::size; }
    // and of the steps of a chunk: the points and the cotangents p of all stages, those of the drive, x
    int64_t sequence() const { return line() + every * (stages * (taken + room) + room + (wide() ? inputs : 0)); }
    // f of each stage; a panel beyond the end of a thread's chunk may be read
    int64_t thread() const { return sums() + stages * Vector<T>::size + panel_width<T>(); }
    int64_t size(int64_t threads, int64_t batch) const { return packed() + threads * thread() + batch * sequence(); }
};

}  // namespace

template <typename T>
int64_t odernn_backward_scratch(const pendula_odernn_backward& a) {
    return Backward<T>(a).size(a.threads, a.batch);
}

template <typename T>
void odernn_backward_pack(const pendula_odernn_backward& a) {
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs, room = plan.room;
    T* const packed = static_cast<T*>(a.scratch);
    for (int64_t m = 0; m < a.order; ++m)
        pack(packed + m * room * N, N, 0, static_cast<const T*>(a.W) + m * N * N, N, N, N, 1);
    T* const u = packed + plan.block() * N;
    const T* const U = static_cast<const T*>(a.U);
    if (plan.wide())
        pack(u, N, 0, U, N, I, I, 1);
    else
        for (int64_t i = 0; i < I; ++i)
            for (int64_t n = 0; n < room; ++n) u[i * room + n] = n < N ? U[n * I + i] : T(0);
    T* const constants = u + plan.u_size();
    widen(constants, a.dt, N, room);
    for (int64_t m = 0; m < a.order; ++m)
        widen(constants + (1 + m) * room, static_cast<const T*>(a.gamma) + m * N, N, room);
}

// The points of all steps of a chunk, from the kept one and all tanh; zero past a sequence's length. `f` is for L
// numbers of each stage.
template <typename T>
void odernn_points(const pendula_odernn_backward& a, const Backward<T>& plan, const Scheme<T>& scheme, const T* dt,
                   const T* gamma, int64_t begin, int64_t rows, int64_t first, int64_t last, T* f, T* points) {
    constexpr int64_t L = Vector<T>::size;
    const int64_t N = a.units, B = a.batch, order = a.order, stages = a.stages, taken = plan.taken, room = plan.room;
    for (int64_t t = first; t < last; ++t)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t sequence = begin + r;
            const auto place = [&](int64_t i) { return points + (((t - first) * stages + i) * rows + r) * taken; };
            T* const Z = place(0);
            if (a.lengths && t >= a.lengths[sequence]) {
                for (int64_t i = 0; i < stages; ++i) std::fill(place(i), place(i) + taken, T(0));
                continue;
            }
            if (t == first && first)
                copy(Z, static_cast<const T*>(a.kept) + ((first / a.every - 1) * B + sequence) * taken, taken);
            else if (t == first)
                copy(Z, static_cast<const T*>(a.Z0) + sequence * (taken + (a.linear ? N : 0)), taken);
            const T scale = a.tau ? static_cast<const T*>(a.tau)[t * B + sequence] : T(1);
            for (int64_t c = 0; c < N; c += L)
                for (int64_t i = 0; i < stages; ++i) {
                    const T* const P = place(i);
                    Vec<T> s = load_up_to(static_cast<const T*>(a.s) + ((t * stages + i) * B + sequence) * N, c, N);
                    for (int64_t m = 0; m < order; ++m)
                        s -= load(gamma + m * room + c) * load_up_to(P + m * N, c, N);
                    store(f + i * L, s);
                    // stage 0 of the next step lies behind the last one of this
                    if (i + 1 == stages && t + 1 == last) continue;
                    T* const to = place(i + 1);
                    const Vec<T> h = load(dt + c) * scale;
                    if (a.semi_implicit) {
                        for (int64_t m = order - 1; m >= 0; --m) {
                            s = load_up_to(Z + m * N, c, N) + h * s;
                            store_up_to(to + m * N, c, N, s);
                        }
                        continue;
                    }
                    for (int64_t m = 0; m < order; ++m) {
                        const Vec<T> slope = scheme.towards(i + 1, i + 1, [&](int64_t j) {
                            return m + 1 < order ? load_up_to(place(j) + (m + 1) * N, c, N) : load(f + j * L);
                        });
                        store_up_to(to + m * N, c, N, load_up_to(Z + m * N, c, N) + h * slope);
                    }
                }
        }
}

template <typename T>
void odernn_backward_slice(const pendula_odernn_backward& a, int64_t begin, int64_t end, int64_t thread) {
    const FlushDenormals guard;
    constexpr int64_t L = Vector<T>::size;
    const Backward<T> plan(a);
    const Scheme<T> scheme(a);
    const int64_t N = a.units, I = a.inputs, B = a.batch, order = a.order, stages = a.stages, rows = end - begin;
    const int64_t room = plan.room, stride = plan.line(), block = plan.block(), taken = plan.taken;
    const bool linear = a.linear != 0, semi_implicit = a.semi_implicit != 0, sums = a.by_dt || a.by_tau;
    const int64_t state = taken + (linear ? N : 0);
    const T* const packed = static_cast<const T*>(a.scratch);
    const T *const packed_u = packed + block * N, *const dt = packed_u + plan.u_size(), *const gamma = dt + room;
    T* const own = static_cast<T*>(a.scratch) + plan.packed() + thread * plan.thread() + begin * plan.sequence();
    T *const sum_w = own, *const sum_u = sum_w + N * plan.width, *const sum_b = sum_u + plan.u_sums();
    T *const f = own + plan.sums(), *const work = f + stages * L, *const points = work + rows * stride;
    T *const p = points + plan.every * stages * rows * taken, *const by_drive = p + plan.every * stages * rows * room;
    T* const xs = by_drive + plan.every * rows * room;
    std::fill(own, own + plan.sums(), T(0));
    for (int64_t r = 0; r < rows; ++r) {
        const T* const by_Z = static_cast<const T*>(a.by_Z) + (begin + r) * state;
        for (int64_t m = 0; m < order; ++m) widen(work + r * stride + m * room, by_Z + m * N, N, room);
        widen(work + r * stride + plan.before(), linear ? by_Z + taken : nullptr, N, room);
    }
    double* const by_dt = a.by_dt ? static_cast<double*>(a.by_dt) + thread * N : nullptr;
    double* const by_gamma = a.by_dt ? static_cast<double*>(a.by_gamma) + thread * taken : nullptr;
    const int64_t at_once = together<T>(stride);
    const Stretch on_p[1] = {{0, N}};
    for (int64_t start = (a.steps - 1) / plan.every * plan.every; start >= 0; start -= plan.every) {
        const int64_t last = std::min(start + plan.every, a.steps);
        odernn_points(a, plan, scheme, dt, gamma, begin, rows, start, last, f, points);
        for (int64_t t = last - 1; t >= start; --t)
            for (int64_t first = 0; first < rows; first += at_once) {
                const int64_t count = std::min(at_once, rows - first), at = t * B + begin + first;
                T* const lines = work + first * stride;
                T* const drives = by_drive + ((t - start) * rows + first) * room;
                const auto runs = [&](int64_t r) { return !a.lengths || t < a.lengths[begin + first + r]; };
                for (int64_t i = stages - 1; i >= 0; --i) {
                    const int64_t stage = ((t - start) * stages + i) * rows + first;
                    for (int64_t r = 0; r < count; ++r) {
                        T *const p_line = p + (stage + r) * room, *const drive_line = drives + r * room;
                        T* const line = lines + r * stride;
                        if (!runs(r)) {
                            std::fill(p_line, p_line + room, T(0));
                            std::fill(drive_line, drive_line + room, T(0));
                            continue;
                        }
                        const bool top = i + 1 == stages;
                        const T* const P = points + (stage + r) * taken;
                        const T* const s_line =
                            static_cast<const T*>(a.s) + ((t * stages + i) * B + begin + first + r) * N;
                        const T* const shown = a.by_y && top ? static_cast<const T*>(a.by_y) + (at + r) * N : nullptr;
                        const T scale = a.tau ? static_cast<const T*>(a.tau)[at + r] : T(1);
                        Vec<T> by_scale = top ? Vec<T>{} : load(line + plan.by_scale());
                        for (int64_t c = 0; c < room; c += L) {
                            T *const g = line + c, *const G = g + (1 + i) * block, *const before = g + plan.before();
                            const Vec<T> d = load(dt + c), h = d * scale, s = load_up_to(s_line, c, N);
                            if (shown) store(g, load(g) + load_up_to(shown, c, N));
                            for (int64_t m = 1; m < order && semi_implicit; ++m)
                                store(g + m * room, load(g + m * room) + h * load(g + (m - 1) * room));
                            const auto q_of = [&](int64_t m) {
                                Vec<T> q = Vec<T>{};
                                if (scheme.weight(stages, i) != 0) q = scheme.weight(stages, i) * load(g + m * room);
                                for (int64_t j = i + 1; j < stages; ++j)
                                    if (scheme.weight(j, i) != 0)
                                        q += scheme.weight(j, i) * load(g + (1 + j) * block + m * room);
                                return q;
                            };
                            const Vec<T> top_q = q_of(order - 1), by_f = h * top_q, by_a = by_f * (1 - s * s);
                            Vec<T> force = s, by_h = Vec<T>{}, q = Vec<T>{};
                            for (int64_t m = 0; m < order; ++m) {
                                const Vec<T> of_gamma = load(gamma + m * room + c);
                                Vec<T> by_point = -of_gamma * by_f;
                                if (!semi_implicit) by_point += h * q;
                                store(G + m * room, by_point);
                                if (sums) {
                                    const Vec<T> z = load_up_to(P + m * N, c, N);
                                    if (!semi_implicit) by_h += q * z;
                                    force -= of_gamma * z;
                                    if (by_dt) add_to<T>(by_gamma + m * N, c, N, -by_f * z);
                                }
                                q = m + 1 < order ? q_of(m) : top_q;
                            }
                            if (sums) {
                                by_h += top_q * force;
                                Vec<T> above = force;
                                for (int64_t m = order - 1; m > 0 && semi_implicit; --m) {
                                    above = load_up_to(P + m * N, c, N) + h * above;
                                    by_h += load(g + (m - 1) * room) * above;
                                }
                                if (by_dt) add_to<T>(by_dt, c, N, by_h * scale);
                                by_scale += by_h * d;
                            }
                            store(p_line + c, by_a);
                            const Vec<T> now = linear ? by_a * scheme.when(i) : by_a, earlier = by_a - now;
                            store(drive_line + c, now + load(top ? before : drive_line + c));
                            if (linear) store(before, top ? earlier : load(before) + earlier);
                        }
                        store(line + plan.by_scale(), by_scale);
                        if (a.by_tau && !i) static_cast<T*>(a.by_tau)[at + r] = total<T>(by_scale);
                    }
                    for (int64_t m = 0; m < order; ++m)
                        product<T>(p + stage * room, room, count, on_p, 1, packed + m * room * N, N, N,
                                   [&](int64_t r, int64_t column, Vec<T> sum) {
                                       if (!runs(r)) return;
                                       T* const g = lines + r * stride + m * room + column;
                                       T* const G = g + (1 + i) * block;
                                       sum += load(G);
                                       if (i) return store(G, sum);
                                       for (int64_t j = 1; j < stages; ++j) sum += load(g + (1 + j) * block);
                                       store(g, load(g) + sum);
                                   });
                }
                for (int64_t r = 0; r < count; ++r) {
                    if (!runs(r)) {
                        if (a.by_tau) static_cast<T*>(a.by_tau)[at + r] = T(0);
                        continue;
                    }
                    if (!linear || t) continue;
                    // where there was no drive before the first one, that one stood for it
                    const T* const given = static_cast<const T*>(a.Z0) + (begin + first + r) * state + taken;
                    T* const before = lines + r * stride + plan.before();
                    for (int64_t n = 0; n < N; ++n)
                        if (given[n] != given[n]) {
                            drives[r * room + n] += before[n];
                            before[n] = T(0);
                        }
                }
            }
        outer<T>(sum_w, N, taken, p, room, points, taken, (last - start) * stages * rows);
        for (int64_t t = start; t < last; ++t) {
            const T* const by_rows = by_drive + (t - start) * rows * room;
            const T* const x = static_cast<const T*>(a.x) + (t * B + begin) * I;
            T* const by_x = a.by_x ? static_cast<T*>(a.by_x) + (t * B + begin) * I : nullptr;
            if (plan.wide()) copy(xs + (t - start) * rows * I, x, rows * I);
            if (plan.wide() && by_x)
                product<T>(by_rows, room, rows, on_p, 1, packed_u, N, I, [&](int64_t r, int64_t column, Vec<T> sum) {
                    store_up_to(by_x + r * I, column, I, sum);
                });
            for (int64_t r = 0; r < rows; ++r) {
                const T* const line = by_rows + r * room;
                for (int64_t c = 0; c < room; c += L) store(sum_b + c, load(sum_b + c) + load(line + c));
                for (int64_t i = 0; i < I && !plan.wide(); ++i) {
                    const Vec<T> value = all(x[r * I + i]);
                    T* const sum = sum_u + i * room;
                    Vec<T> by_value = Vec<T>{};
                    for (int64_t c = 0; c < room; c += L) {
                        const Vec<T> by = load(line + c);
                        store(sum + c, load(sum + c) + value * by);
                        by_value += by * load(packed_u + i * room + c);
                    }
                    if (by_x) by_x[r * I + i] = total<T>(by_value);
                }
            }
        }
        if (plan.wide()) outer<T>(sum_u, N, I, by_drive, room, xs, I, (last - start) * rows);
    }
    for (int64_t r = 0; r < rows; ++r) {
        T* const by_Z = static_cast<T*>(a.by_Z) + (begin + r) * state;
        for (int64_t m = 0; m < order; ++m) copy(by_Z + m * N, work + r * stride + m * room, N);
        if (linear) copy(by_Z + taken, work + r * stride + plan.before(), N);
    }
}

// The sums of all threads, always in the same order.
template <typename T>
void odernn_backward_sum(const pendula_odernn_backward& a, int64_t threads) {
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs, wide_u = padded<T>(I);
    for (int64_t i = 0; i < threads; ++i) {
        const T* const sum_w = static_cast<const T*>(a.scratch) + plan.packed() + i * plan.thread() +
                               (a.batch * i / threads) * plan.sequence();
        const T *const sum_u = sum_w + N * plan.width, *const sum_b = sum_u + plan.u_sums();
        const auto into = [i](void* to, int64_t at, T value) {
            T* const line = static_cast<T*>(to) + at;
            *line = i ? *line + value : value;
        };
        for (int64_t n = 0; n < N; ++n) {
            for (int64_t m = 0; m < a.order; ++m)
                for (int64_t k = 0; k < N; ++k) into(a.by_W, (m * N + n) * N + k, sum_w[n * plan.width + m * N + k]);
            for (int64_t k = 0; k < I; ++k)
                into(a.by_U, n * I + k, plan.wide() ? sum_u[n * wide_u + k] : sum_u[k * plan.room + n]);
            into(a.by_b, n, sum_b[n]);
        }
    }
}

#define PENDULA_FOR(T)                                                                         \
    template int64_t odernn_forward_scratch<T>(const pendula_odernn_forward&);                 \
    template void odernn_forward_pack<T>(const pendula_odernn_forward&);                       \
    template void odernn_forward_slice<T>(const pendula_odernn_forward&, int64_t, int64_t);    \
    template int64_t odernn_backward_scratch<T>(const pendula_odernn_backward&);               \
    template void odernn_backward_pack<T>(const pendula_odernn_backward&);                     \
    template void odernn_backward_slice<T>(const pendula_odernn_backward&, int64_t, int64_t, int64_t); \
    template void odernn_backward_sum<T>(const pendula_odernn_backward&, int64_t);
PENDULA_FOR(float)
PENDULA_FOR(double)

}  // namespace PENDULA_ISA
}  // namespace pendula
