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

// (e^r - 1) / r for |r| <= ln(2) / 2 as a polynomial, from the highest power down; the last coefficient is 1
template <typename T>
struct Exponential;

template <>
struct Exponential<float> {
    // fitted for the least relative error, 1.7e-8
    static constexpr float terms[] = {0.0013882516650483012f, 0.008366547524929047f, 0.04166720062494278f,
                                      0.1666654348373413f, 0.4999999701976776f, 1.0f};
    static constexpr float largest = 10.0f;  // tanh of it rounds to 1
    static constexpr int mantissa = 23;
    static constexpr float rounder = 12582912.0f + 127;  // 1.5 * 2^23, and the bias of exponents
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};

constexpr double inverse_factorial(int n) { return n <= 1 ? 1.0 : inverse_factorial(n - 1) / n; }

template <>
struct Exponential<double> {
    // Taylor's: the remainder is below half a unit in the last place
    static constexpr double terms[] = {
        inverse_factorial(13), inverse_factorial(12), inverse_factorial(11), inverse_factorial(10),
        inverse_factorial(9),  inverse_factorial(8),  inverse_factorial(7),  inverse_factorial(6),
        inverse_factorial(5),  inverse_factorial(4),  inverse_factorial(3),  inverse_factorial(2),
        1.0};
    static constexpr double largest = 20.0;
    static constexpr int mantissa = 52;
    static constexpr double rounder = 6755399441055744.0 + 1023;  // 1.5 * 2^52, and the bias of exponents
    static constexpr double ln2_high = 0.693147180369123816490, ln2_low = 1.90821492927058770002e-10;
};

// terms[0] r^(n-1) + ... + terms[n-1], neighbours first: half as many sums have to wait for each other
template <typename T, std::size_t N>
inline Vec<T> polynomial(const T (&terms)[N], Vec<T> r) {
    const Vec<T> r2 = r * r;
    Vec<T> q = N % 2 ? all<T>(terms[0]) : terms[0] * r + terms[1];
    for (std::size_t i = 2 - N % 2; i < N; i += 2) q = q * r2 + (terms[i] * r + terms[i + 1]);
    return q;
}

// e^(TIMES a) - 1 for a >= 0, as far as that is a number of the type. BRIEF: without the digits that ln 2 lacks as one,
// where a product and a sum are rounded together; what is near 1 in the end does not show them.
template <typename T, int TIMES = 1, bool BRIEF = false>
inline Vec<T> exponential_less_one(Vec<T> a) {
    using E = Exponential<T>;
    // k = round(TIMES a / ln 2), and 2^k: what is added lifts k + bias to the low bits of a large number
    const Vec<T> shifted = a * static_cast<T>(TIMES * 1.44269504088896340736) + E::rounder;
    const Vec<T> k = shifted - E::rounder;
#if defined(__FMA__) || defined(__aarch64__)
    constexpr bool together = true;
#else
    constexpr bool together = false;
#endif
    const Vec<T> all_of_it = a * static_cast<T>(TIMES);
    const Vec<T> r = BRIEF && together ? all_of_it - k * static_cast<T>(0.693147180559945309417)
                                       : (all_of_it - k * E::ln2_high) - k * E::ln2_low;
    const Vec<T> q = polynomial<T>(E::terms, r);
    typename Vector<T>::bits power;
    std::memcpy(&power, &shifted, sizeof(power));
    power <<= E::mantissa;
    Vec<T> two_k;
    std::memcpy(&two_k, &power, sizeof(two_k));
    return two_k * (r * q) + (two_k - 1);
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

// tanh(x) = e / (e + 2), e = exp(2 |x|) - 1, with the sign of x; NaN stays NaN
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
    a = at_most<T>(a, Exponential<T>::largest);
    const Vec<T> e = exponential_less_one<T, 2, true>(a);
    Vec<T> t = e / (e + 2);
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
