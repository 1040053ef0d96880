// Runs f. Returns 0, or 1 if it throws; the message of the exception is then in said, a buffer of
// room bytes. Exceptions must not leave C++.

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
