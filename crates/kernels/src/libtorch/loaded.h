// Libraries that are loaded at run time, and their functions.

#pragma once

#include <dlfcn.h>

#include <stdexcept>
#include <string>

// A library, which stays loaded until the process ends.
inline void *opened(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(dlerror());
    return library;
}

// Looks a function of it up by its name.
template <typename F>
void find(void *library, const char *path, const char *name, F &function) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (!function) throw std::runtime_error(std::string(path) + " has no function " + name);
}
