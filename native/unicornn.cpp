// UnICORNN: the whole scan of a slice of the batch, and its adjoint (spec sheet unicornn.md 1.2, 3.1, 3.2).
#include "isa.hpp"
#include "lines.hpp"
#include "product.hpp"

namespace pendula {
namespace PENDULA_ISA {
namespace {

// Some rows at a time go through all steps, so that their states stay in the second cache.
constexpr int64_t FORWARD_AT_ONCE = 1 << 15, BACKWARD_AT_ONCE = 1 << 13;
// Rows of the drive's cotangents that are kept until the gradients of V and x are summed.
constexpr int64_t ROWS_AT_ONCE = 256;

// Inputs up to here are multiplied number by number backward: a panel of columns would be mostly padding.
constexpr int64_t NARROW = 16;
// Up to here making pairs of them costs what narrow products save.
constexpr int64_t ROUNDED_BEYOND = 32;

template <typename T, typename Arguments>
bool rounds(const Arguments& a) {
    return NARROWS<T> && a.narrow && a.inputs > ROUNDED_BEYOND;
}

int64_t rows_at_once(int64_t elements, int64_t units, int64_t rows) {
    int64_t together = elements / units / ROWS * ROWS;
    if (together < ROWS) together = ROWS;
    return together < rows ? together : rows;
}

// The packed V and, with room for whole panels, w, h, alpha and b.
template <typename T>
struct Constants {
    const T *V, *w, *h, *alpha, *b;
    static int64_t size(int64_t units, int64_t inputs) { return padded<T>(units) * (inputs + 4); }
    Constants(const void* from, int64_t units, int64_t inputs) {
        const int64_t room = padded<T>(units);
        V = static_cast<const T*>(from);
        w = V + room * inputs;
        h = w + room;
        alpha = h + room;
        b = alpha + room;
    }
    template <typename Arguments>
    static void pack_into(T* to, const Arguments& a) {
        const int64_t N = a.units, I = a.inputs, room = padded<T>(N);
        pack_either(rounds<T>(a), to, lines<T>(rounds<T>(a), I), 0, static_cast<const T*>(a.V), I, N, 1, I);
        const void* from[4] = {a.w, a.h, a.alpha, a.b};
        for (int i = 0; i < 4; ++i) widen(to + room * (I + i), from[i], N, room);
    }
};

// Rows of the input: as they are, or made pairs at `room`.
template <typename T>
inline const T* operands(bool narrow, T* room, const T* x, int64_t rows, int64_t inputs) {
    for (int64_t r = 0; narrow && r < rows; ++r) pair_up(narrow, room + r * pairs(inputs), x + r * inputs, inputs);
    return narrow ? room : x;
}

}  // namespace

template <typename T>
int64_t unicornn_forward_scratch(const pendula_unicornn_forward& a) {
    // threads that share the units have pairs of their own
    const int64_t in_pairs = rounds<T>(a) ? (a.batch < a.threads ? a.threads : 1) * a.batch * pairs(a.inputs) : 0;
    return Constants<T>::size(a.units, a.inputs) + 2 * a.batch * padded<T>(a.units) + in_pairs;
}

template <typename T>
void unicornn_forward_pack(const pendula_unicornn_forward& a) {
    Constants<T>::pack_into(static_cast<T*>(a.scratch), a);
}

// Sequences begin to end - 1, and of these the units of some panels: no unit sees another one of its layer.
template <typename T>
void unicornn_forward_slice(const pendula_unicornn_forward& a, int64_t begin, int64_t end, int64_t part,
                            int64_t parts) {
    const FlushDenormals guard;
    const int64_t N = a.units, I = a.inputs, B = a.batch, room = padded<T>(N);
    const Share<T> share(N, part, parts);
    const int64_t from = share.from, whole = share.whole, to = share.to;
    const Constants<T> constants(a.scratch, N, I);
    const bool narrow = rounds<T>(a);
    const int64_t wide = lines<T>(narrow, I), together = rows_at_once(FORWARD_AT_ONCE, N, end - begin);
    const Stretch taken[1] = {{0, wide}};
    const bool past = go_past_caches<T>(a.steps * B, N, a.outputs, a.s);
    T* const lines_from = static_cast<T*>(a.scratch) + Constants<T>::size(N, I);
    for (int64_t first = begin; first < end; first += together) {
        const int64_t rows = first + together < end ? together : end - first;
        T *const y_lines = lines_from + 2 * first * room, *const z_lines = y_lines + rows * room;
        T* const in_pairs = lines_from + 2 * B * room + (part * B + first) * pairs(I);
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t at = (first + r) * N + from;
            widen(y_lines + r * room + from, static_cast<const T*>(a.y) + at, to - from, whole - from);
            widen(z_lines + r * room + from, static_cast<const T*>(a.z) + at, to - from, whole - from);
        }
        for (int64_t t = 0; t < a.steps; ++t) {
            if (a.kept && t && t % a.every == 0)
                for (int64_t r = 0; r < rows; ++r) {
                    T* const kept = static_cast<T*>(a.kept) + ((t / a.every - 1) * 2 * B + first + r) * N + from;
                    copy(kept, y_lines + r * room + from, to - from);
                    copy(kept + B * N, z_lines + r * room + from, to - from);
                }
            const T* const tau = a.tau ? static_cast<const T*>(a.tau) + t * B + first : nullptr;
            T* const shown_lines = static_cast<T*>(a.outputs) + (t * B + first) * N;
            T* const s_lines = a.s ? static_cast<T*>(a.s) + (t * B + first) * N : nullptr;
            const auto step = [&](int64_t r, int64_t column, Vec<T> sum) {
                T *const y_line = y_lines + r * room + column, *const z_line = z_lines + r * room + column;
                const Vec<T> y = load(y_line), z = load(z_line);
                Vec<T> h = load(constants.h + column);
                if (tau) h *= tau[r];
                const Vec<T> s = tanh<T>(load(constants.w + column) * y + (sum + load(constants.b + column)));
                Vec<T> z_new = z - h * (s + load(constants.alpha + column) * y);
                Vec<T> y_new = y + h * z_new, shown = y_new;
                if (a.lengths && t >= a.lengths[first + r]) {
                    z_new = z;
                    y_new = y;
                    shown = Vec<T>{};
                }
                store(z_line, z_new);
                store(y_line, y_new);
                put_up_to(past, shown_lines + r * N, column, N, shown);
                if (s_lines) put_up_to(past, s_lines + r * N, column, N, s);
            };
            const T* const x = operands(narrow, in_pairs, static_cast<const T*>(a.x) + (t * B + first) * I, rows, I);
            product_either(narrow, x, wide, rows, taken, 1, constants.V, wide, from, to, step);
        }
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t at = (first + r) * N + from;
            copy(static_cast<T*>(a.y) + at, y_lines + r * room + from, to - from);
            copy(static_cast<T*>(a.z) + at, z_lines + r * room + from, to - from);
        }
    }
    settle();
}

namespace {

// Lines of a sequence in the backward pass, each with room for whole panels.
enum Line { Y, Z, BY_Y, BY_Z, BY_W, BY_H, BY_ALPHA, BY_B, LINES };

// How the scratch of the backward pass is laid out, in elements.
template <typename T>
struct Backward {
    int64_t units, inputs, room, together, steps;
    bool narrow;
    explicit Backward(const pendula_unicornn_backward& a)
        : units(a.units),
          inputs(a.inputs),
          room(padded<T>(a.units)),
          together(rows_at_once(BACKWARD_AT_ONCE, a.units, a.batch)),
          steps(together < ROWS_AT_ONCE ? ROWS_AT_ONCE / together : 1),
          narrow(rounds<T>(a)) {
        if (steps > a.steps) steps = a.steps;
    }
    bool wide() const { return inputs > NARROW; }
    // V once more for the gradient of the input: packed, or narrow by columns
    int64_t turned() const { return wide() ? padded<T>(inputs) * units : inputs * room; }
    int64_t packed() const { return Constants<T>::size(units, inputs) + turned(); }
    // sums of a thread: of V, or of narrow V by columns
    int64_t sums() const { return wide() ? units * padded<T>(inputs) : inputs * room; }
    // of a sequence: lines, a vector for the step's length, and for narrow products the input of a step
    int64_t sequence() const { return LINES * room + Vector<T>::size + (narrow ? pairs(inputs) : 0); }
    // of a step: the cotangents of the drive, in pairs too for narrow products, and of its length, and the wide input
    int64_t step() const { return units + (narrow ? room / 2 : 0) + 1 + (wide() ? inputs : 0); }
    // a panel beyond its end may be read
    int64_t thread() const { return sums() + together * (sequence() + steps * step()) + panel_width<T>(); }
    int64_t size(int64_t threads) const { return packed() + threads * thread(); }
};

}  // namespace

template <typename T>
int64_t unicornn_backward_scratch(const pendula_unicornn_backward& a) {
    return Backward<T>(a).size(a.threads);
}

template <typename T>
void unicornn_backward_pack(const pendula_unicornn_backward& a) {
    const int64_t N = a.units, I = a.inputs;
    const Backward<T> plan(a);
    Constants<T>::pack_into(static_cast<T*>(a.scratch), a);
    T* const turned = static_cast<T*>(a.scratch) + Constants<T>::size(N, I);
    if (plan.wide())
        pack_either(plan.narrow, turned, lines<T>(plan.narrow, N), 0, static_cast<const T*>(a.V), N, I, I, 1);
    else
        for (int64_t i = 0; i < I; ++i)
            for (int64_t n = 0; n < plan.room; ++n)
                turned[i * plan.room + n] = n < N ? static_cast<const T*>(a.V)[n * I + i] : T(0);
}

// Sequences begin to end - 1. A team of threads has the same ones, and each of its parts some panels of units; where
// the cotangents of the drive of all units are needed, each part has some steps.
template <typename T>
void unicornn_backward_slice(const pendula_unicornn_backward& a, int64_t begin, int64_t end, int64_t thread,
                             const Team& team) {
    const FlushDenormals guard;
    constexpr int64_t L = Vector<T>::size;
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs, B = a.batch, room = plan.room;
    const bool narrow = plan.narrow;
    const Constants<T> constants(a.scratch, N, I);
    const T* const turned = constants.b + room;
    T* const sum_V = static_cast<T*>(a.scratch) + plan.packed() + thread * plan.thread();
    T* const work = sum_V + plan.sums();
    T *const by_tau = work + LINES * plan.together * room, *const x_pairs = by_tau + plan.together * L;
    // all parts write the cotangents of the drive beside one another, at the place of the first
    T* const own_p = work + plan.together * plan.sequence();
    T* const p = own_p - team.part * plan.thread();
    const int64_t at_once = plan.steps * plan.together;
    T *const p_pairs = p + at_once * N, *const tau_sums = own_p + at_once * (plan.step() - (plan.wide() ? I : 0) - 1);
    T* const took = tau_sums + at_once;
    const Share<T> share(N, team.part, team.parts);
    const int64_t from = share.from, whole = share.whole, to = share.to;
    for (int64_t i = 0; i < plan.sums(); ++i) sum_V[i] = T(0);
    const int64_t wide = lines<T>(narrow, I), own = lines<T>(narrow, N);
    const Stretch taken[1] = {{0, wide}}, adjoint[1] = {{0, own}};
    for (int64_t first = begin; first < end; first += plan.together) {
        const int64_t rows = first + plan.together < end ? plan.together : end - first;
        const auto line = [&](Line which, int64_t r) { return work + (which * plan.together + r) * room; };
        const auto state = [&](const void* y, const void* z) {
            for (int64_t r = 0; r < rows; ++r) {
                const int64_t at = (first + r) * N + from;
                widen(line(Y, r) + from, static_cast<const T*>(y) + at, to - from, whole - from);
                widen(line(Z, r) + from, static_cast<const T*>(z) + at, to - from, whole - from);
            }
        };
        state(a.y, a.z);
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t at = (first + r) * N + from;
            widen(line(BY_Y, r) + from, static_cast<const T*>(a.by_y) + at, to - from, whole - from);
            widen(line(BY_Z, r) + from, static_cast<const T*>(a.by_z) + at, to - from, whole - from);
            for (int which = BY_W; which < LINES; ++which)
                widen<T>(line(Line(which), r) + from, nullptr, 0, whole - from);
        }
        for (int64_t last = a.steps; last > 0; last -= plan.steps) {
            const int64_t start = last > plan.steps ? last - plan.steps : 0;
            for (int64_t t = last - 1; t >= start; --t) {
                if (a.kept && t + 1 < a.steps && (t + 1) % a.every == 0) {
                    const T* const kept = static_cast<const T*>(a.kept) + ((t + 1) / a.every - 1) * 2 * B * N;
                    state(kept, kept + B * N);
                }
                const int64_t at = (t * B + first) * N;
                T* const p_lines = p + (t - start) * rows * N;
                T* const p_in_pairs = p_pairs + (t - start) * rows * (room / 2);
                const T* const x = static_cast<const T*>(a.x) + (t * B + first) * I;
                const T* const s_lines = a.s ? static_cast<const T*>(a.s) + at : nullptr;
                const T* const shown = a.by_outputs ? static_cast<const T*>(a.by_outputs) + at : nullptr;
                const T* const before = !a.outputs ? nullptr
                                        : t        ? static_cast<const T*>(a.outputs) + at - B * N
                                                   : static_cast<const T*>(a.y0) + first * N;
                const T* const tau = a.tau ? static_cast<const T*>(a.tau) + t * B + first : nullptr;
                if (plan.wide()) copy(took + (t - start) * rows * I, x, rows * I);
                if (tau)
                    for (int64_t i = 0; i < rows * L; ++i) by_tau[i] = T(0);
                const int64_t back = ahead_of(t, B * N, rows * N);
                const auto undo = [&](int64_t r, int64_t c, Vec<T> sum) __attribute__((always_inline)) {
                    T* const p_line = p_lines + r * N;
                    if (a.lengths && t >= a.lengths[first + r]) {
                        store_up_to(p_line, c, N, Vec<T>{});
                        pair_up<T>(narrow, p_in_pairs + (r * room + c) / 2, Vec<T>{});
                        return;
                    }
                    if (before) expect(before + r * N + c - back);
                    if (s_lines) expect(s_lines + r * N + c - back);
                    if (shown) expect(shown + r * N + c - back);
                    const Vec<T> w = load(constants.w + c), alpha = load(constants.alpha + c);
                    const Vec<T> scale = load(constants.h + c), h = tau ? scale * tau[r] : scale;
                    const Vec<T> z = load(line(Z, r) + c);
                    const Vec<T> y = before ? load_up_to(before + r * N, c, N) : load(line(Y, r) + c) - h * z;
                    const Vec<T> s = s_lines ? sum : tanh<T>(w * y + (sum + load(constants.b + c)));
                    const Vec<T> f = s + alpha * y;
                    Vec<T> gy = load(line(BY_Y, r) + c), gz = load(line(BY_Z, r) + c);
                    if (shown) gy += load_up_to(shown + r * N, c, N);
                    gz += h * gy;
                    const Vec<T> pull = h * gz, by_drive = pull * (s * s - 1), by_h = gy * z - gz * f;
                    store_up_to(p_line, c, N, by_drive);
                    pair_up<T>(narrow, p_in_pairs + (r * room + c) / 2, by_drive);
                    const auto add = [&](Line which, Vec<T> more) {
                        T* const sum_line = line(which, r) + c;
                        store(sum_line, load(sum_line) + more);
                    };
                    add(BY_W, by_drive * y);
                    add(BY_H, tau ? by_h * tau[r] : by_h);
                    add(BY_ALPHA, -pull * y);
                    add(BY_B, by_drive);
                    if (tau) store(by_tau + r * L, load(by_tau + r * L) + by_h * scale);
                    store(line(BY_Y, r) + c, gy + by_drive * w - alpha * pull);
                    store(line(BY_Z, r) + c, gz);
                    if (!before) store(line(Y, r) + c, y);
                    store(line(Z, r) + c, z + h * f);
                };
                if (s_lines)
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t c = from; c < to; c += L) undo(r, c, load_up_to(s_lines + r * N, c, N));
                else
                    product_either(narrow, operands(narrow, x_pairs, x, rows, I), wide, rows, taken, 1, constants.V,
                                   wide, from, to, undo);
                for (int64_t r = 0; tau && r < rows; ++r)
                    tau_sums[(t - start) * rows + r] = total<T>(load(by_tau + r * L));
                for (int64_t i = 0; !plan.wide() && i < I; ++i)
                    for (int64_t c = from; c < to; c += L) {
                        Vec<T> sum = load(sum_V + i * room + c);
                        for (int64_t r = 0; r < rows; ++r) sum += all(x[r * I + i]) * load_up_to(p_lines + r * N, c, N);
                        store(sum_V + i * room + c, sum);
                    }
            }
            const int64_t width = padded<T>(I);
            if (plan.wide())
                outer<T>(sum_V + from * width, to - from, I, p + from, N, took, I, (last - start) * rows);
            team.meet();
            for (int64_t t = last - 1; t >= start; --t) {
                if (t % team.parts != team.part) continue;
                const T* const p_lines = p + (t - start) * rows * N;
                const T* const p_in_pairs = p_pairs + (t - start) * rows * (room / 2);
                for (int64_t r = 0; a.tau && r < rows; ++r) {
                    T sum = 0;
                    for (int64_t i = 0; i < team.parts; ++i)
                        sum += tau_sums[(i - team.part) * plan.thread() + (t - start) * rows + r];
                    static_cast<T*>(a.by_tau)[t * B + first + r] = sum;
                }
                T* const by_x = a.by_x ? static_cast<T*>(a.by_x) + (t * B + first) * I : nullptr;
                const auto to_x = [&](int64_t r, int64_t c, Vec<T> sum) { store_up_to(by_x + r * I, c, I, sum); };
                if (by_x && plan.wide())
                    product_either(narrow, narrow ? p_in_pairs : p_lines, narrow ? room / 2 : N, rows, adjoint, 1,
                                   turned, own, 0, I, to_x);
                for (int64_t r = 0; by_x && !plan.wide() && r < rows; ++r)
                    for (int64_t i = 0; i < I; ++i) {
                        Vec<T> sum = Vec<T>{};
                        for (int64_t c = 0; c < N; c += L)
                            sum += load_up_to(p_lines + r * N, c, N) * load(turned + i * room + c);
                        by_x[r * I + i] = total<T>(sum);
                    }
            }
            team.meet();
        }
        const auto give = [&](void* into, Line which) {
            for (int64_t r = 0; r < rows; ++r)
                copy(static_cast<T*>(into) + (first + r) * N + from, line(which, r) + from, to - from);
        };
        give(a.by_y, BY_Y);
        give(a.by_z, BY_Z);
        give(a.by_w, BY_W);
        give(a.by_h, BY_H);
        give(a.by_alpha, BY_ALPHA);
        give(a.by_b, BY_B);
    }
}

// The sums of all threads, always in the same order.
template <typename T>
void unicornn_backward_sum(const pendula_unicornn_backward& a, int64_t threads) {
    const Backward<T> plan(a);
    const int64_t N = a.units, I = a.inputs, width = padded<T>(I);
    for (int64_t i = 0; i < threads; ++i) {
        const T* const sums = static_cast<const T*>(a.scratch) + plan.packed() + i * plan.thread();
        for (int64_t n = 0; n < N; ++n)
            for (int64_t k = 0; k < I; ++k) {
                T* const into = static_cast<T*>(a.by_V) + n * I + k;
                const T more = plan.wide() ? sums[n * width + k] : sums[k * plan.room + n];
                *into = i ? *into + more : more;
            }
    }
}

#define PENDULA_FOR(T)                                                                                         \
    template int64_t unicornn_forward_scratch<T>(const pendula_unicornn_forward&);                             \
    template void unicornn_forward_pack<T>(const pendula_unicornn_forward&);                                   \
    template void unicornn_forward_slice<T>(const pendula_unicornn_forward&, int64_t, int64_t, int64_t, int64_t); \
    template int64_t unicornn_backward_scratch<T>(const pendula_unicornn_backward&);                           \
    template void unicornn_backward_pack<T>(const pendula_unicornn_backward&);                                 \
    template void unicornn_backward_slice<T>(const pendula_unicornn_backward&, int64_t, int64_t, int64_t,      \
                                             const Team&);                                                     \
    template void unicornn_backward_sum<T>(const pendula_unicornn_backward&, int64_t);
PENDULA_FOR(float)
PENDULA_FOR(double)

}  // namespace PENDULA_ISA
}  // namespace pendula
