// Products of bfloat16 numbers, summed in float: two numbers stand in the place of one float.
#pragma once

#include "simd.hpp"

// by any compiler that knows the instruction; whether the processor has it is asked at run time
#if defined(__AVX512F__) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10)
#define PENDULA_NARROW 1
#else
#define PENDULA_NARROW 0
#endif

namespace pendula {
namespace PENDULA_ISA {

// Whether products of a type can be those of bfloat16 numbers.
template <typename T>
constexpr bool NARROWS = PENDULA_NARROW && sizeof(T) == sizeof(float);

inline int64_t pairs(int64_t count) { return (count + 1) / 2; }

// Rows of a packed matrix that so many operands meet.
template <typename T>
inline int64_t lines(bool narrow, int64_t count) {
    return NARROWS<T> && narrow ? pairs(count) : count;
}

// The nearest bfloat16, the even one of two.
inline uint32_t rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (value != value) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline float paired(float low, float high) {
    const uint32_t bits = rounded(low) | rounded(high) << 16;
    float both;
    std::memcpy(&both, &bits, sizeof(both));
    return both;
}

#if PENDULA_NARROW
__attribute__((target("avx512bf16"))) inline void copy_paired(float* to, const float* from, int64_t count) {
    int64_t i = 0;
    for (; i + Vector<float>::size <= count; i += Vector<float>::size) {
        const __m256bh halves = _mm512_cvtneps_pbh(load(from + i));
        std::memcpy(to + i / 2, &halves, sizeof(halves));
    }
    for (; i < count; i += 2) to[i / 2] = paired(from[i], i + 1 < count ? from[i + 1] : 0.0f);
}
#endif

// As `pack`, with two rows in the place of one: `pair` counts them.
inline void pack_paired(float* to, int64_t width, int64_t stacked_pairs, int64_t pair, const float* from, int64_t rows,
                        int64_t columns, int64_t down, int64_t across) {
    for (int64_t first = 0; first < columns; first += width)
        for (int64_t k = 0; k < rows; k += 2) {
            float* line = to + first * stacked_pairs + (pair + k / 2) * width;
            for (int64_t c = 0; c < width; ++c) {
                const float* const at = from + k * down + (first + c) * across;
                line[c] = first + c < columns ? paired(at[0], k + 1 < rows ? at[down] : 0.0f) : 0.0f;
            }
        }
}

#if PENDULA_NARROW

// A vector in pairs, which take half of it. What is not a number is one that arithmetic has made.
inline void store_paired(float* to, Vec<float> v) {
    typedef int16_t Halves __attribute__((vector_size(PENDULA_VECTOR_BYTES / 2)));
    Vector<float>::bits raw;
    std::memcpy(&raw, &v, sizeof(raw));
    raw += 0x7fff + (raw >> 16 & 1);
    const Halves halves = __builtin_convertvector(raw >> 16, Halves);
    std::memcpy(to, &halves, sizeof(halves));
}

// sum + the products of both numbers of each pair
__attribute__((target("avx512bf16"))) inline Vec<float> sum_of_pairs(Vec<float> sum, Vec<float> a, Vec<float> b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

#endif

// In pairs as well, where that is asked for: a vector; some numbers.
template <typename T>
inline void pair_up(bool narrow, T* to, Vec<T> v) {
    if constexpr (NARROWS<T>) {
        if (narrow) store_paired(to, v);
    }
    (void)narrow, (void)to, (void)v;
}

template <typename T>
inline void pair_up(bool narrow, T* to, const T* from, int64_t count) {
    if constexpr (NARROWS<T>) {
        if (narrow) copy_paired(to, from, count);
    }
    (void)narrow, (void)to, (void)from, (void)count;
}

}  // namespace PENDULA_ISA
}  // namespace pendula
