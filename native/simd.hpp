// Vectors of the instruction set that this file is compiled for, and tanh on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define PENDULA_VECTOR_BYTES 64
#elif defined(__AVX__)
#define PENDULA_VECTOR_BYTES 32
#else
#define PENDULA_VECTOR_BYTES 16
#endif

namespace pendula {
namespace PENDULA_ISA {

template <typename T>
struct Vector;

template <>
struct Vector<float> {
    static constexpr int size = PENDULA_VECTOR_BYTES / 4;
    typedef float type __attribute__((vector_size(PENDULA_VECTOR_BYTES)));
    typedef float unaligned __attribute__((vector_size(PENDULA_VECTOR_BYTES), aligned(4)));
    typedef int32_t bits __attribute__((vector_size(PENDULA_VECTOR_BYTES)));
};

template <>
struct Vector<double> {
    static constexpr int size = PENDULA_VECTOR_BYTES / 8;
    typedef double type __attribute__((vector_size(PENDULA_VECTOR_BYTES)));
    typedef double unaligned __attribute__((vector_size(PENDULA_VECTOR_BYTES), aligned(8)));
    typedef int64_t bits __attribute__((vector_size(PENDULA_VECTOR_BYTES)));
};

template <typename T>
using Vec = typename Vector<T>::type;

// Not memcpy: what that writes might be anything, and pointers and sizes would be read again after each store.
template <typename T>
inline Vec<T> load(const T* from) {
    return *reinterpret_cast<const typename Vector<T>::unaligned*>(from);
}

template <typename T>
inline void store(T* to, Vec<T> v) {
    *reinterpret_cast<typename Vector<T>::unaligned*>(to) = v;
}

#if defined(__AVX__) && !defined(__AVX512F__)
// a mask of the first `count` lanes
template <typename T>
inline __m256i first(int count) {
    const typename Vector<T>::bits lanes = [] {
        typename Vector<T>::bits counted = {};
        for (int i = 0; i < Vector<T>::size; ++i) counted[i] = i;
        return counted;
    }();
    return (__m256i)(lanes < count);
}
#endif

// The first `count` lanes; the others are zero, and are not touched in memory. By a mask where there are masks: a call of
// memcpy would have the compiler put aside all vectors of a loop.
template <typename T>
inline Vec<T> load_part(const T* from, int count) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == sizeof(float))
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
    else
        return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
#elif defined(__AVX__)
    if constexpr (sizeof(T) == sizeof(float))
        return _mm256_maskload_ps(from, first<T>(count));
    else
        return _mm256_maskload_pd(from, first<T>(count));
#else
    Vec<T> v = {};
    std::memcpy(&v, from, sizeof(T) * static_cast<std::size_t>(count));
    return v;
#endif
}

template <typename T>
inline void store_part(T* to, Vec<T> v, int count) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == sizeof(float))
        _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), v);
    else
        _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), v);
#elif defined(__AVX__)
    if constexpr (sizeof(T) == sizeof(float))
        _mm256_maskstore_ps(to, first<T>(count), v);
    else
        _mm256_maskstore_pd(to, first<T>(count), v);
#else
    std::memcpy(to, &v, sizeof(T) * static_cast<std::size_t>(count));
#endif
}

template <typename T>
inline Vec<T> all(T value) {
    // what is subtracted is exactly nothing, and the compiler knows it
    return value - Vec<T>{};
}

// What halves of exponents are made of: tanh(r) / r for |r| <= ln(2) / 4 as a polynomial in r^2, from the highest power
// down; the last coefficient is 1.
template <typename T>
struct Halves;

template <>
struct Halves<float> {
    // fitted for the least relative error, 5.5e-8
    static constexpr float terms[] = {0.13110673f, -0.33331272f, 1.0f};
    static constexpr float largest = 10.0f;  // tanh of it rounds to 1
    static constexpr int mantissa = 23;
    static constexpr float rounder = 12582912.0f + 127;  // 1.5 * 2^23, and the bias of exponents
    static constexpr float half_ln2_high = 0.3466796875f, half_ln2_low = -1.06097220e-4f;
};

template <>
struct Halves<double> {
    // fitted for the least relative error, 4.1e-18
    static constexpr double terms[] = {0.0034448662222815356781, -0.0088573110783940781728, 0.021869370783870396966,
                                       -0.053968252782946945388, 0.13333333332784292234,    -0.3333333333333248607,
                                       1.0};
    static constexpr double largest = 20.0;
    static constexpr int mantissa = 52;
    static constexpr double rounder = 6755399441055744.0 + 1023;  // 1.5 * 2^52, and the bias of exponents
    static constexpr double half_ln2_high = 0.346573590184561908245, half_ln2_low = 9.54107464635293850010e-11;
};

// e^(2a) = (1 + w) / (c (1 - w)) for a >= 0, where c is a power of two and w is small
template <typename T>
struct Split {
    Vec<T> w, c;
};

// BRIEF: without the digits that ln 2 lacks as one number, where a product and a sum are rounded together; what is near
// 1 in the end does not show them.
template <typename T, bool BRIEF>
inline Split<T> split(Vec<T> a) {
    using H = Halves<T>;
    // k = round(a / (ln 2 / 2)), and c = 2^-k: what it is taken from lifts bias - k to the low bits of a large number
    const Vec<T> shifted = H::rounder - a * static_cast<T>(2.88539008177792681472);
    const Vec<T> minus_k = shifted - H::rounder;
#if defined(__FMA__) || defined(__aarch64__)
    constexpr bool together = true;
#else
    constexpr bool together = false;
#endif
    const Vec<T> r = BRIEF && together ? a + minus_k * static_cast<T>(0.346573590279972654709)
                                       : (a + minus_k * H::half_ln2_high) + minus_k * H::half_ln2_low;
    const Vec<T> r2 = r * r;
    Vec<T> q = all<T>(H::terms[0]);
    for (std::size_t i = 1; i < sizeof(H::terms) / sizeof(T); ++i) q = q * r2 + H::terms[i];
    typename Vector<T>::bits power;
    std::memcpy(&power, &shifted, sizeof(power));
    power <<= H::mantissa;
    Split<T> found;
    found.w = r * q;
    std::memcpy(&found.c, &power, sizeof(power));
    return found;
}

// the smaller one of each lane; NaN of `value` stays
template <typename T>
inline Vec<T> at_most(Vec<T> value, T limit) {
#if defined(__AVX512F__)
    // one instruction, which gives its second operand where one of them is NaN
    if constexpr (sizeof(T) == sizeof(float))
        return _mm512_maskz_min_ps(0xffff, all(limit), value);
    else
        return _mm512_maskz_min_pd(0xff, all(limit), value);
#else
    return value > all(limit) ? all(limit) : value;
#endif
}

// tanh(|x|) = (1 - c + w (1 + c)) / (1 + c + w (1 - c)), with the sign of x; NaN stays NaN
template <typename T>
inline Vec<T> tanh(Vec<T> x) {
    using Bits = typename Vector<T>::bits;
    const Vec<T> minus_zero = -Vec<T>{};
    Bits sign, raw;
    std::memcpy(&sign, &minus_zero, sizeof(sign));
    std::memcpy(&raw, &x, sizeof(x));
    const Bits signs = raw & sign, magnitude = raw & ~sign;
    Vec<T> a;
    std::memcpy(&a, &magnitude, sizeof(a));
    a = at_most<T>(a, Halves<T>::largest);
    const Split<T> e = split<T, true>(a);
    const Vec<T> more = 1 + e.c, less = 1 - e.c;
    Vec<T> t = (e.w * more + less) / (e.w * less + more);
    std::memcpy(&raw, &t, sizeof(t));
    raw |= signs;
    std::memcpy(&t, &raw, sizeof(t));
    return t;
}

// Denormal numbers are zero while it lives: vanishing adjoints otherwise run up to 18 times slower.
class FlushDenormals {
   public:
#if defined(__SSE2__)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before_); }

   private:
    unsigned before_;
#elif defined(__aarch64__)
    FlushDenormals() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" ::"r"(before_ | (1ull << 24)));
    }
    ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

   private:
    uint64_t before_;
#endif
};

}  // namespace PENDULA_ISA
}  // namespace pendula
