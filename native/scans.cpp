// The C interface: chooses the instruction set, and shares the batch out to threads.
#include "scans.h"

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#define PENDULA_ISA baseline
#include "isa.hpp"
#undef PENDULA_ISA
#if PENDULA_HAS_AVX
#define PENDULA_ISA avx2
#include "isa.hpp"
#undef PENDULA_ISA
#define PENDULA_ISA avx512
#include "isa.hpp"
#undef PENDULA_ISA
#endif

namespace {

using namespace pendula;

template <typename T>
struct Functions {
    int64_t (*cornn_forward_scratch)(int64_t, int64_t, int64_t);
    void (*cornn_forward_pack)(const pendula_cornn_forward&);
    void (*cornn_forward_slice)(const pendula_cornn_forward&, int64_t, int64_t);
    int64_t (*cornn_backward_scratch)(int64_t, int64_t);
    void (*cornn_backward_pack)(const pendula_cornn_backward&);
    void (*cornn_backward_slice)(const pendula_cornn_backward&, int64_t, int64_t, int64_t);
    void (*unicornn_forward_slice)(const pendula_unicornn_forward&, int64_t, int64_t);
    void (*unicornn_backward_slice)(const pendula_unicornn_backward&, int64_t, int64_t);
};

struct Set {
    const char* name;
    bool usable;
    Functions<float> single;
    Functions<double> full;
};

#define PENDULA_FUNCTIONS(isa, T)                                                                                 \
    {isa::cornn_forward_scratch<T>,  isa::cornn_forward_pack<T>,  isa::cornn_forward_slice<T>,                    \
     isa::cornn_backward_scratch<T>, isa::cornn_backward_pack<T>, isa::cornn_backward_slice<T>,                   \
     isa::unicornn_forward_slice<T>, isa::unicornn_backward_slice<T>}
#define PENDULA_SET(isa, usable) \
    Set{#isa, usable, PENDULA_FUNCTIONS(isa, float), PENDULA_FUNCTIONS(isa, double)}

const std::vector<Set>& sets() {
    static const std::vector<Set> found = [] {
        std::vector<Set> all;
#if PENDULA_HAS_AVX
        __builtin_cpu_init();
        const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        const bool wide = fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
        if (wide) all.push_back(PENDULA_SET(avx512, wide));
        if (fma) all.push_back(PENDULA_SET(avx2, fma));
#endif
        all.push_back(PENDULA_SET(baseline, true));
        return all;
    }();
    return found;
}

std::atomic<const Set*> chosen{nullptr};

const Set& current() {
    const Set* set = chosen.load();
    return set ? *set : sets().front();
}

template <typename T>
const Functions<T>& functions();
template <>
const Functions<float>& functions<float>() {
    return current().single;
}
template <>
const Functions<double>& functions<double>() {
    return current().full;
}

// work(begin, end, thread) on slices of 0 ... count - 1, one per thread; this thread takes the first
template <typename Work>
void share(int64_t count, int64_t threads, const Work& work) {
    if (threads > count) threads = count;
    if (threads <= 1) {
        work(int64_t{0}, count, int64_t{0});
        return;
    }
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(threads - 1));
    for (int64_t i = 1; i < threads; ++i)
        others.emplace_back([&, i] { work(count * i / threads, count * (i + 1) / threads, i); });
    work(int64_t{0}, count / threads, int64_t{0});
    for (auto& other : others) other.join();
}

template <typename T>
void run(const pendula_cornn_forward& a) {
    functions<T>().cornn_forward_pack(a);
    share(a.batch, a.threads,
          [&](int64_t begin, int64_t end, int64_t) { functions<T>().cornn_forward_slice(a, begin, end); });
}

template <typename T>
void run(const pendula_cornn_backward& a) {
    if (!a.packed) functions<T>().cornn_backward_pack(a);
    share(a.batch, a.threads, [&](int64_t begin, int64_t end, int64_t thread) {
        functions<T>().cornn_backward_slice(a, begin, end, thread);
    });
}

template <typename T>
void run(const pendula_unicornn_forward& a) {
    share(a.batch, a.threads,
          [&](int64_t begin, int64_t end, int64_t) { functions<T>().unicornn_forward_slice(a, begin, end); });
}

template <typename T>
void run(const pendula_unicornn_backward& a) {
    share(a.batch, a.threads,
          [&](int64_t begin, int64_t end, int64_t) { functions<T>().unicornn_backward_slice(a, begin, end); });
}

template <typename Arguments>
void run_in(const Arguments* a, int64_t bytes) {
    if (bytes == 4)
        run<float>(*a);
    else
        run<double>(*a);
}

}  // namespace

extern "C" {

const char* pendula_instruction_sets(void) {
    static const std::string names = [] {
        std::string all;
        for (const Set& set : sets()) all += (all.empty() ? "" : " ") + std::string(set.name);
        return all;
    }();
    return names.c_str();
}

int pendula_use_instruction_set(const char* name) {
    for (const Set& set : sets())
        if (std::strcmp(set.name, name) == 0) {
            chosen.store(&set);
            return 1;
        }
    return 0;
}

int64_t pendula_cornn_forward_scratch(int64_t bytes, int64_t units, int64_t inputs, int64_t batch) {
    return bytes == 4 ? functions<float>().cornn_forward_scratch(units, inputs, batch)
                      : functions<double>().cornn_forward_scratch(units, inputs, batch);
}

int64_t pendula_cornn_backward_scratch(int64_t bytes, int64_t units, int64_t batch) {
    return bytes == 4 ? functions<float>().cornn_backward_scratch(units, batch)
                      : functions<double>().cornn_backward_scratch(units, batch);
}

void pendula_cornn_forward_run(const pendula_cornn_forward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_cornn_backward_run(const pendula_cornn_backward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_unicornn_forward_run(const pendula_unicornn_forward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_unicornn_backward_run(const pendula_unicornn_backward* a, int64_t bytes) { run_in(a, bytes); }
}
