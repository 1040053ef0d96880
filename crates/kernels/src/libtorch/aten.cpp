// Functions of ATen that torch-sys does not bind, for aten.rs.
//
// They have the signatures used here in torch 2.9 to 2.11.

#include "guarded.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_efficient_attention_backward.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_rms_norm_backward.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

using at::Tensor;

namespace {

// Causal mask in which the last query of a row has the position of its last key: a value of
// CustomMaskType in ATen's mem_eff_attention.
constexpr int64_t CAUSAL_FROM_BOTTOM_RIGHT = 2;

// A placeholder for the generator state of dropout, which is not used.
Tensor no_state(const Tensor &like) {
    return at::empty({2}, like.options().dtype(at::kLong));
}

template <size_t N>
void give(Tensor **out, const std::array<Tensor, N> &tensors) {
    for (size_t i = 0; i < N; i++)
        if (tensors[i].defined()) out[i] = new Tensor(tensors[i]);
}

} // namespace

extern "C" {

struct Spans {
    const Tensor *starts_q;
    const Tensor *starts_k;
    int64_t longest_q;
    int64_t longest_k;
    double scale;
    int64_t window; // keys that a query sees at most, its own included; 0 without a window

    // Keys that a query sees before its own, and after it.
    std::optional<int64_t> before() const {
        return window > 0 ? std::optional<int64_t>(window - 1) : std::nullopt;
    }
    std::optional<int64_t> after() const {
        return window > 0 ? std::optional<int64_t>(0) : std::nullopt;
    }
};

int simmer_flash_attention(const Tensor *const *qkv, Spans spans, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto found = at::_flash_attention_forward(
            *qkv[0], *qkv[1], *qkv[2], *spans.starts_q, *spans.starts_k, spans.longest_q, spans.longest_k,
            /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false, spans.scale,
            spans.before(), spans.after());
        give<2>(out, {std::get<0>(found), std::get<1>(found)});
    });
}

int simmer_flash_attention_backward(const Tensor *const *in, Spans spans, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto state = no_state(*in[0]);
        auto found = at::_flash_attention_backward(
            *in[0], *in[1], *in[2], *in[3], *in[4], *in[5], *spans.starts_q, *spans.starts_k, spans.longest_q,
            spans.longest_k, /*dropout_p=*/0.0, /*is_causal=*/true, state, state, spans.scale,
            spans.before(), spans.after());
        give<3>(out, {std::get<0>(found), std::get<1>(found), std::get<2>(found)});
    });
}

int simmer_efficient_attention(const Tensor *const *qkv, Spans spans, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto found = at::_efficient_attention_forward(
            *qkv[0], *qkv[1], *qkv[2], /*bias=*/{}, *spans.starts_q, *spans.starts_k, spans.longest_q,
            spans.longest_k, /*dropout_p=*/0.0, CAUSAL_FROM_BOTTOM_RIGHT, /*compute_log_sumexp=*/true, spans.scale);
        give<2>(out, {std::get<0>(found), std::get<1>(found)});
    });
}

int simmer_efficient_attention_backward(const Tensor *const *in, Spans spans, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto state = no_state(*in[0]);
        auto found = at::_efficient_attention_backward(
            *in[0], *in[1], *in[2], *in[3], /*bias=*/{}, *in[4], *spans.starts_q, *spans.starts_k, spans.longest_q,
            spans.longest_k, *in[5], /*dropout_p=*/0.0, state, state, CAUSAL_FROM_BOTTOM_RIGHT,
            /*bias_requires_grad=*/false, spans.scale);
        give<3>(out, {std::get<0>(found), std::get<1>(found), std::get<2>(found)});
    });
}

int simmer_fused_rms_norm_backward(const Tensor *const *in, bool trained, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto found = at::_fused_rms_norm_backward(
            *in[0], *in[1], in[3]->sizes(), *in[2], *in[3], std::array<bool, 2>{true, trained});
        give<2>(out, {std::get<0>(found), std::get<1>(found)});
    });
}

int simmer_cudnn_attention(const Tensor *const *qkv, double scale, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto found = at::_scaled_dot_product_cudnn_attention(
            *qkv[0], *qkv[1], *qkv[2], /*attn_bias=*/{}, /*compute_log_sumexp=*/true, /*dropout_p=*/0.0,
            /*is_causal=*/true, /*return_debug_mask=*/false, scale);
        give<2>(out, {std::get<0>(found), std::get<1>(found)});
    });
}

int simmer_cudnn_attention_backward(const Tensor *const *in, double scale, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto state = at::zeros({}, in[0]->options().dtype(at::kLong));
        auto found = at::_scaled_dot_product_cudnn_attention_backward(
            *in[0], *in[1], *in[2], *in[3], *in[4], *in[5], state, state, /*attn_bias=*/Tensor(),
            /*cum_seq_q=*/Tensor(), /*cum_seq_k=*/Tensor(), in[1]->size(2), in[2]->size(2), /*dropout_p=*/0.0,
            /*is_causal=*/true, scale);
        give<3>(out, {std::get<0>(found), std::get<1>(found), std::get<2>(found)});
    });
}

// Memory that a GPU can read while the processor continues. Without a device: naming one prints a warning.
int simmer_pinned(int64_t bytes, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        give<1>(out, {at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true))});
    });
}

int simmer_pin(const Tensor *tensor, Tensor **out, char *said, size_t room) {
    return guarded(said, room, [&] { give<1>(out, {tensor->pin_memory()}); });
}

// A copy of pinned memory that the host does not wait for.
int simmer_copy_queued(const Tensor *to, const Tensor *from, char *said, size_t room) {
    return guarded(said, room, [&] { to->copy_(*from, /*non_blocking=*/true); });
}

// The end of the work that was given to a GPU so far.
int simmer_event(int64_t gpu, c10::Event **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto device = c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(gpu));
        auto stream = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(device);
        auto event = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
        event->record(stream);
        *out = event.release();
    });
}

// Waits for it on the host.
int simmer_event_wait(const c10::Event *event, char *said, size_t room) {
    return guarded(said, room, [&] { event->synchronize(); });
}

// The work that its GPU is given from now on waits for it.
int simmer_event_block(const c10::Event *event, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto device = event->device();
        event->block(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
    });
}

void simmer_event_free(c10::Event *event) { delete event; }

// A stream of a GPU for copies beside its work.
int simmer_copy_stream(int64_t gpu, c10::Stream **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto device = c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(gpu));
        *out = new c10::Stream(c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStreamFromGlobalPool(device));
    });
}

// From here to simmer_copies_end, what this thread gives the GPU is queued on a stream beside the one that computes. It begins when
// that has finished what it was given before.
int simmer_copies_begin(const c10::Stream *beside, c10::Stream **before, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto guard = c10::impl::VirtualGuardImpl(beside->device_type());
        auto computes = std::make_unique<c10::Stream>(guard.getStream(beside->device()));
        c10::Event now(beside->device_type());
        now.record(*computes);
        now.block(*beside);
        guard.exchangeStream(*beside);
        *before = computes.release();
    });
}

// Frees `before`, and tells when the copies are done.
int simmer_copies_end(c10::Stream *before, c10::Event **done, char *said, size_t room) {
    std::unique_ptr<c10::Stream> computes(before);
    return guarded(said, room, [&] {
        auto beside = c10::impl::VirtualGuardImpl(computes->device_type()).exchangeStream(*computes);
        auto event = std::make_unique<c10::Event>(beside.device_type());
        event->record(beside);
        *done = event.release();
    });
}

} // extern "C"
