// The same work on several threads at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace pendula {

// GNU's OpenMP, if the process has it: on Linux PyTorch's operators run on its threads. After an operator they look out
// for the next one for milliseconds before they sleep, and others would have to share the processor with them.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*member)() = nullptr;
    int (*members)() = nullptr;
    int (*most)() = nullptr;

    static const OpenMP& here() {
        static const OpenMP found;
        return found;
    }
    // A forked process would wait for threads that its parent has.
    static std::atomic<bool>& shunned() {
        static std::atomic<bool> is{false};
        return is;
    }
    bool usable() const { return parallel && member && members && most && !shunned().load(); }

   private:
#if defined(__linux__)
    OpenMP() {
        find(parallel, "GOMP_parallel");
        find(member, "omp_get_thread_num");
        find(members, "omp_get_num_threads");
        find(most, "omp_get_max_threads");
        pthread_atfork(nullptr, nullptr, [] { shunned().store(true); });
    }
    template <typename Function>
    static void find(Function& function, const char* name) {
        function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
    }
#else
    OpenMP() = default;
#endif
};

template <typename Work>
void together_in(const OpenMP& openmp, int64_t wanted, const Work& work) {
    struct Call {
        const OpenMP& openmp;
        int64_t wanted;
        const Work& work;
    } call{openmp, wanted, work};
    const auto join = [](void* context) {
        const Call& given = *static_cast<const Call*>(context);
        const int64_t member = given.openmp.member(), members = given.openmp.members();
        if (member < given.wanted) given.work(member, members < given.wanted ? members : given.wanted);
    };
    // all that PyTorch uses: OpenMP would end the others, and start them anew for the next operator
    const int64_t most = openmp.most();
    openmp.parallel(join, &call, static_cast<unsigned>(most < wanted ? wanted : most), 0);
}

// work(member, members) at the same time on `wanted` threads, or on as many as can be had; this thread is member 0
template <typename Work>
void together(int64_t wanted, const Work& work) {
    if (wanted <= 1) return work(int64_t{0}, int64_t{1});
    if (OpenMP::here().usable()) return together_in(OpenMP::here(), wanted, work);
    std::atomic<int64_t> members{0};
    const auto join = [&](int64_t member) {
        // before all have been asked nobody knows how many they are
        while (!members.load()) std::this_thread::yield();
        work(member, members.load());
    };
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(wanted - 1));
    try {
        for (int64_t i = 1; i < wanted; ++i) others.emplace_back([&join, i] { join(i); });
    } catch (const std::system_error&) {
        // those that are there share the work
    }
    members.store(static_cast<int64_t>(others.size()) + 1);
    join(0);
    for (auto& other : others) other.join();
}

// Where threads that run at the same time meet: the last one to come opens the gate.
class Gate {
   public:
    void wait(int64_t members) {
        const int64_t round = round_.load();
        if (arrived_.fetch_add(1) + 1 == members) {
            arrived_.store(0);
            round_.store(round + 1);
            return;
        }
        // steps are short: sleeping would take longer, but a thread that has no core of its own must let go
        for (int spins = 0; round_.load() == round; ++spins)
            if (spins > 2000) std::this_thread::yield();
    }

   private:
    std::atomic<int64_t> arrived_{0}, round_{0};
};

}  // namespace pendula
