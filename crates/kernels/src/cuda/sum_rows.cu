// Sums of rows: sums[s] = sum of of[order[j]] for j from starts[s] to starts[s + 1], in f32 and in this order.
//
// A block computes a sum. Its rows are as long, of F features.

template <typename T, int N>
__device__ __forceinline__ void sum_rows(const T *of, const int *starts, const int *order, T *sums, int features) {
    const int first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    T *to = sums + static_cast<long long>(blockIdx.x) * features;
    for (int at = threadIdx.x * N; at < features; at += blockDim.x * N) {
        float sum[N] = {};
#pragma unroll 4
        for (int j = first; j < end; j++) {
            const auto values = load<T, N>(of + static_cast<long long>(order[j]) * features + at);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += wide(values.of[i]);
        }
        Pack<T, N> rounded;
#pragma unroll
        for (int i = 0; i < N; i++) rounded.of[i] = narrow<T>(sum[i]);
        store<T, N>(to + at, rounded);
    }
}

#define SUM_ROWS(NAME, T, N)                                                                                       \
    extern "C" __global__ void NAME(const T *of, const int *starts, const int *order, T *sums, int features) {     \
        sum_rows<T, N>(of, starts, order, sums, features);                                                         \
    }

SUM_ROWS(sum_rows_bf16, bf16, 8)
SUM_ROWS(sum_rows_bf16_single, bf16, 1)
SUM_ROWS(sum_rows_f32, float, 4)
SUM_ROWS(sum_rows_f32_single, float, 1)
