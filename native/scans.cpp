// The C interface: chooses the instruction set, and shares the batch out to threads.
#include "scans.h"
#include "threads.hpp"

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

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
    int64_t (*parts_of_units)(int64_t);
    bool (*cornn_narrows)();
    int64_t (*cornn_forward_scratch)(int64_t, int64_t, int64_t);
    void (*cornn_forward_pack)(const pendula_cornn_forward&);
    void (*cornn_forward_slice)(const pendula_cornn_forward&, int64_t, int64_t, const Team&);
    int64_t (*cornn_backward_scratch)(const pendula_cornn_backward&);
    void (*cornn_backward_pack)(const pendula_cornn_backward&);
    void (*cornn_backward_slice)(const pendula_cornn_backward&, int64_t, int64_t, int64_t, const Team&);
    void (*cornn_backward_sum)(const pendula_cornn_backward&, int64_t);
    int64_t (*unicornn_forward_scratch)(const pendula_unicornn_forward&);
    void (*unicornn_forward_pack)(const pendula_unicornn_forward&);
    void (*unicornn_forward_slice)(const pendula_unicornn_forward&, int64_t, int64_t, int64_t, int64_t);
    int64_t (*unicornn_backward_scratch)(const pendula_unicornn_backward&);
    void (*unicornn_backward_pack)(const pendula_unicornn_backward&);
    void (*unicornn_backward_slice)(const pendula_unicornn_backward&, int64_t, int64_t, int64_t, const Team&);
    void (*unicornn_backward_sum)(const pendula_unicornn_backward&, int64_t);
    int64_t (*lem_forward_scratch)(int64_t, int64_t, int64_t);
    void (*lem_forward_pack)(const pendula_lem_forward&);
    void (*lem_forward_slice)(const pendula_lem_forward&, int64_t, int64_t, const Team&);
    int64_t (*lem_backward_scratch)(const pendula_lem_backward&);
    void (*lem_backward_pack)(const pendula_lem_backward&);
    void (*lem_backward_slice)(const pendula_lem_backward&, int64_t, int64_t, int64_t);
    void (*lem_backward_sum)(const pendula_lem_backward&, int64_t);
    int64_t (*odernn_forward_scratch)(const pendula_odernn_forward&);
    void (*odernn_forward_pack)(const pendula_odernn_forward&);
    void (*odernn_forward_slice)(const pendula_odernn_forward&, int64_t, int64_t);
    int64_t (*odernn_backward_scratch)(const pendula_odernn_backward&);
    void (*odernn_backward_pack)(const pendula_odernn_backward&);
    void (*odernn_backward_slice)(const pendula_odernn_backward&, int64_t, int64_t, int64_t);
    void (*odernn_backward_sum)(const pendula_odernn_backward&, int64_t);
};

struct Set {
    const char* name;
    bool usable;
    Functions<float> single;
    Functions<double> full;
};

#define PENDULA_FUNCTIONS(isa, T)                                                               \
    {isa::parts_of_units<T>,                                                                    \
     isa::cornn_narrows<T>, isa::cornn_forward_scratch<T>,                                      \
     isa::cornn_forward_pack<T>, isa::cornn_forward_slice<T>,                                   \
     isa::cornn_backward_scratch<T>, isa::cornn_backward_pack<T>,                               \
     isa::cornn_backward_slice<T>, isa::cornn_backward_sum<T>,                                  \
     isa::unicornn_forward_scratch<T>, isa::unicornn_forward_pack<T>,                           \
     isa::unicornn_forward_slice<T>,                                                            \
     isa::unicornn_backward_scratch<T>, isa::unicornn_backward_pack<T>,                         \
     isa::unicornn_backward_slice<T>, isa::unicornn_backward_sum<T>,                            \
     isa::lem_forward_scratch<T>, isa::lem_forward_pack<T>,                                     \
     isa::lem_forward_slice<T>,                                                                 \
     isa::lem_backward_scratch<T>, isa::lem_backward_pack<T>,                                   \
     isa::lem_backward_slice<T>, isa::lem_backward_sum<T>,                                      \
     isa::odernn_forward_scratch<T>, isa::odernn_forward_pack<T>,                               \
     isa::odernn_forward_slice<T>,                                                              \
     isa::odernn_backward_scratch<T>, isa::odernn_backward_pack<T>,                             \
     isa::odernn_backward_slice<T>, isa::odernn_backward_sum<T>}
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

// found when the library is loaded: a fork later on is noticed
[[maybe_unused]] const OpenMP& openmp = OpenMP::here();

// Operations for which a thread is worth starting: some 20 us of them.
std::atomic<int64_t> worth_a_thread{1 << 21};

// As many threads as have enough to do in a scan with so many products per unit; tanh and the update count as 32.
template <typename Arguments>
int64_t threads_for(const Arguments& a, int64_t products) {
    const double of_a_product = 2.0 * static_cast<double>(a.steps * a.batch * a.units);
    const double operations = of_a_product * static_cast<double>(products + 32);
    const double most = operations / static_cast<double>(worth_a_thread.load()) + 1;
    return most < static_cast<double>(a.threads) ? static_cast<int64_t>(most) : a.threads;
}

// work(begin, end, slice) on as many slices of 0 ... count - 1 as there are threads, each on its own if they can be had
template <typename Work>
void share(int64_t count, int64_t threads, const Work& work) {
    const int64_t most = threads < count ? threads : count, slices = most > 1 ? most : 1;
    together(slices, [&](int64_t member, int64_t members) {
        for (int64_t i = member; i < slices; i += members) work(count * i / slices, count * (i + 1) / slices, i);
    });
}

// work(team) on so many threads that share the units of the same sequences, or on as many as can be had
template <typename Work>
void gather(int64_t parts, const Work& work) {
    Gate gate;
    const auto wait = [](void* g, int64_t members) { static_cast<Gate*>(g)->wait(members); };
    together(parts, [&](int64_t part, int64_t members) { work(Team{part, members, wait, &gate}); });
}

template <typename T>
void run(const pendula_cornn_forward& a) {
    const Functions<T>& f = functions<T>();
    if (!a.packed) f.cornn_forward_pack(a);
    const int64_t threads = threads_for(a, 2 * a.units + a.inputs), panels = f.parts_of_units(a.units);
    const int64_t parts = threads < panels ? threads : panels;
    // fewer sequences than threads share out the units instead
    if (a.batch < parts)
        return gather(parts, [&](const Team& team) { f.cornn_forward_slice(a, 0, a.batch, team); });
    share(a.batch, threads, [&](int64_t begin, int64_t end, int64_t) { f.cornn_forward_slice(a, begin, end, Team{}); });
}

template <typename T>
void run(const pendula_cornn_backward& a) {
    const Functions<T>& f = functions<T>();
    const int64_t threads = threads_for(a, 6 * a.units + a.inputs), panels = f.parts_of_units(a.units);
    const int64_t parts = threads < panels ? threads : panels;
    f.cornn_backward_pack(a);
    if (a.batch < parts && !a.by_tau) {
        gather(parts, [&](const Team& team) { f.cornn_backward_slice(a, 0, a.batch, 0, team); });
        return f.cornn_backward_sum(a, 1);
    }
    share(a.batch, threads, [&](int64_t begin, int64_t end, int64_t thread) {
        f.cornn_backward_slice(a, begin, end, thread, Team{});
    });
    f.cornn_backward_sum(a, threads < a.batch ? threads : a.batch);
}

template <typename T>
void run(const pendula_unicornn_forward& a) {
    const Functions<T>& f = functions<T>();
    const int64_t threads = threads_for(a, a.inputs);
    const int64_t panels = f.parts_of_units(a.units), parts = threads < panels ? threads : panels;
    f.unicornn_forward_pack(a);
    if (a.batch < parts) {
        // fewer sequences than threads: they share the units instead
        share(parts, parts,
              [&](int64_t part, int64_t, int64_t) { f.unicornn_forward_slice(a, 0, a.batch, part, parts); });
        return;
    }
    share(a.batch, threads,
          [&](int64_t begin, int64_t end, int64_t) { f.unicornn_forward_slice(a, begin, end, 0, 1); });
}

template <typename T>
void run(const pendula_unicornn_backward& a) {
    const Functions<T>& f = functions<T>();
    const int64_t threads = threads_for(a, 3 * a.inputs), panels = f.parts_of_units(a.units);
    const int64_t parts = threads < panels ? threads : panels;
    f.unicornn_backward_pack(a);
    if (a.batch < parts) {
        std::atomic<int64_t> members{1};
        gather(parts, [&](const Team& team) {
            members.store(team.parts);
            f.unicornn_backward_slice(a, 0, a.batch, team.part, team);
        });
        return f.unicornn_backward_sum(a, members.load());
    }
    share(a.batch, threads, [&](int64_t begin, int64_t end, int64_t thread) {
        f.unicornn_backward_slice(a, begin, end, thread, Team{});
    });
    f.unicornn_backward_sum(a, threads < a.batch ? threads : a.batch);
}

template <typename T>
void run(const pendula_lem_forward& a) {
    const Functions<T>& f = functions<T>();
    const int64_t threads = threads_for(a, 4 * (a.units + a.inputs)), panels = f.parts_of_units(a.units);
    const int64_t parts = threads < panels ? threads : panels;
    f.lem_forward_pack(a);
    if (a.batch < parts)
        return gather(parts, [&](const Team& team) { f.lem_forward_slice(a, 0, a.batch, team); });
    share(a.batch, threads, [&](int64_t begin, int64_t end, int64_t) { f.lem_forward_slice(a, begin, end, Team{}); });
}

template <typename T>
void run(const pendula_lem_backward& a) {
    const Functions<T>& f = functions<T>();
    const int64_t threads = threads_for(a, 8 * (a.units + a.inputs));
    f.lem_backward_pack(a);
    share(a.batch, threads,
          [&](int64_t begin, int64_t end, int64_t thread) { f.lem_backward_slice(a, begin, end, thread); });
    f.lem_backward_sum(a, threads < a.batch ? threads : a.batch);
}

// every stage multiplies by the weights of each derivative; the drive is computed once
template <typename T>
void run(const pendula_odernn_forward& a) {
    functions<T>().odernn_forward_pack(a);
    share(a.batch, threads_for(a, a.stages * (a.order * a.units + 32) + a.inputs),
          [&](int64_t begin, int64_t end, int64_t) { functions<T>().odernn_forward_slice(a, begin, end); });
}

template <typename T>
void run(const pendula_odernn_backward& a) {
    const int64_t threads = threads_for(a, a.stages * (2 * a.order * a.units + 32) + 2 * a.inputs);
    functions<T>().odernn_backward_pack(a);
    share(a.batch, threads, [&](int64_t begin, int64_t end, int64_t thread) {
        functions<T>().odernn_backward_slice(a, begin, end, thread);
    });
    functions<T>().odernn_backward_sum(a, threads < a.batch ? threads : a.batch);
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

void pendula_start_threads_for(int64_t operations) { worth_a_thread.store(operations > 1 ? operations : 1); }

void pendula_stay_off_openmp(int stay) { OpenMP::shunned().store(stay != 0); }

int pendula_narrows(void) {
#if PENDULA_HAS_AVX && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10)
    return functions<float>().cornn_narrows() && __builtin_cpu_supports("avx512bf16");
#else
    return 0;
#endif
}

int64_t pendula_sizeof(const char* structure) {
#define PENDULA_SIZE(name) \
    if (std::strcmp(structure, #name) == 0) return static_cast<int64_t>(sizeof(name));
    PENDULA_SIZE(pendula_cornn_forward)
    PENDULA_SIZE(pendula_cornn_backward)
    PENDULA_SIZE(pendula_unicornn_forward)
    PENDULA_SIZE(pendula_unicornn_backward)
    PENDULA_SIZE(pendula_lem_forward)
    PENDULA_SIZE(pendula_lem_backward)
    PENDULA_SIZE(pendula_odernn_forward)
    PENDULA_SIZE(pendula_odernn_backward)
    return 0;
}

void pendula_in_large_pages(void* array, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t page = uintptr_t{1} << 21;
    const uintptr_t start = reinterpret_cast<uintptr_t>(array), end = start + static_cast<uintptr_t>(bytes);
    const uintptr_t first = (start + page - 1) / page * page, last = end / page * page;
    // a wish: where it is refused, everything works as before
    if (array && first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)array, (void)bytes;
#endif
}

int64_t pendula_cornn_forward_scratch(int64_t bytes, int64_t units, int64_t inputs, int64_t batch) {
    return bytes == 4 ? functions<float>().cornn_forward_scratch(units, inputs, batch)
                      : functions<double>().cornn_forward_scratch(units, inputs, batch);
}

int64_t pendula_cornn_backward_scratch(const pendula_cornn_backward* a, int64_t bytes) {
    return bytes == 4 ? functions<float>().cornn_backward_scratch(*a) : functions<double>().cornn_backward_scratch(*a);
}

int64_t pendula_unicornn_forward_scratch(const pendula_unicornn_forward* a, int64_t bytes) {
    return bytes == 4 ? functions<float>().unicornn_forward_scratch(*a)
                      : functions<double>().unicornn_forward_scratch(*a);
}

int64_t pendula_unicornn_backward_scratch(const pendula_unicornn_backward* a, int64_t bytes) {
    return bytes == 4 ? functions<float>().unicornn_backward_scratch(*a)
                      : functions<double>().unicornn_backward_scratch(*a);
}

int64_t pendula_lem_forward_scratch(int64_t bytes, int64_t units, int64_t inputs, int64_t batch) {
    return bytes == 4 ? functions<float>().lem_forward_scratch(units, inputs, batch)
                      : functions<double>().lem_forward_scratch(units, inputs, batch);
}

int64_t pendula_lem_backward_scratch(const pendula_lem_backward* a, int64_t bytes) {
    return bytes == 4 ? functions<float>().lem_backward_scratch(*a) : functions<double>().lem_backward_scratch(*a);
}

int64_t pendula_odernn_forward_scratch(const pendula_odernn_forward* a, int64_t bytes) {
    return bytes == 4 ? functions<float>().odernn_forward_scratch(*a)
                      : functions<double>().odernn_forward_scratch(*a);
}

int64_t pendula_odernn_backward_scratch(const pendula_odernn_backward* a, int64_t bytes) {
    return bytes == 4 ? functions<float>().odernn_backward_scratch(*a)
                      : functions<double>().odernn_backward_scratch(*a);
}

void pendula_cornn_forward_run(const pendula_cornn_forward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_cornn_backward_run(const pendula_cornn_backward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_unicornn_forward_run(const pendula_unicornn_forward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_unicornn_backward_run(const pendula_unicornn_backward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_lem_forward_run(const pendula_lem_forward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_lem_backward_run(const pendula_lem_backward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_odernn_forward_run(const pendula_odernn_forward* a, int64_t bytes) { run_in(a, bytes); }
void pendula_odernn_backward_run(const pendula_odernn_backward* a, int64_t bytes) { run_in(a, bytes); }
}
