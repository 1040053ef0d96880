// Numbers in f32 and bf16, and loads and stores of several of them at once. Every source begins with this file: the
// compiler at run time has no headers.

#define INFINITY __int_as_float(0x7f800000)

struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

// To the nearest number, ties to even.
template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// N numbers that one instruction loads or stores. Their address is a multiple of their size.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack {
    T of[N];
};

template <typename T, int N> __device__ __forceinline__ Pack<T, N> load(const T *from) {
    return *reinterpret_cast<const Pack<T, N> *>(from);
}

template <typename T, int N> __device__ __forceinline__ void store(T *to, const Pack<T, N> &pack) {
    *reinterpret_cast<Pack<T, N> *>(to) = pack;
}

// Numbers in 16 bytes.
template <typename T> constexpr int WIDTH = 16 / sizeof(T);

__device__ __forceinline__ long long thread_in_grid() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}
