// The gated activation: y = f(g) u; dg = dy u f'(g), du = dy f(g).
//
// A thread computes N neighbouring elements.

enum Activation { SILU, GELU_TANH, GELU };

// f(x) and f'(x).
struct Value {
    float of, slope;
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ Value activation(int kind, float x) {
    if (kind == SILU) {
        const float s = sigmoid(x);
        return {x * s, s * (1.0f + x * (1.0f - s))};
    }
    if (kind == GELU_TANH) {
        const float root = 0.7978845608028654f, cubic = 0.044715f; // sqrt(2 / pi)
        const float s = sigmoid(2.0f * root * x * (1.0f + cubic * x * x));
        return {x * s, s + x * s * (1.0f - s) * 2.0f * root * (1.0f + 3.0f * cubic * x * x)};
    }
    const float share = 0.5f * (1.0f + erff(x * 0.7071067811865476f)); // 1 / sqrt(2)
    return {x * share, share + x * expf(-0.5f * x * x) * 0.3989422804014327f}; // 1 / sqrt(2 pi)
}

template <typename T, int N>
__device__ __forceinline__ void forward(int kind, const T *gate, const T *up, T *y, long long count) {
    const long long at = thread_in_grid() * N;
    if (at >= count) return;
    const auto g = load<T, N>(gate + at);
    auto u = load<T, N>(up + at);
#pragma unroll
    for (int i = 0; i < N; i++) u.of[i] = narrow<T>(activation(kind, wide(g.of[i])).of * wide(u.of[i]));
    store<T, N>(y + at, u);
}

template <typename T, int N>
__device__ __forceinline__ void backward(
    int kind, const T *gate, const T *up, const T *dy, T *d_gate, T *d_up, long long count) {
    const long long at = thread_in_grid() * N;
    if (at >= count) return;
    auto g = load<T, N>(gate + at);
    auto u = load<T, N>(up + at);
    const auto d = load<T, N>(dy + at);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const Value f = activation(kind, wide(g.of[i]));
        const float slope = wide(d.of[i]);
        g.of[i] = narrow<T>(slope * wide(u.of[i]) * f.slope);
        u.of[i] = narrow<T>(slope * f.of);
    }
    store<T, N>(d_gate + at, g);
    store<T, N>(d_up + at, u);
}

#define GATED(NAME, T, N)                                                                                          \
    extern "C" __global__ void gated_##NAME(int kind, const T *gate, const T *up, T *y, long long count) {         \
        forward<T, N>(kind, gate, up, y, count);                                                                   \
    }                                                                                                              \
    extern "C" __global__ void gated_backward_##NAME(                                                              \
        int kind, const T *gate, const T *up, const T *dy, T *d_gate, T *d_up, long long count) {                  \
        backward<T, N>(kind, gate, up, dy, d_gate, d_up, count);                                                   \
    }

GATED(bf16, bf16, 8)
GATED(bf16_single, bf16, 1)
GATED(f32, float, 4)
GATED(f32_single, float, 1)
