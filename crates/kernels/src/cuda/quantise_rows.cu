// Rows in e4m3 with a scale each: codes = e4m3(x * (448 / most)), scales = most / 448, where most is the row's largest
// absolute value. Row by row codes * scales is x, rounded.
//
// A block quantises a row. Its threads keep what they have read, so that a row of up to N * HELD * blockDim.x elements is
// read once.

// The largest number of e4m3, and what stands for the largest value of a row of zeros.
constexpr float LARGEST = 448.0f, LEAST = 1e-30f;
// Packs that a thread keeps.
constexpr int HELD = 4;

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 890
// To the nearest number, ties to even; above the largest one to that.
__device__ __forceinline__ unsigned e4m3(float x) {
    const unsigned bits = __float_as_uint(x), sign = bits >> 24 & 0x80;
    unsigned size = bits & 0x7fffffff;
    if (size > 0x7f800000) return sign | 0x7f;  // NaN
    if (size >= 0x43e00000) return sign | 0x7e; // 448 and more
    if (size < 0x3c800000)                      // below 2^-6 the numbers are multiples of 2^-9, as above 2^14 in f32
        return sign | (__float_as_uint(fabsf(x) + 16384.0f) - 0x46800000);
    size += 0x7ffff + (size >> 20 & 1);
    return sign | ((size >> 20) - (120 << 3));
}
#endif

// The codes of two numbers, the first in the lower byte.
__device__ __forceinline__ unsigned short e4m3(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    unsigned short codes;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(second), "f"(first));
    return codes;
#else
    return static_cast<unsigned short>(e4m3(first) | e4m3(second) << 8);
#endif
}

__device__ __forceinline__ float largest_of_block(float most) {
    __shared__ float warps[32];
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, apart));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = most;
    __syncthreads();
    most = warps[0];
    for (int warp = 1; warp < blockDim.x / 32; warp++) most = fmaxf(most, warps[warp]);
    return most;
}

template <typename T, int N> __device__ __forceinline__ float largest(const Pack<T, N> &values) {
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) most = fmaxf(most, fabsf(wide(values.of[i])));
    return most;
}

template <typename T, int N>
__device__ __forceinline__ void write(unsigned char *to, const Pack<T, N> &values, float factor) {
    Pack<unsigned char, N> codes;
    if constexpr (N == 1) {
        codes.of[0] = static_cast<unsigned char>(e4m3(wide(values.of[0]) * factor, 0.0f));
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            const unsigned short pair = e4m3(wide(values.of[i]) * factor, wide(values.of[i + 1]) * factor);
            codes.of[i] = static_cast<unsigned char>(pair);
            codes.of[i + 1] = static_cast<unsigned char>(pair >> 8);
        }
    }
    store<unsigned char, N>(to, codes);
}

template <typename T, int N>
__device__ __forceinline__ void quantise_rows(const T *x, unsigned char *codes, float *scales, int width) {
    const long long row = static_cast<long long>(blockIdx.x) * width;
    x += row, codes += row;
    const int first = threadIdx.x * N, apart = blockDim.x * N;
    Pack<T, N> held[HELD];
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int at = first + i * apart;
        if (at < width) {
            held[i] = load<T, N>(x + at);
            most = fmaxf(most, largest<T, N>(held[i]));
        }
    }
    for (int at = first + HELD * apart; at < width; at += apart) most = fmaxf(most, largest<T, N>(load<T, N>(x + at)));
    most = fmaxf(largest_of_block(most), LEAST);
    if (threadIdx.x == 0) scales[blockIdx.x] = most * (1.0f / LARGEST);
    const float factor = LARGEST / most;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int at = first + i * apart;
        if (at < width) write<T, N>(codes + at, held[i], factor);
    }
    for (int at = first + HELD * apart; at < width; at += apart) write<T, N>(codes + at, load<T, N>(x + at), factor);
}

#define QUANTISE_ROWS(NAME, T, N)                                                                                  \
    extern "C" __global__ void NAME(const T *x, unsigned char *codes, float *scales, int width) {                  \
        quantise_rows<T, N>(x, codes, scales, width);                                                              \
    }

QUANTISE_ROWS(quantise_rows_bf16, bf16, 8)
QUANTISE_ROWS(quantise_rows_bf16_single, bf16, 1)
QUANTISE_ROWS(quantise_rows_f32, float, 4)
QUANTISE_ROWS(quantise_rows_f32_single, float, 1)
