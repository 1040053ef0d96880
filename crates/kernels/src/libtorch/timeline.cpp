// Events that torch's profiler (Kineto) records on a device, for timeline.rs.
//
// The functions called have the signatures used here in torch 2.9 to 2.11.

#include "guarded.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <cstdint>
#include <set>

using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;
namespace profiler = torch::autograd::profiler;

extern "C" {

struct Event {
    const char *name;
    size_t name_length;
    // Nanoseconds since 1970.
    uint64_t start;
    // Nanoseconds.
    uint64_t length;
    // The same number for a kernel and for the call that launched it.
    uint64_t correlation;
    bool on_device;
};

int simmer_timeline_start(bool gpu, char *said, size_t room) {
    return guarded(said, room, [&] {
        ProfilerConfig config(ProfilerState::KINETO);
        std::set<ActivityType> activities{gpu ? ActivityType::CUDA : ActivityType::CPU};
        profiler::prepareProfiler(config, activities);
        profiler::enableProfiler(config, activities, {at::RecordScope::FUNCTION});
    });
}

int simmer_timeline_finish(void (*each)(void *, const Event *), void *to, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto result = profiler::disableProfiler();
        for (const auto &event : result->events()) {
            auto name = event.name();
            Event found{name.data(),           name.size(),           event.startNs(),
                        event.durationNs(), event.correlationId(), event.deviceType() != c10::DeviceType::CPU};
            each(to, &found);
        }
    });
}

} // extern "C"
