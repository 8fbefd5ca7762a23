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
    typedef int32_t bits __attribute__((vector_size(PENDULA_VECTOR_BYTES)));
};

template <>
struct Vector<double> {
    static constexpr int size = PENDULA_VECTOR_BYTES / 8;
    typedef double type __attribute__((vector_size(PENDULA_VECTOR_BYTES)));
    typedef int64_t bits __attribute__((vector_size(PENDULA_VECTOR_BYTES)));
};

template <typename T>
using Vec = typename Vector<T>::type;

template <typename T>
inline Vec<T> load(const T* from) {
    Vec<T> v;
    std::memcpy(&v, from, sizeof(v));
    return v;
}

template <typename T>
inline void store(T* to, Vec<T> v) {
    std::memcpy(to, &v, sizeof(v));
}

// the first `count` lanes; the others are zero, and are not touched in memory
template <typename T>
inline Vec<T> load_part(const T* from, int count) {
    Vec<T> v = {};
    std::memcpy(&v, from, sizeof(T) * static_cast<std::size_t>(count));
    return v;
}

template <typename T>
inline void store_part(T* to, Vec<T> v, int count) {
    std::memcpy(to, &v, sizeof(T) * static_cast<std::size_t>(count));
}

template <typename T>
inline Vec<T> all(T value) {
    return Vec<T>{} + value;
}

// Taylor coefficients of (e^r - 1) / r for |r| <= ln(2) / 2: the remainder is below half a unit in the last place
template <typename T>
struct Exponential;

template <>
struct Exponential<float> {
    static constexpr int terms = 7;
    static constexpr float largest = 10.0f;  // tanh of it rounds to 1
    static constexpr float rounder = 12582912.0f;  // 1.5 * 2^23
    static constexpr int mantissa = 23, bias = 127;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};

template <>
struct Exponential<double> {
    static constexpr int terms = 13;
    static constexpr double largest = 20.0;
    static constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double ln2_high = 0.693147180369123816490, ln2_low = 1.90821492927058770002e-10;
};

constexpr double inverse_factorial(int n) { return n <= 1 ? 1.0 : inverse_factorial(n - 1) / n; }

// 1 / (n + 1)!, n + 1 = 1 ... terms, by Horner's rule from the last one
template <typename T, int N>
inline Vec<T> horner(Vec<T> r, Vec<T> sum) {
    if constexpr (N == 0) {
        return sum;
    } else {
        constexpr T c = static_cast<T>(inverse_factorial(N));
        return horner<T, N - 1>(r, sum * r + c);
    }
}

// tanh(x) = e / (e + 2), e = exp(2 |x|) - 1, with the sign of x; NaN stays NaN
template <typename T>
inline Vec<T> tanh(Vec<T> x) {
    using E = Exponential<T>;
    using Bits = typename Vector<T>::bits;
    const Vec<T> minus_zero = -Vec<T>{};
    Bits sign;
    std::memcpy(&sign, &minus_zero, sizeof(sign));
    Bits raw;
    std::memcpy(&raw, &x, sizeof(x));
    const Bits signs = raw & sign, magnitude = raw & ~sign;
    Vec<T> a;
    std::memcpy(&a, &magnitude, sizeof(a));
    // the comparison is false for NaN, which then goes through
    a = a > all<T>(E::largest) ? all<T>(E::largest) : a;
    a = a + a;
    // k = round(a / ln 2), read off the low bits of a large number
    const Vec<T> shifted = a * static_cast<T>(1.44269504088896340736) + E::rounder;
    const Vec<T> k = shifted - E::rounder;
    const Vec<T> r = (a - k * E::ln2_high) - k * E::ln2_low;
    const Vec<T> q = r * horner<T, E::terms - 1>(r, all<T>(static_cast<T>(inverse_factorial(E::terms))));
    Bits power;
    std::memcpy(&power, &shifted, sizeof(power));
    Bits base;
    const Vec<T> zero = all<T>(E::rounder);
    std::memcpy(&base, &zero, sizeof(base));
    power = ((power - base) + E::bias) << E::mantissa;
    Vec<T> two_k;
    std::memcpy(&two_k, &power, sizeof(two_k));
    const Vec<T> e = two_k * q + (two_k - 1);
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
