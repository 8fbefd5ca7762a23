// Threads that share the units of one and the same sequences: `wait` returns when all of them have called it.
#pragma once

#include <cstdint>

namespace pendula {

struct Team {
    int64_t part = 0, parts = 1;
    void (*wait)(void* gate, int64_t parts) = nullptr;
    void* gate = nullptr;
    void meet() const {
        if (parts > 1) wait(gate, parts);
    }
};

}  // namespace pendula
