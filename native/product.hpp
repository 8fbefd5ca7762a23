// Rows times a packed matrix: the one product of all recurrent scans.
#pragma once

#include <type_traits>
#include <utility>

#include "narrow.hpp"
#include "simd.hpp"

namespace pendula {
namespace PENDULA_ISA {

// Register block: ROWS rows times PANEL vectors of columns are summed without touching memory.
constexpr int ROWS = 6;
constexpr int PANEL = PENDULA_VECTOR_BYTES == 64 ? 4 : 2;

template <typename T>
constexpr int64_t panel_width() {
    return PANEL * Vector<T>::size;
}

template <typename T>
constexpr int64_t padded(int64_t columns) {
    return (columns + panel_width<T>() - 1) / panel_width<T>() * panel_width<T>();
}

// The columns that one of several threads has: `from` to `whole` in whole panels, of which those up to `to` are units.
template <typename T>
struct Share {
    int64_t from, whole, to;
    Share(int64_t units, int64_t part, int64_t parts) {
        const int64_t width = panel_width<T>(), panels = padded<T>(units) / width;
        from = panels * part / parts * width;
        whole = panels * (part + 1) / parts * width;
        to = whole < units ? whole : units;
    }
    int64_t count() const { return to > from ? to - from : 0; }
};

// A stretch of a row, and how long it is: a row of operands is made of a few of these.
struct Stretch {
    int64_t offset, count;
};

// A few stretches, those that follow upon each other as one: each costs the sums a way to memory and back. More are left
// as they are.
struct Joined {
    static constexpr int FEW = 4;
    Stretch own[FEW];
    const Stretch* stretches;
    int count;
    Joined(const Stretch* given, int number) : stretches(given), count(number) {
        if (number > FEW) return;
        stretches = own;
        count = 0;
        for (int i = 0; i < number; ++i) {
            if (count && own[count - 1].offset + own[count - 1].count == given[i].offset)
                own[count - 1].count += given[i].count;
            else
                own[count++] = given[i];
        }
    }
};

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define PENDULA_TRANSPOSES 1
// In each pair of lanes that are S apart: the first of both vectors, or the second.
template <typename T, int S, int... I>
inline void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, I...>) {
    constexpr int L = Vector<T>::size;
    const Vec<T> firsts = __builtin_shufflevector(a, b, (I & S ? L + I - S : I)...);
    b = __builtin_shufflevector(a, b, (I & S ? L + I : I + S)...);
    a = firsts;
}

template <typename T, int S = 1>
inline void transpose(Vec<T>* square) {
    constexpr int L = Vector<T>::size;
    for (int i = 0; i < L; ++i)
        if (!(i & S)) exchange<T, S>(square[i], square[i + S], std::make_integer_sequence<int, L>{});
    if constexpr (2 * S < L) transpose<T, 2 * S>(square);
}
#endif
#endif

// line[k * width + c] = from[k + c * across] for k < rows and c < columns, as far as whole squares go; the rows done.
template <typename T>
inline int64_t transposed(T* line, int64_t width, const T* from, int64_t rows, int64_t columns, int64_t across) {
    int64_t k = 0;
#if PENDULA_TRANSPOSES
    constexpr int L = Vector<T>::size;
    for (; columns == width && k + L <= rows; k += L)
        for (int64_t c = 0; c < width; c += L) {
            Vec<T> square[L];
            for (int i = 0; i < L; ++i) square[i] = load(from + k + (c + i) * across);
            transpose<T>(square);
            for (int i = 0; i < L; ++i) store(line + (k + i) * width + c, square[i]);
        }
#else
    (void)line, (void)width, (void)from, (void)rows, (void)columns, (void)across;
#endif
    return k;
}

// Packs rows of `from` (element (k, c) at from[k * down + c * across]) into panels: panel by panel, row by row, the
// columns of a panel side by side, zero beyond the last column. `row` counts the packed rows of all matrices stacked.
template <typename T>
void pack(T* to, int64_t stacked_rows, int64_t row, const T* from, int64_t rows, int64_t columns, int64_t down,
          int64_t across) {
    const int64_t width = panel_width<T>();
    for (int64_t first = 0; first < padded<T>(columns); first += width) {
        const int64_t whole = columns - first < width ? columns - first : width;
        T* const panel = to + first * stacked_rows + row * width;
        const int64_t done = down == 1 ? transposed(panel, width, from + first * across, rows, whole, across) : 0;
        for (int64_t k = done; k < rows; ++k) {
            T* line = panel + k * width;
            if (across == 1 && whole == width) {
                std::memcpy(line, from + k * down + first, sizeof(T) * static_cast<std::size_t>(width));
                continue;
            }
            for (int64_t c = 0; c < width; ++c)
                line[c] = first + c < columns ? from[k * down + (first + c) * across] : T(0);
        }
    }
}

// The same in pairs where that is asked for: `stacked` and `row` then count pairs.
template <typename T>
void pack_either(bool narrow, T* to, int64_t stacked, int64_t row, const T* from, int64_t rows, int64_t columns,
                 int64_t down, int64_t across) {
    if constexpr (NARROWS<T>) {
        if (narrow) return pack_paired(to, panel_width<T>(), stacked, row, from, rows, columns, down, across);
    }
    (void)narrow;
    pack(to, stacked, row, from, rows, columns, down, across);
}

// The compiler is to hold `v` in a register, not to read it again from memory at each use.
template <typename T>
inline void hold(Vec<T>& v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__SSE2__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
}

// sums[r * P + j] = sum over the stretches of rows[r][k] * panel[k][j], j < P of the panel's vectors. Not inlined: what
// is done with the sums would take the registers of the innermost loop.
template <typename T, int R, int P>
__attribute__((noinline)) void block(Vec<T>* sums, const T* rows, int64_t stride, const Stretch* stretches, int count,
                                     const T* panel) {
    for (int part = 0; part < count; ++part) {
        Vec<T> own[R][P];
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < P; ++j) own[r][j] = part ? sums[r * P + j] : Vec<T>{};
        const T* from = rows + stretches[part].offset;
        for (int64_t k = 0; k < stretches[part].count; ++k) {
            Vec<T> weights[P];
            for (int j = 0; j < P; ++j) {
                weights[j] = load(panel + j * Vector<T>::size);
                hold<T>(weights[j]);
            }
            for (int r = 0; r < R; ++r) {
                const Vec<T> value = all(from[r * stride + k]);
                for (int j = 0; j < P; ++j) own[r][j] += value * weights[j];
            }
            panel += panel_width<T>();
        }
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < P; ++j) sums[r * P + j] = own[r][j];
    }
}

#if PENDULA_NARROW
// The same of pairs: of rows, and of a panel that `pack_paired` has packed. Stretches count pairs.
template <int R, int P>
__attribute__((noinline, target("avx512bf16"))) void narrow_block(Vec<float>* sums, const float* rows, int64_t stride,
                                                                  const Stretch* stretches, int count,
                                                                  const float* panel) {
    Vec<float> own[R][P];
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < P; ++j) own[r][j] = Vec<float>{};
    for (int part = 0; part < count; ++part) {
        const float* from = rows + stretches[part].offset;
        for (int64_t k = 0; k < stretches[part].count; ++k) {
            Vec<float> weights[P];
            for (int j = 0; j < P; ++j) {
                weights[j] = load(panel + j * Vector<float>::size);
                hold<float>(weights[j]);
            }
            for (int r = 0; r < R; ++r) {
                // a broadcast, not arithmetic: the bits of two numbers
                const Vec<float> value = _mm512_set1_ps(from[r * stride + k]);
                for (int j = 0; j < P; ++j) own[r][j] = sum_of_pairs(own[r][j], value, weights[j]);
            }
            panel += panel_width<float>();
        }
    }
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < P; ++j) sums[r * P + j] = own[r][j];
}
#endif

template <typename T, int R, int P, bool NARROW>
inline void either_block(Vec<T>* sums, const T* rows, int64_t stride, const Stretch* stretches, int count,
                         const T* panel) {
#if PENDULA_NARROW
    if constexpr (NARROW) return narrow_block<R, P>(sums, rows, stride, stretches, count, panel);
#endif
    return block<T, R, P>(sums, rows, stride, stretches, count, panel);
}

template <typename T, int P, bool NARROW>
inline void block_of(int row_count, Vec<T>* sums, const T* rows, int64_t stride, const Stretch* stretches, int count,
                     const T* panel) {
    switch (row_count) {
        case 1: return either_block<T, 1, P, NARROW>(sums, rows, stride, stretches, count, panel);
        case 2: return either_block<T, 2, P, NARROW>(sums, rows, stride, stretches, count, panel);
        case 3: return either_block<T, 3, P, NARROW>(sums, rows, stride, stretches, count, panel);
        case 4: return either_block<T, 4, P, NARROW>(sums, rows, stride, stretches, count, panel);
        case 5: return either_block<T, 5, P, NARROW>(sums, rows, stride, stretches, count, panel);
        default: return either_block<T, ROWS, P, NARROW>(sums, rows, stride, stretches, count, panel);
    }
}

// then(row, column, sum) for each row and each vector of the columns from `from` (the start of a panel) to `to`; or
// then(column)(row, sum), where what goes with the columns is read once for a few rows. Where half of the last panel is
// enough, the other half is left out.
template <typename T, bool NARROW = false, typename Then>
inline void product(const T* rows, int64_t stride, int64_t row_count, const Stretch* stretches, int count,
                    const T* packed, int64_t stacked_rows, int64_t from, int64_t to, const Then& then) {
    Vec<T> sums[ROWS * PANEL];
    const Joined joined(stretches, count);
    for (int64_t column = from; column < to; column += panel_width<T>()) {
        const T* panel = packed + column * stacked_rows;
        const int vectors = to - column > panel_width<T>() / 2 ? PANEL : PANEL / 2;
        for (int64_t row = 0; row < row_count; row += ROWS) {
            const int taken = row + ROWS <= row_count ? ROWS : static_cast<int>(row_count - row);
            if (vectors == PANEL)
                block_of<T, PANEL, NARROW>(taken, sums, rows + row * stride, stride, joined.stretches, joined.count,
                                            panel);
            else
                block_of<T, PANEL / 2, NARROW>(taken, sums, rows + row * stride, stride, joined.stretches, joined.count,
                                            panel);
            if constexpr (std::is_invocable_v<Then, int64_t>) {
                for (int j = 0; j < vectors; ++j) {
                    const auto each = then(column + j * Vector<T>::size);
                    for (int r = 0; r < taken; ++r) each(row + r, sums[r * vectors + j]);
                }
            } else {
                for (int r = 0; r < taken; ++r)
                    for (int j = 0; j < vectors; ++j)
                        then(row + r, column + j * Vector<T>::size, sums[r * vectors + j]);
            }
        }
    }
}

// the same over all columns
template <typename T, bool NARROW = false, typename Then>
inline void product(const T* rows, int64_t stride, int64_t row_count, const Stretch* stretches, int count,
                    const T* packed, int64_t stacked_rows, int64_t columns, const Then& then) {
    product<T, NARROW>(rows, stride, row_count, stretches, count, packed, stacked_rows, int64_t{0}, columns, then);
}

// the same of pairs, or number by number, from operands and a matrix that are so
template <typename T, typename Then>
inline void product_either(bool narrow, const T* rows, int64_t stride, int64_t row_count, const Stretch* stretches,
                           int count, const T* packed, int64_t stacked, int64_t from, int64_t to, const Then& then) {
    if (NARROWS<T> && narrow)
        product<T, NARROWS<T>>(rows, stride, row_count, stretches, count, packed, stacked, from, to, then);
    else
        product<T>(rows, stride, row_count, stretches, count, packed, stacked, from, to, then);
}

// Rows of `left` and of `right` that all blocks of the result pass over in turn: so few that they stay in the first
// cache, or more where the result itself is too large to be read and written often.
template <typename T>
inline int64_t depth_at_once(int64_t result) {
    return result * static_cast<int64_t>(sizeof(T)) > 1 << 20 ? 512 : 64;
}

template <typename T, int R, int P>
__attribute__((noinline)) void outer_block(T* sums, int64_t width, const T* left, int64_t left_stride,
                                           const T* right, int64_t right_stride, int64_t depth) {
    Vec<T> block[R][P];
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < P; ++j) block[r][j] = load(sums + r * width + j * Vector<T>::size);
    for (int64_t m = 0; m < depth; ++m) {
        Vec<T> across[P];
        for (int j = 0; j < P; ++j) {
            across[j] = load(right + m * right_stride + j * Vector<T>::size);
            hold<T>(across[j]);
        }
        for (int r = 0; r < R; ++r) {
            const Vec<T> value = all(left[m * left_stride + r]);
            for (int j = 0; j < P; ++j) block[r][j] += value * across[j];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < P; ++j) store(sums + r * width + j * Vector<T>::size, block[r][j]);
}

template <typename T, int P>
inline void outer_panel(T* sums, int64_t width, int64_t units, const T* left, int64_t left_stride, const T* right,
                        int64_t right_stride, int64_t depth) {
    for (int64_t n = 0; n < units; n += ROWS) {
        T* const into = sums + n * width;
        const T* const l = left + n;
        switch (units - n) {
            case 1: outer_block<T, 1, P>(into, width, l, left_stride, right, right_stride, depth); break;
            case 2: outer_block<T, 2, P>(into, width, l, left_stride, right, right_stride, depth); break;
            case 3: outer_block<T, 3, P>(into, width, l, left_stride, right, right_stride, depth); break;
            case 4: outer_block<T, 4, P>(into, width, l, left_stride, right, right_stride, depth); break;
            case 5: outer_block<T, 5, P>(into, width, l, left_stride, right, right_stride, depth); break;
            default: outer_block<T, ROWS, P>(into, width, l, left_stride, right, right_stride, depth);
        }
    }
}

// sums[n][k] += sum over m of left[m][n] * right[m][k], for n < units and k < columns. A line of `sums` has room for
// whole panels; what lies beyond the last column is garbage, and `right` is read up to a panel beyond its end.
template <typename T>
inline void outer(T* sums, int64_t units, int64_t columns, const T* left, int64_t left_stride, const T* right,
                  int64_t right_stride, int64_t rows) {
    const int64_t width = padded<T>(columns), at_once = depth_at_once<T>(units * width);
    for (int64_t from = 0; from < rows; from += at_once) {
        const int64_t depth = from + at_once < rows ? at_once : rows - from;
        const T *const lefts = left + from * left_stride, *const rights = right + from * right_stride;
        for (int64_t column = 0; column < columns; column += panel_width<T>()) {
            T* const into = sums + column;
            const T* const across = rights + column;
            if (columns - column > panel_width<T>() / 2)
                outer_panel<T, PANEL>(into, width, units, lefts, left_stride, across, right_stride, depth);
            else
                outer_panel<T, PANEL / 2>(into, width, units, lefts, left_stride, across, right_stride, depth);
        }
    }
}

}  // namespace PENDULA_ISA
}  // namespace pendula
