// Root mean square normalisation: y = x s w, s = 1 / sqrt(mean(x^2) + eps);
// dx = s (dy w) - x s^3 mean(dy w x).
//
// A block computes a token: one pass for the sums, and one for the result, which finds the token in the cache.
//
// Axes: T tokens, H hidden size.

struct Sums {
    float squares, products;
};

__device__ __forceinline__ Sums operator+(Sums a, Sums b) { return {a.squares + b.squares, a.products + b.products}; }

__device__ __forceinline__ Sums of_block(Sums sums) {
    __shared__ Sums warps[32];
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2)
        sums = sums + Sums{__shfl_xor_sync(~0u, sums.squares, apart), __shfl_xor_sync(~0u, sums.products, apart)};
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sums;
    __syncthreads();
    sums = warps[0];
    for (int warp = 1; warp < blockDim.x / 32; warp++) sums = sums + warps[warp];
    return sums;
}

template <typename T, typename W, int N>
__device__ __forceinline__ void forward(const T *x, const W *weight, T *y, int width, float eps) {
    x += static_cast<long long>(blockIdx.x) * width;
    y += static_cast<long long>(blockIdx.x) * width;
    Sums sums = {0.0f, 0.0f};
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        const auto values = load<T, N>(x + at);
#pragma unroll
        for (int i = 0; i < N; i++) sums.squares += wide(values.of[i]) * wide(values.of[i]);
    }
    sums = of_block(sums);
    const float scale = rsqrtf(sums.squares / width + eps);
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        auto values = load<T, N>(x + at);
        const auto w = load<W, N>(weight + at);
#pragma unroll
        for (int i = 0; i < N; i++) values.of[i] = narrow<T>(wide(values.of[i]) * scale * wide(w.of[i]));
        store<T, N>(y + at, values);
    }
}

template <typename T, typename W, int N>
__device__ __forceinline__ void backward(const T *x, const W *weight, const T *dy, T *dx, int width, float eps) {
    const long long first = static_cast<long long>(blockIdx.x) * width;
    x += first, dy += first, dx += first;
    Sums sums = {0.0f, 0.0f};
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        const auto values = load<T, N>(x + at), slopes = load<T, N>(dy + at);
        const auto w = load<W, N>(weight + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float value = wide(values.of[i]);
            sums.squares += value * value;
            sums.products += value * wide(slopes.of[i]) * wide(w.of[i]);
        }
    }
    sums = of_block(sums);
    const float scale = rsqrtf(sums.squares / width + eps);
    const float share = scale * scale * scale * (sums.products / width);
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        const auto values = load<T, N>(x + at);
        auto slopes = load<T, N>(dy + at);
        const auto w = load<W, N>(weight + at);
#pragma unroll
        for (int i = 0; i < N; i++)
            slopes.of[i] = narrow<T>(scale * wide(slopes.of[i]) * wide(w.of[i]) - share * wide(values.of[i]));
        store<T, N>(dx + at, slopes);
    }
}

#define RMS_NORM(NAME, T, W, N)                                                                                    \
    extern "C" __global__ void rms_norm_##NAME(const T *x, const W *weight, T *y, int width, float eps) {          \
        forward<T, W, N>(x, weight, y, width, eps);                                                                \
    }                                                                                                              \
    extern "C" __global__ void rms_norm_backward_##NAME(                                                           \
        const T *x, const W *weight, const T *dy, T *dx, int width, float eps) {                                   \
        backward<T, W, N>(x, weight, dy, dx, width, eps);                                                          \
    }

RMS_NORM(bf16, bf16, bf16, 8)
RMS_NORM(bf16_single, bf16, bf16, 1)
RMS_NORM(bf16_by_f32, bf16, float, 8)
RMS_NORM(bf16_by_f32_single, bf16, float, 1)
RMS_NORM(f32, float, float, 4)
RMS_NORM(f32_single, float, float, 1)
RMS_NORM(f32_by_bf16, float, bf16, 4)
RMS_NORM(f32_by_bf16_single, float, bf16, 1)
