// Rotary position embedding: y[i] = x[i] cos - x[i + R/2] sin, y[i + R/2] = x[i + R/2] cos + x[i] sin for i < R/2, and
// y[i] = x[i] from R on. The gradient is the same with -sin.
//
// A thread rotates N neighbouring pairs of a head, and copies its share of the features that are not rotated.
//
// Axes: T tokens, N heads, D head_dim, R rotated features of a head.

template <typename T, int N>
__device__ __forceinline__ void rotate(
    const T *x, const float *cos, const float *sin, T *y, int tokens, int heads, int dim, int half, long long stride,
    float sign) {
    const int packs = half / N;
    const long long at = thread_in_grid();
    const int in_token = heads * packs;
    const int token = static_cast<int>(at / in_token);
    if (token >= tokens) return;
    const int within = static_cast<int>(at - static_cast<long long>(token) * in_token);
    const int head = within / packs, pack = within - head * packs;
    const T *from = x + token * stride + head * dim;
    T *to = y + (static_cast<long long>(token) * heads + head) * dim;
    const int first = pack * N;
    auto low = load<T, N>(from + first);
    auto high = load<T, N>(from + first + half);
    const long long angle = static_cast<long long>(token) * half + first;
    const auto c = load<float, N>(cos + angle);
    const auto s = load<float, N>(sin + angle);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float l = wide(low.of[i]), h = wide(high.of[i]), turned = sign * s.of[i];
        low.of[i] = narrow<T>(l * c.of[i] - h * turned);
        high.of[i] = narrow<T>(h * c.of[i] + l * turned);
    }
    store<T, N>(to + first, low);
    store<T, N>(to + first + half, high);
    for (int i = 2 * half + pack; i < dim; i += packs) to[i] = from[i];
}

#define ROPE(NAME, T, N)                                                                                           \
    extern "C" __global__ void NAME(                                                                               \
        const T *x, const float *cos, const float *sin, T *y, int tokens, int heads, int dim, int half,            \
        long long stride, float sign) {                                                                            \
        rotate<T, N>(x, cos, sin, y, tokens, heads, dim, half, stride, sign);                                      \
    }

ROPE(rope_bf16, bf16, 8)
ROPE(rope_bf16_single, bf16, 1)
ROPE(rope_f32, float, 4)
ROPE(rope_f32_single, float, 1)
