// How the functions of this folder end: 0, or 1 and what went wrong.

#pragma once

#include <cstddef>
#include <cstdio>
#include <exception>

template <typename F>
int guarded(char *said, size_t room, F f) {
    try {
        f();
        return 0;
    } catch (const std::exception &error) {
        std::snprintf(said, room, "%s", error.what());
    } catch (...) {
        std::snprintf(said, room, "an unknown exception");
    }
    return 1;
}
