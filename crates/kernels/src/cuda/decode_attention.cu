// Attention of one query per row in a step of decoding, and what precedes it: keys and values of the newest tokens are written
// to the cache, and queries and keys rotated.
//
// The keys of a row are split over blocks. A block computes HEADS query heads that share a key head: lanes of a warp hold N
// neighbouring features of a head, and so many lanes as a head needs compute one key at a time. What several blocks found of a
// row is added up by the last of them.
//
// Axes: B rows, C places in the table of a row, N query heads, K key heads, D head_dim, R rotated features.

// Feature i of a head, rotated by the angles of its token and rounded as a tensor of rotated features would be.
template <typename T>
__device__ __forceinline__ float rotated(const T *x, const float *cos, const float *sin, int i, int half) {
    if (i >= 2 * half) return wide(x[i]);
    const bool low = i < half;
    const int angle = low ? i : i - half;
    const float own = wide(x[i]), other = wide(x[low ? i + half : i - half]);
    const float turned = low ? own * cos[angle] - other * sin[angle] : own * cos[angle] + other * sin[angle];
    return wide(narrow<T>(turned));
}

// A thread writes one feature of a key and of a value.
template <typename T>
__device__ __forceinline__ void write(
    const T *k, const T *v, const float *cos, const float *sin, const long long *places, T *keys, T *values, int rows,
    int heads, int dim, int half, long long stride_k, long long stride_v) {
    const long long at = thread_in_grid();
    const int of_row = heads * dim;
    const int row = static_cast<int>(at / of_row);
    if (row >= rows) return;
    const int within = static_cast<int>(at - static_cast<long long>(row) * of_row);
    const int i = within % dim;
    const T *key = k + row * stride_k + (within - i);
    const long long angles = static_cast<long long>(row) * half;
    const long long to = places[row] * of_row + within;
    keys[to] = narrow<T>(rotated(key, cos + angles, sin + angles, i, half));
    values[to] = v[row * stride_v + within];
}

template <typename T, int N, int CHUNKS, int HEADS>
__device__ __forceinline__ void attend(
    const T *q, const float *cos, const float *sin, const T *keys, const T *values, const long long *table,
    const long long *positions, T *y, float *parts, int *finished, int heads, int key_heads, int dim, int half,
    long long stride_q, int room, int lanes, float scale, int window, float cap) {
    constexpr int LEAST = 32; // keys of a block
    extern __shared__ float shared[];
    __shared__ bool is_last;
    const int group_size = heads / key_heads;
    const int sets = (group_size + HEADS - 1) / HEADS;
    const int key_head = blockIdx.y / sets;
    const int first_in_group = (blockIdx.y - key_head * sets) * HEADS;
    const int first_head = key_head * group_size + first_in_group;
    const int count = min(HEADS, group_size - first_in_group);
    const int row = blockIdx.z;

    // the keys of this block
    const int end = static_cast<int>(positions[row]) + 1;
    const int start = window > 0 ? max(0, end - window) : 0;
    const int splits = gridDim.x;
    const int each = max((end - start + splits - 1) / splits, LEAST);
    const int used = (end - start + each - 1) / each;
    const int split = blockIdx.x;
    if (split >= used) return;
    const int from = start + split * each;
    const int to = min(from + each, end);

    const int team = threadIdx.x / lanes, lane = threadIdx.x - team * lanes;
    const int teams = blockDim.x / lanes;
    float query[HEADS][CHUNKS * N];
    float sum[HEADS][CHUNKS * N];
    float most[HEADS], total[HEADS];
    const long long angles = static_cast<long long>(row) * half;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        most[h] = -INFINITY;
        total[h] = 0.0f;
        const T *of_head = q + row * stride_q + static_cast<long long>(first_head + min(h, count - 1)) * dim;
#pragma unroll
        for (int c = 0; c < CHUNKS * N; c++) {
            const int i = (lane + c / N * lanes) * N + c % N;
            query[h][c] = i < dim ? scale * rotated(of_head, cos + angles, sin + angles, i, half) : 0.0f;
            sum[h][c] = 0.0f;
        }
    }

    // every lane of a warp takes part in each turn, for the exchange
    for (int first = from; first < to; first += teams) {
        const int at = first + team;
        const bool is_key = at < to;
        const long long place = table[static_cast<long long>(row) * room + (is_key ? at : from)];
        const long long head = (place * key_heads + key_head) * dim;
        Pack<T, N> key[CHUNKS], value[CHUNKS];
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int i = (lane + c * lanes) * N;
            if (i >= dim) continue;
            key[c] = load<T, N>(keys + head + i);
            value[c] = load<T, N>(values + head + i);
        }
        float score[HEADS];
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            score[h] = 0.0f;
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                if ((lane + c * lanes) * N >= dim) continue;
#pragma unroll
                for (int i = 0; i < N; i++) score[h] += query[h][c * N + i] * wide(key[c].of[i]);
            }
        }
        for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
            for (int h = 0; h < HEADS; h++) score[h] += __shfl_xor_sync(0xffffffffu, score[h], distance);
        }
        if (!is_key) continue;
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            const float s = cap > 0.0f ? cap * tanhf(score[h] / cap) : score[h];
            const float larger = fmaxf(most[h], s);
            const float before = expf(most[h] - larger), weight = expf(s - larger);
            most[h] = larger;
            total[h] = total[h] * before + weight;
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                if ((lane + c * lanes) * N >= dim) continue;
#pragma unroll
                for (int i = 0; i < N; i++)
                    sum[h][c * N + i] = sum[h][c * N + i] * before + weight * wide(value[c].of[i]);
            }
        }
    }

    // [teams, HEADS, D + 2]: sums, largest score, sum of the weights
    const int size = dim + 2;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float *own = shared + (team * HEADS + h) * size;
#pragma unroll
        for (int c = 0; c < CHUNKS * N; c++) {
            const int i = (lane + c / N * lanes) * N + c % N;
            if (i < dim) own[i] = sum[h][c];
        }
        if (lane == 0) {
            own[dim] = most[h];
            own[dim + 1] = total[h];
        }
    }
    __syncthreads();
    const long long head_of_row = static_cast<long long>(row) * heads + first_head;
    for (int at = threadIdx.x; at < count * dim; at += blockDim.x) {
        const int h = at / dim, i = at - h * dim;
        float largest = -INFINITY, found = 0.0f, weights = 0.0f;
        for (int t = 0; t < teams; t++) largest = fmaxf(largest, shared[(t * HEADS + h) * size + dim]);
        for (int t = 0; t < teams; t++) {
            const float *of = shared + (t * HEADS + h) * size;
            const float factor = expf(of[dim] - largest);
            found += factor * of[i];
            weights += factor * of[dim + 1];
        }
        if (used == 1) {
            y[(head_of_row + h) * dim + i] = narrow<T>(found / weights);
            continue;
        }
        volatile float *part = parts + ((head_of_row + h) * splits + split) * size;
        part[i] = found;
        if (i == 0) {
            part[dim] = largest;
            part[dim + 1] = weights;
        }
    }
    if (used == 1) return;

    // the last block of these heads adds up what all have found
    __threadfence();
    __syncthreads();
    int *counter = finished + static_cast<long long>(row) * gridDim.y + blockIdx.y;
    if (threadIdx.x == 0) is_last = atomicAdd(counter, 1) == used - 1;
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    if (threadIdx.x == 0) *counter = 0; // for the next layer
    for (int at = threadIdx.x; at < count * dim; at += blockDim.x) {
        const int h = at / dim, i = at - h * dim;
        const volatile float *all = parts + (head_of_row + h) * splits * size;
        float largest = -INFINITY, found = 0.0f, weights = 0.0f;
        for (int s = 0; s < used; s++) largest = fmaxf(largest, all[s * size + dim]);
        for (int s = 0; s < used; s++) {
            const float factor = expf(all[s * size + dim] - largest);
            found += factor * all[s * size + i];
            weights += factor * all[s * size + dim + 1];
        }
        y[(head_of_row + h) * dim + i] = narrow<T>(found / weights);
    }
}

#define WRITE(NAME, T)                                                                                             \
    extern "C" __global__ void decode_write_##NAME(                                                                \
        const T *k, const T *v, const float *cos, const float *sin, const long long *places, T *keys, T *values,   \
        int rows, int heads, int dim, int half, long long stride_k, long long stride_v) {                          \
        write<T>(k, v, cos, sin, places, keys, values, rows, heads, dim, half, stride_k, stride_v);                \
    }

#define ATTEND(NAME, T, N, CHUNKS, HEADS)                                                                          \
    extern "C" __global__ void decode_attention_##NAME(                                                            \
        const T *q, const float *cos, const float *sin, const T *keys, const T *values, const long long *table,    \
        const long long *positions, T *y, float *parts, int *finished, int heads, int key_heads, int dim,          \
        int half, long long stride_q, int room, int lanes, float scale, int window, float cap) {                   \
        attend<T, N, CHUNKS, HEADS>(                                                                               \
            q, cos, sin, keys, values, table, positions, y, parts, finished, heads, key_heads, dim, half,          \
            stride_q, room, lanes, scale, window, cap);                                                            \
    }

WRITE(f32, float)
WRITE(bf16, bf16)
ATTEND(f32, float, 4, 2, 1)
ATTEND(f32_grouped, float, 4, 2, 4)
ATTEND(f32_single, float, 1, 8, 4)
ATTEND(bf16, bf16, 8, 1, 1)
ATTEND(bf16_grouped, bf16, 8, 1, 4)
ATTEND(bf16_single, bf16, 1, 8, 4)
