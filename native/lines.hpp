// Lines of N numbers that need not fill whole vectors.
#pragma once

#include "simd.hpp"

namespace pendula {
namespace PENDULA_ISA {

// So many numbers and those beyond, up to the end of a vector: no vector of a line of so many lies across two lines of
// memory if none of the first line does.
template <typename T>
constexpr int64_t whole_vectors(int64_t count) {
    return (count + Vector<T>::size - 1) / Vector<T>::size * Vector<T>::size;
}

template <typename T>
inline void copy(T* to, const T* from, int64_t count) {
    std::memcpy(to, from, sizeof(T) * static_cast<std::size_t>(count));
}

// The same, to a place that has room for a whole vector.
template <typename T>
inline void copy_few(T* to, const T* from, int64_t count) {
    if (count <= Vector<T>::size)
        store(to, load_part(from, static_cast<int>(count)));
    else
        copy(to, from, count);
}

// `from` (zeros if it is null), then zeros up to `room`
template <typename T>
inline void widen(T* to, const void* from, int64_t count, int64_t room) {
    for (int64_t i = 0; i < room; ++i) to[i] = i < count && from ? static_cast<const T*>(from)[i] : T(0);
}

template <typename T>
inline void store_up_to(T* line, int64_t column, int64_t units, Vec<T> v) {
    if (column + Vector<T>::size <= units)
        store(line + column, v);
    else if (column < units)
        store_part(line + column, v, static_cast<int>(units - column));
}

template <typename T>
inline Vec<T> load_up_to(const T* line, int64_t column, int64_t units) {
    if (column + Vector<T>::size <= units) return load(line + column);
    return column < units ? load_part(line + column, static_cast<int>(units - column)) : Vec<T>{};
}

// Whether lines of results go past the caches, which would read each line of memory before it is written, and lose for it
// what the next step needs: where all of them take many bytes, and vectors are whole lines of memory.
template <typename T>
inline bool go_past_caches(int64_t count, int64_t units, const void* results, const void* more = nullptr) {
    constexpr int64_t many = 1 << 22;
    constexpr uintptr_t line = 64;
    return PENDULA_VECTOR_BYTES == line && units % Vector<T>::size == 0 &&
           (reinterpret_cast<uintptr_t>(results) | reinterpret_cast<uintptr_t>(more)) % line == 0 &&
           count * units * static_cast<int64_t>(sizeof(T)) >= many;
}

template <typename T>
inline void put_up_to(bool past, T* line, int64_t column, int64_t units, Vec<T> v) {
#if defined(__AVX512F__)
    if (past) {
        if (column >= units) return;
        if constexpr (sizeof(T) == sizeof(float))
            return _mm512_stream_ps(line + column, v);
        else
            return _mm512_stream_pd(line + column, v);
    }
#endif
    (void)past;
    store_up_to(line, column, units, v);
}

// What went past the caches is there for each thread that comes later.
inline void settle() {
#if defined(__AVX512F__)
    _mm_sfence();
#endif
}

// Processors foresee a walk upwards in memory, not one down in time: a backward pass asks for what it will read that
// many numbers from now.
constexpr int64_t AHEAD = 1 << 11;

// How far back that is, of steps of `step` numbers, of which `own` are read.
inline int64_t ahead_of(int64_t t, int64_t step, int64_t own) {
    const int64_t steps = AHEAD / own + 1;
    return t > steps ? steps * step : 0;
}

template <typename T>
inline void expect(const T* place) {
    __builtin_prefetch(place);
}

// Sums over all steps and sequences are kept in double: float would lose digits.
template <typename T>
inline void add_to(double* line, int64_t column, int64_t units, Vec<T> v) {
    for (int64_t i = 0; i < Vector<T>::size && column + i < units; ++i) line[column + i] += static_cast<double>(v[i]);
}

template <typename T>
inline T total(Vec<T> v) {
    T sum = 0;
    for (int i = 0; i < Vector<T>::size; ++i) sum += v[i];
    return sum;
}

}  // namespace PENDULA_ISA
}  // namespace pendula
