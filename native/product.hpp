// Rows times a packed matrix: the one product of all recurrent scans.
#pragma once

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

// A stretch of a row, and how long it is: a row of operands is made of a few of these.
struct Stretch {
    int64_t offset, count;
};

// Packs rows of `from` (element (k, c) at from[k * down + c * across]) into panels: panel by panel, row by row, the
// columns of a panel side by side, zero beyond the last column. `row` counts the packed rows of all matrices stacked.
template <typename T>
void pack(T* to, int64_t stacked_rows, int64_t row, const T* from, int64_t rows, int64_t columns, int64_t down,
          int64_t across) {
    const int64_t width = panel_width<T>();
    for (int64_t first = 0; first < padded<T>(columns); first += width)
        for (int64_t k = 0; k < rows; ++k) {
            T* line = to + first * stacked_rows + (row + k) * width;
            for (int64_t c = 0; c < width; ++c)
                line[c] = first + c < columns ? from[k * down + (first + c) * across] : T(0);
        }
}

// sums[r][j] = sum over the stretches of rows[r][k] * panel[k][j]
template <typename T, int R>
inline void block(Vec<T> (&sums)[R][PANEL], const T* rows, int64_t stride, const Stretch* stretches, int count,
                  const T* panel) {
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < PANEL; ++j) sums[r][j] = Vec<T>{};
    for (int part = 0; part < count; ++part) {
        const T* from = rows + stretches[part].offset;
        for (int64_t k = 0; k < stretches[part].count; ++k) {
            Vec<T> weights[PANEL];
            for (int j = 0; j < PANEL; ++j) weights[j] = load(panel + j * Vector<T>::size);
            for (int r = 0; r < R; ++r) {
                const Vec<T> value = all(from[r * stride + k]);
                for (int j = 0; j < PANEL; ++j) sums[r][j] += value * weights[j];
            }
            panel += panel_width<T>();
        }
    }
}

template <typename T, int R, typename Then>
inline void block_then(const T* rows, int64_t stride, const Stretch* stretches, int count, const T* panel,
                       int64_t first_row, int64_t column, const Then& then) {
    Vec<T> sums[R][PANEL];
    block<T, R>(sums, rows + first_row * stride, stride, stretches, count, panel);
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < PANEL; ++j) then(first_row + r, column + j * Vector<T>::size, sums[r][j]);
}

// then(row, column, sum) for each row and each vector of the columns from `from` (the start of a panel) to `to`
template <typename T, typename Then>
inline void product(const T* rows, int64_t stride, int64_t row_count, const Stretch* stretches, int count,
                    const T* packed, int64_t stacked_rows, int64_t from, int64_t to, const Then& then) {
    for (int64_t column = from; column < to; column += panel_width<T>()) {
        const T* panel = packed + column * stacked_rows;
        int64_t row = 0;
        for (; row + ROWS <= row_count; row += ROWS)
            block_then<T, ROWS>(rows, stride, stretches, count, panel, row, column, then);
        switch (row_count - row) {
            case 5: block_then<T, 5>(rows, stride, stretches, count, panel, row, column, then); break;
            case 4: block_then<T, 4>(rows, stride, stretches, count, panel, row, column, then); break;
            case 3: block_then<T, 3>(rows, stride, stretches, count, panel, row, column, then); break;
            case 2: block_then<T, 2>(rows, stride, stretches, count, panel, row, column, then); break;
            case 1: block_then<T, 1>(rows, stride, stretches, count, panel, row, column, then); break;
            default: break;
        }
    }
}

// the same over all columns
template <typename T, typename Then>
inline void product(const T* rows, int64_t stride, int64_t row_count, const Stretch* stretches, int count,
                    const T* packed, int64_t stacked_rows, int64_t columns, const Then& then) {
    product<T>(rows, stride, row_count, stretches, count, packed, stacked_rows, int64_t{0}, columns, then);
}

// Rows of `left` and of `right` that all blocks of the result pass over in turn: so few that they stay in the first
// cache, or more where the result itself is too large to be read and written often.
template <typename T>
inline int64_t depth_at_once(int64_t result) {
    return result * static_cast<int64_t>(sizeof(T)) > 1 << 20 ? 512 : 64;
}

template <typename T, int R>
inline void outer_block(T* sums, int64_t width, const T* left, int64_t left_stride, const T* right,
                        int64_t right_stride, int64_t depth) {
    Vec<T> block[R][PANEL];
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < PANEL; ++j) block[r][j] = load(sums + r * width + j * Vector<T>::size);
    for (int64_t m = 0; m < depth; ++m) {
        Vec<T> across[PANEL];
        for (int j = 0; j < PANEL; ++j) across[j] = load(right + m * right_stride + j * Vector<T>::size);
        for (int r = 0; r < R; ++r) {
            const Vec<T> value = all(left[m * left_stride + r]);
            for (int j = 0; j < PANEL; ++j) block[r][j] += value * across[j];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < PANEL; ++j) store(sums + r * width + j * Vector<T>::size, block[r][j]);
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
            for (int64_t n = 0; n < units; n += ROWS) {
                T* const into = sums + n * width + column;
                const T *const l = lefts + n, *const r = rights + column;
                switch (units - n) {
                    case 1: outer_block<T, 1>(into, width, l, left_stride, r, right_stride, depth); break;
                    case 2: outer_block<T, 2>(into, width, l, left_stride, r, right_stride, depth); break;
                    case 3: outer_block<T, 3>(into, width, l, left_stride, r, right_stride, depth); break;
                    case 4: outer_block<T, 4>(into, width, l, left_stride, r, right_stride, depth); break;
                    case 5: outer_block<T, 5>(into, width, l, left_stride, r, right_stride, depth); break;
                    default: outer_block<T, ROWS>(into, width, l, left_stride, r, right_stride, depth);
                }
            }
        }
    }
}

}  // namespace PENDULA_ISA
}  // namespace pendula
