// The loss of a token, logsumexp(l) - l[target], from its logits, which are overwritten by their gradient,
// softmax(l) minus 1 at the target. With a soft cap c the logits are l = c tanh(x / c), and the gradient is that of x.
//
// A block computes a token: one pass for the largest logit and the sum of exponentials, and one for the gradient.
//
// Axes: V vocabulary.

constexpr int THREADS = 512;

// The largest of some logits, and the sum of exp(l - largest).
struct Sum {
    float largest, of;
};

__device__ __forceinline__ Sum both(Sum a, Sum b) {
    const float largest = fmaxf(a.largest, b.largest);
    if (largest == -INFINITY) return {largest, 0.0f};
    return {largest, a.of * expf(a.largest - largest) + b.of * expf(b.largest - largest)};
}

__device__ __forceinline__ Sum of_block(Sum sum) {
    __shared__ Sum warps[THREADS / 32];
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2)
        sum = both(sum, {__shfl_xor_sync(~0u, sum.largest, apart), __shfl_xor_sync(~0u, sum.of, apart)});
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = warps[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / 32; warp++) sum = both(sum, warps[warp]);
    return sum;
}

__device__ __forceinline__ float capped(float x, float cap) { return cap > 0.0f ? cap * tanhf(x / cap) : x; }

// Runs f for every place of a row: for N places at once where their address allows it.
template <typename T, typename F> __device__ __forceinline__ void each(T *row, int count, F f) {
    constexpr int N = WIDTH<T>;
    const int off = static_cast<int>(reinterpret_cast<unsigned long long>(row) % 16 / sizeof(T));
    const int before = min(off == 0 ? 0 : N - off, count);
    const int packs = (count - before) / N;
    for (int i = threadIdx.x; i < before; i += THREADS) row[i] = f(row[i], i);
    for (int pack = threadIdx.x; pack < packs; pack += THREADS) {
        const int first = before + pack * N;
        auto values = load<T, N>(row + first);
#pragma unroll
        for (int i = 0; i < N; i++) values.of[i] = f(values.of[i], first + i);
        store<T, N>(row + first, values);
    }
    for (int i = before + packs * N + threadIdx.x; i < count; i += THREADS) row[i] = f(row[i], i);
}

// As `each`, without writing.
template <typename T, typename F> __device__ __forceinline__ void look(const T *row, int count, F f) {
    constexpr int N = WIDTH<T>;
    const int off = static_cast<int>(reinterpret_cast<unsigned long long>(row) % 16 / sizeof(T));
    const int before = min(off == 0 ? 0 : N - off, count);
    const int packs = (count - before) / N;
    for (int i = threadIdx.x; i < before; i += THREADS) f(row[i]);
    for (int pack = threadIdx.x; pack < packs; pack += THREADS) {
        const auto values = load<T, N>(row + before + pack * N);
#pragma unroll
        for (int i = 0; i < N; i++) f(values.of[i]);
    }
    for (int i = before + packs * N + threadIdx.x; i < count; i += THREADS) f(row[i]);
}

template <typename T>
__device__ __forceinline__ void cross_entropy(
    T *logits, const long long *targets, float *losses, int vocabulary, float cap, int gradient) {
    T *row = logits + static_cast<long long>(blockIdx.x) * vocabulary;
    const int target = static_cast<int>(targets[blockIdx.x]);
    const float hit = capped(wide(row[target]), cap);
    Sum sum = {-INFINITY, 0.0f};
    look(row, vocabulary, [&](T x) {
        const float l = capped(wide(x), cap);
        if (l > sum.largest) {
            sum.of = sum.of * expf(sum.largest - l) + 1.0f;
            sum.largest = l;
        } else if (l != -INFINITY) {
            sum.of += expf(l - sum.largest);
        }
    });
    sum = of_block(sum); // every thread has read the row, and the target's logit
    const float lse = sum.largest + logf(sum.of);
    if (threadIdx.x == 0) losses[blockIdx.x] = lse - hit;
    if (!gradient) return;
    each(row, vocabulary, [&](T x, int place) {
        const float l = capped(wide(x), cap);
        float d = expf(l - lse);
        if (place == target) d -= 1.0f;
        if (cap > 0.0f) d *= 1.0f - (l / cap) * (l / cap);
        return narrow<T>(d);
    });
}

#define CROSS_ENTROPY(NAME, T)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                    \
        T *logits, const long long *targets, float *losses, int vocabulary, float cap, int gradient) {             \
        cross_entropy<T>(logits, targets, losses, vocabulary, cap, gradient);                                      \
    }

CROSS_ENTROPY(cross_entropy_bf16, bf16)
CROSS_ENTROPY(cross_entropy_f32, float)
