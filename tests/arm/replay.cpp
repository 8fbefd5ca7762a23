// Calls of the compiled scans that another machine has recorded (recorded.py), made again here: the largest difference
// of what each one left, as a share of the largest number there.
#include "scans.h"

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

std::FILE* file;

void read(void* to, std::size_t bytes) {
    if (bytes && std::fread(to, bytes, 1, file) != 1) std::exit(2);
}

int64_t number() {
    int64_t value;
    read(&value, sizeof(value));
    return value;
}

std::string word() {
    std::string text(static_cast<std::size_t>(number()), ' ');
    read(&text[0], text.size());
    return text;
}

// Numbers of a call: where their pointer stands in the structure, how wide they are (0: not compared), what stood there
// before the call and after it.
struct Array {
    std::size_t offset, width;
    std::vector<char> before, after;
};

template <typename T>
double difference(const Array& array) {
    std::vector<T> found(array.before.size() / sizeof(T)), expected(found.size());
    std::memcpy(found.data(), array.before.data(), array.before.size());
    std::memcpy(expected.data(), array.after.data(), array.after.size());
    double most = 0, largest = 1;
    for (std::size_t i = 0; i < found.size(); ++i) {
        const double f = static_cast<double>(found[i]), e = static_cast<double>(expected[i]);
        // not a number on one side only is infinitely wrong
        if (std::isnan(f) && std::isnan(e)) continue;
        if (std::isnan(f) || std::isnan(e)) return INFINITY;
        most = std::fmax(most, std::fabs(f - e));
        largest = std::fmax(largest, std::fabs(e));
    }
    return most / largest;
}

template <typename Structure>
void again(Structure& call, int64_t bytes, std::vector<Array>& arrays, std::size_t scratch_at,
           int64_t (*size)(const Structure&, int64_t), void (*run)(const Structure*, int64_t)) {
    char* const raw = reinterpret_cast<char*>(&call);
    for (Array& array : arrays) {
        char* const there = array.before.data();
        std::memcpy(raw + array.offset, &there, sizeof(there));
    }
    // another processor has other vectors, and so another scratch; NaN shows what is read before it is written
    std::vector<char> scratch(static_cast<std::size_t>(size(call, bytes) * bytes), '\xff');
    char* const there = scratch.data();
    std::memcpy(raw + scratch_at, &there, sizeof(there));
    run(&call, bytes);
}

#define BY_SIZES(name)                                                                                   \
    [](const pendula_##name& a, int64_t bytes) {                                                         \
        return pendula_##name##_scratch(bytes, a.units, a.inputs, a.batch);                              \
    }
#define BY_CALL(name) [](const pendula_##name& a, int64_t bytes) { return pendula_##name##_scratch(&a, bytes); }
#define AGAIN(name, room)                                                                                \
    if (kind == "pendula_" #name "_run") {                                                               \
        pendula_##name call;                                                                             \
        if (raw.size() != sizeof(call)) return 3;                                                        \
        std::memcpy(&call, raw.data(), sizeof(call));                                                    \
        again<pendula_##name>(call, bytes, arrays, offsetof(pendula_##name, scratch), room(name),        \
                              pendula_##name##_run);                                                     \
        known = true;                                                                                    \
    }

}  // namespace

int main(int, char** arguments) {
    file = std::fopen(arguments[1], "rb");
    if (!file) return 1;
    std::printf("sets %s\n", pendula_instruction_sets());
    pendula_start_threads_for(1);
    for (int64_t calls = number(); calls > 0; --calls) {
        const std::string kind = word();
        const int64_t bytes = number();
        const std::string raw = word();
        std::vector<Array> arrays(static_cast<std::size_t>(number()));
        for (Array& array : arrays) {
            array.offset = static_cast<std::size_t>(number());
            array.width = static_cast<std::size_t>(number());
            const std::string before = word(), after = word();
            array.before.assign(before.begin(), before.end());
            array.after.assign(after.begin(), after.end());
        }
        bool known = false;
        AGAIN(cornn_forward, BY_SIZES)
        AGAIN(cornn_backward, BY_CALL)
        AGAIN(unicornn_forward, BY_CALL)
        AGAIN(unicornn_backward, BY_CALL)
        AGAIN(lem_forward, BY_SIZES)
        AGAIN(lem_backward, BY_CALL)
        AGAIN(odernn_forward, BY_CALL)
        AGAIN(odernn_backward, BY_CALL)
        if (!known) return 4;
        double most = 0;
        for (const Array& array : arrays)
            if (array.width) most = std::fmax(most, array.width == 4 ? difference<float>(array) : difference<double>(array));
        std::printf("%s %d %.3g\n", kind.c_str(), static_cast<int>(bytes), most);
    }
    return 0;
}
