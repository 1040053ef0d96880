// What torch's header ProcessGroupGloo.hpp needs to know of gloo, whose own headers are not in torch's wheels: names that
// it uses behind pointers. Nothing here is defined, so that nothing here is compiled. Where a libtorch has gloo's headers,
// those are found first.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
public:
    void setTimeout(std::chrono::milliseconds timeout);
};

} // namespace gloo
