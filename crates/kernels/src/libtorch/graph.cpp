// Operations of a GPU that are recorded once and run again by one call (a CUDA graph), for graph.rs.
//
// The functions called have the signatures used here in torch 2.9 to 2.11.

#include "guarded.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#ifdef SIMMER_CUDA

// A value of an enum of CUDA's driver_types.h: what other threads do during a recording is no part of it, and allowed.
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };

namespace at::cuda {

// As in ATen/cuda/CUDAGraph.h, which needs headers of CUDA that torch's wheels lack. The members are hidden in a room that
// is larger than they are; no function that is called here is virtual.
struct CUDAGraph {
    explicit CUDAGraph(bool keep_graph);
    ~CUDAGraph();
    CUDAGraph(const CUDAGraph &) = delete;
    CUDAGraph &operator=(const CUDAGraph &) = delete;
    void capture_begin(std::pair<unsigned long long, unsigned long long> pool, cudaStreamCaptureMode mode);
    void capture_end();
    void replay();
    std::pair<unsigned long long, unsigned long long> pool();

  private:
    alignas(64) unsigned char hidden[4096];
};

} // namespace at::cuda

using at::cuda::CUDAGraph;

namespace {

const auto CUDA = c10::DeviceType::CUDA;

c10::Device device_of(int64_t gpu) {
    return c10::Device(CUDA, static_cast<c10::DeviceIndex>(gpu));
}

// The stream on which this thread records. Libraries keep a workspace for each stream, so it is always the same.
c10::Stream side_stream(int64_t gpu) {
    static thread_local std::map<int64_t, c10::Stream> streams;
    auto found = streams.find(gpu);
    if (found != streams.end()) return found->second;
    auto stream = c10::impl::VirtualGuardImpl(CUDA).getStreamFromGlobalPool(device_of(gpu), /*isHighPriority=*/false);
    return streams.emplace(gpu, stream).first->second;
}

// The last graph that was given back, whose memory the next one takes over. Torch keeps the memory of a graph that no
// other shares until it runs out of memory.
std::unique_ptr<CUDAGraph> &given_back(int64_t gpu) {
    static thread_local std::map<int64_t, std::unique_ptr<CUDAGraph>> graphs;
    return graphs[gpu];
}

} // namespace

#endif

extern "C" {

// A recording: torch's current stream is another one as long as it lives.
struct Recording;
struct Graph;

#ifdef SIMMER_CUDA

struct Recording {
    int64_t gpu;
    c10::Stream before;
    c10::Stream side;
    std::unique_ptr<CUDAGraph> graph; // since it began
};

struct Graph {
    int64_t gpu;
    std::unique_ptr<CUDAGraph> graph;
};

// Lets torch use a stream that can be recorded; it has waited for the work so far.
int simmer_graph_enter(int64_t gpu, Recording **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto cuda = c10::impl::VirtualGuardImpl(CUDA);
        auto side = side_stream(gpu);
        cuda.synchronizeStream(cuda.getStream(device_of(gpu)));
        auto recording = std::make_unique<Recording>(Recording{gpu, side, side, nullptr});
        recording->before = cuda.exchangeStream(side);
        *out = recording.release();
    });
}

// From here on operations are recorded instead of computed.
int simmer_graph_begin(Recording *recording, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto guard = c10::DeviceGuard(device_of(recording->gpu));
        c10::impl::VirtualGuardImpl(CUDA).synchronizeStream(recording->side);
        auto graph = std::make_unique<CUDAGraph>(/*keep_graph=*/false);
        auto &earlier = given_back(recording->gpu);
        auto pool = earlier ? earlier->pool() : std::pair<unsigned long long, unsigned long long>{0, 0};
        graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
        recording->graph = std::move(graph);
    });
}

// Ends it; there is no graph if an operation could not be recorded.
int simmer_graph_end(Recording *recording, Graph **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto guard = c10::DeviceGuard(device_of(recording->gpu));
        auto graph = std::move(recording->graph);
        graph->capture_end();
        given_back(recording->gpu).reset();
        *out = new Graph{recording->gpu, std::move(graph)};
    });
}

// Torch's current stream is the one before; it has waited for the other.
void simmer_graph_leave(Recording *recording) {
    char said[256];
    std::unique_ptr<Recording> owned(recording);
    guarded(said, sizeof said, [&] {
        auto cuda = c10::impl::VirtualGuardImpl(CUDA);
        cuda.exchangeStream(owned->before);
        cuda.synchronizeStream(owned->side);
    });
}

// Begins to run what was recorded.
int simmer_graph_replay(Graph *graph, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto guard = c10::DeviceGuard(device_of(graph->gpu));
        graph->graph->replay();
    });
}

void simmer_graph_free(Graph *graph) {
    std::unique_ptr<Graph> owned(graph);
    given_back(owned->gpu) = std::move(owned->graph);
}

#else

namespace {

int without_cuda(char *said, size_t room) {
    return guarded(said, room, [] { throw std::runtime_error("this libtorch is built without CUDA"); });
}

} // namespace

int simmer_graph_enter(int64_t, Recording **, char *said, size_t room) {
    return without_cuda(said, room);
}

int simmer_graph_begin(Recording *, char *said, size_t room) {
    return without_cuda(said, room);
}

int simmer_graph_end(Recording *, Graph **, char *said, size_t room) {
    return without_cuda(said, room);
}

void simmer_graph_leave(Recording *) {}

int simmer_graph_replay(Graph *, char *said, size_t room) {
    return without_cuda(said, room);
}

void simmer_graph_free(Graph *) {}

#endif

} // extern "C"
