// Sums and copies between GPUs through NCCL, for nccl.rs. The library is loaded at run time: torch's CUDA wheels bring it as a
// wheel of its own, and a libtorch without CUDA has none.
//
// The functions called have the signatures declared here since NCCL 2.4.

#include "guarded.h"
#include "loaded.h"

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

using at::Tensor;

namespace {

// Values of enums of nccl.h.
constexpr int SUCCESS = 0;
constexpr int IN_PROGRESS = 7; // of a result
constexpr int FLOAT32 = 7;     // of a data type
constexpr int SUM = 0;         // of an operation

constexpr int FIRST = 0; // the rank that gets a sum, and that is copied from

struct UniqueId {
    char bytes[128];
};

} // namespace

extern "C" {

struct Nccl {
    int (*version)(int *);
    int (*unique_id)(UniqueId *);
    int (*init)(void **communicator, int size, UniqueId id, int rank);
    int (*reduce)(const void *, void *, size_t, int type, int operation, int root, void *communicator, void *stream);
    int (*broadcast)(const void *, void *, size_t, int type, int root, void *communicator, void *stream);
    int (*async_error)(void *communicator, int *result);
    int (*abort)(void *communicator);
    const char *(*said)(int result);

    void check(int result) const {
        if (result != SUCCESS) throw std::runtime_error(said(result));
    }
};

struct Communicator {
    const Nccl *nccl;
    void *raw;
    c10::Device device;
    std::optional<c10::Event> end; // of the last operation
};

} // extern "C"

namespace {

// Torch's work so far is waited for, so that the operation may run on the default stream, whatever torch's is.
void *begin(Communicator *communicator, const Tensor *tensor) {
    TORCH_CHECK(
        tensor->device() == communicator->device && tensor->scalar_type() == at::kFloat && tensor->is_contiguous(),
        "expected a contiguous tensor in f32 on ", communicator->device, ", found ", tensor->scalar_type(), " on ",
        tensor->device());
    auto cuda = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA);
    auto before = c10::Event(c10::DeviceType::CUDA);
    before.record(cuda.getStream(communicator->device));
    before.synchronize();
    return tensor->data_ptr();
}

void record(Communicator *communicator) {
    auto cuda = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA);
    communicator->end.emplace(c10::DeviceType::CUDA);
    communicator->end->record(cuda.getDefaultStream(communicator->device));
}

// Begins an operation, which gets the tensor's elements and their number and returns NCCL's result.
template <typename F>
void operate(Communicator *communicator, const Tensor *tensor, F operation) {
    auto guard = c10::DeviceGuard(communicator->device);
    auto *data = begin(communicator, tensor);
    communicator->nccl->check(operation(data, static_cast<size_t>(tensor->numel())));
    record(communicator);
}

} // namespace

extern "C" {

// Loads the library. It stays loaded until the process ends: its threads may run until then.
int simmer_nccl_load(const char *path, Nccl **out, int32_t *version, char *said, size_t room) {
    return guarded(said, room, [&] {
        void *library = opened(path);
        auto nccl = std::make_unique<Nccl>();
        find(library, path, "ncclGetVersion", nccl->version);
        find(library, path, "ncclGetErrorString", nccl->said);
        find(library, path, "ncclGetUniqueId", nccl->unique_id);
        find(library, path, "ncclCommInitRank", nccl->init);
        find(library, path, "ncclReduce", nccl->reduce);
        find(library, path, "ncclBroadcast", nccl->broadcast);
        find(library, path, "ncclCommGetAsyncError", nccl->async_error);
        find(library, path, "ncclCommAbort", nccl->abort);
        int found = 0;
        nccl->check(nccl->version(&found));
        *version = found;
        *out = nccl.release();
    });
}

int simmer_nccl_id(const Nccl *nccl, uint8_t *out, char *said, size_t room) {
    return guarded(said, room, [&] {
        UniqueId id;
        nccl->check(nccl->unique_id(&id));
        std::memcpy(out, id.bytes, sizeof id.bytes);
    });
}

// Connects this process, which computes on a GPU, with those of the other ranks, and waits for them.
int simmer_nccl_join(
    const Nccl *nccl, const uint8_t *bytes, int32_t rank, int32_t size, int64_t gpu, Communicator **out, char *said,
    size_t room) {
    return guarded(said, room, [&] {
        UniqueId id;
        std::memcpy(id.bytes, bytes, sizeof id.bytes);
        auto device = c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(gpu));
        auto guard = c10::DeviceGuard(device);
        void *raw = nullptr;
        nccl->check(nccl->init(&raw, size, id, rank));
        *out = new Communicator{nccl, raw, device, std::nullopt};
    });
}

// Begins to add up the tensors of all ranks into that of the first one.
int simmer_nccl_sum(Communicator *communicator, const Tensor *tensor, char *said, size_t room) {
    return guarded(said, room, [&] {
        operate(communicator, tensor, [&](void *data, size_t count) {
            return communicator->nccl->reduce(
                data, data, count, FLOAT32, SUM, FIRST, communicator->raw, /*stream=*/nullptr);
        });
    });
}

// Begins to copy the tensor of the first rank to those of the others.
int simmer_nccl_copy(Communicator *communicator, const Tensor *tensor, char *said, size_t room) {
    return guarded(said, room, [&] {
        operate(communicator, tensor, [&](void *data, size_t count) {
            return communicator->nccl->broadcast(
                data, data, count, FLOAT32, FIRST, communicator->raw, /*stream=*/nullptr);
        });
    });
}

// Whether the last operation has finished.
int simmer_nccl_is_done(Communicator *communicator, bool *done, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto *nccl = communicator->nccl;
        int result = SUCCESS;
        nccl->check(nccl->async_error(communicator->raw, &result));
        if (result != IN_PROGRESS) nccl->check(result);
        *done = result != IN_PROGRESS && (!communicator->end || communicator->end->query());
    });
}

// Frees it, and aborts what still runs. ncclCommDestroy would wait for the other ranks, which may have ended.
void simmer_nccl_free(Communicator *communicator) {
    communicator->nccl->abort(communicator->raw); // nothing is left to do if it fails
    delete communicator;
}

} // extern "C"
