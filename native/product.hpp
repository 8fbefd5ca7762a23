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

// then(row, column, sum) for each row and each vector of columns of rows x packed; columns count from `from_panel`.
template <typename T, typename Then>
inline void product(const T* rows, int64_t stride, int64_t row_count, const Stretch* stretches, int count,
                    const T* packed, int64_t stacked_rows, int64_t columns, const Then& then) {
    for (int64_t column = 0; column < columns; column += panel_width<T>()) {
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

}  // namespace PENDULA_ISA
}  // namespace pendula
