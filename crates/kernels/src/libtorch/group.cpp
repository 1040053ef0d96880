// Messages between processes through c10d of libtorch, for group.rs: a TCPStore for the rendezvous, and ProcessGroupGloo.
//
// The functions called have the signatures used here in torch 2.9 to 2.11.

#include "guarded.h"

#include <ATen/ops/from_blob.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

using c10d::ProcessGroupGloo;
using std::chrono::milliseconds;

namespace {

// Messages between two processes have one order.
constexpr int TAG = 0;
constexpr int PROBE = 1; // of messages that nobody receives

// The network interfaces that the user names as for PyTorch, or that of the host's name.
void add_devices(ProcessGroupGloo::Options &options) {
    const char *named = std::getenv("GLOO_SOCKET_IFNAME");
    std::stringstream names(named ? named : "");
    for (std::string name; std::getline(names, name, ',');)
        options.devices.push_back(ProcessGroupGloo::createDeviceForInterface(name));
    if (options.devices.empty()) options.devices.push_back(ProcessGroupGloo::createDefaultDevice());
}

std::vector<at::Tensor> bytes_at(uint8_t *data, int64_t length) {
    return {at::from_blob(data, {length}, at::TensorOptions().dtype(at::kByte))};
}

} // namespace

extern "C" {

struct Group {
    c10::intrusive_ptr<ProcessGroupGloo> gloo; // keeps the store
};

struct Transfer {
    c10::intrusive_ptr<c10d::Work> work;
};

struct Rendezvous {
    const char *host;
    const char *prefix; // of the store's keys
    int64_t wait; // milliseconds
    int32_t rank;
    int32_t size;
    uint16_t port;
    bool serves; // whether this process has the store
};

int simmer_group_join(const Rendezvous *at, Group **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        c10d::TCPStoreOptions options;
        options.port = at->port;
        options.isServer = at->serves;
        options.timeout = milliseconds(at->wait);
        auto store = c10::make_intrusive<c10d::TCPStore>(at->host, options);
        auto own = c10::make_intrusive<c10d::PrefixStore>(at->prefix, store);
        auto settings = ProcessGroupGloo::Options::create(milliseconds(at->wait));
        settings->threads = 1; // of collectives, which are not used
        add_devices(*settings);
        auto gloo = c10::make_intrusive<ProcessGroupGloo>(own, at->rank, at->size, settings);
        *out = new Group{gloo};
    });
}

void simmer_group_free(Group *group) {
    delete group;
}

int simmer_group_send(Group *group, int32_t to, uint8_t *data, int64_t length, Transfer **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto bytes = bytes_at(data, length);
        *out = new Transfer{group->gloo->send(bytes, to, TAG)};
    });
}

int simmer_group_receive(Group *group, int32_t from, uint8_t *data, int64_t length, Transfer **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto bytes = bytes_at(data, length);
        *out = new Transfer{group->gloo->recv(bytes, from, TAG)};
    });
}

// Throws if the other process has ended, which its connection tells the next message.
int simmer_group_probe(Group *group, int32_t to, char *said, size_t room) {
    return guarded(said, room, [&] {
        static uint8_t nothing = 0;
        auto bytes = bytes_at(&nothing, 1);
        group->gloo->send(bytes, to, PROBE);
    });
}

// Waits for its end; not done if another thread stops the waiting.
int simmer_transfer_wait(Transfer *transfer, int64_t wait, bool *done, char *said, size_t room) {
    return guarded(said, room, [&] { *done = transfer->work->wait(milliseconds(wait)); });
}

// Ends the waiting of another thread, or the next one.
int simmer_transfer_stop(Transfer *transfer, char *said, size_t room) {
    return guarded(said, room, [&] { transfer->work->abort(); });
}

void simmer_transfer_free(Transfer *transfer) {
    delete transfer;
}

} // extern "C"
