// The common part of the persistent kernels: a recurrent matrix that lives in registers.
//
// A persistent kernel runs all time steps of a layer in one launch. A group of threads holds the whole
// recurrent matrix in its registers and serves R sequences; the vectors that the matrix multiplies
// lie in shared memory, twice, so that a step reads one copy while it writes the other and needs one
// barrier. Sequences are independent of each other: groups and blocks never exchange anything.
//
// Nor do directions: a launch runs one, or with gridDim.y = 2 both, the reverse one over rows in which every
// sequence is reversed. A kernel takes all arrays of the one and then all of the other, which are null if there
// is none.
//
// Macros: H hidden units; R sequences of a group; GROUPS groups of a block; AHEAD, the steps by which loads
// run ahead of their use, since a load from memory takes longer than a step.
//
// Packed rows: `before[t]` is the row, in [h_0; all rows], where the states before step t begin, and so
// `before[t + 1]` is where those after it begin; sequence b is b rows further. Lengths descend, so a
// block is done when its first sequence is.
#ifndef DYNAMIC_SHARED  // the tests' emulation on the CPU brings its own
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

typedef long long int64;
typedef float* __restrict__ floats;
typedef const float* __restrict__ const_floats;

__host__ __device__ constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// The input that entry i of a thread's part of a row belongs to. The LANES threads that share a row take
// its quads in turn, so that in shared memory neighbours read neighbours.
template <int LANES>
__device__ __forceinline__ int input_of(int i, int lane) {
  return (i / 4 * LANES + lane) * 4 + i % 4;
}

// product[r] = sum_k M[j][k] v_r[k] for R vectors v_r of `stride` quads.
//
// LANES neighbouring threads share a tile of J <= 4 rows of M, and each holds the entries of its own
// 4 * QUADS inputs. What comes back to a thread is the product for row j = lane % 4 of the tile.
template <int J, int QUADS, int LANES>
__device__ __forceinline__ void multiply(const float (&m)[J][4 * QUADS], const float4* v, int stride,
                                         int lane, float (&product)[R]) {
  float sum[R][4];
#pragma unroll
  for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = sum[r][2] = sum[r][3] = 0.f;
#pragma unroll
  for (int i = 0; i < QUADS; i++)
#pragma unroll
    for (int r = 0; r < R; r++) {
      const float4 x = v[r * stride + i * LANES + lane];
#pragma unroll
      for (int j = 0; j < J; j++) {
        sum[r][j] = fmaf(m[j][4 * i], x.x, sum[r][j]);
        sum[r][j] = fmaf(m[j][4 * i + 1], x.y, sum[r][j]);
        sum[r][j] = fmaf(m[j][4 * i + 2], x.z, sum[r][j]);
        sum[r][j] = fmaf(m[j][4 * i + 3], x.w, sum[r][j]);
      }
    }
  // Partners exchange the half of the sums that is not theirs: 4 rows, then 2, then 1. After that all
  // that is left is to add up over the lanes with the same row.
  const bool upper = lane & 2, odd = lane & 1;
#pragma unroll
  for (int r = 0; r < R; r++) {
    float a = upper ? sum[r][2] : sum[r][0], b = upper ? sum[r][3] : sum[r][1];
    a += __shfl_xor_sync(0xffffffffu, upper ? sum[r][0] : sum[r][2], 2);
    b += __shfl_xor_sync(0xffffffffu, upper ? sum[r][1] : sum[r][3], 2);
    float own = odd ? b : a;
    own += __shfl_xor_sync(0xffffffffu, odd ? a : b, 1);
#pragma unroll
    for (int mask = 4; mask < LANES; mask <<= 1) own += __shfl_xor_sync(0xffffffffu, own, mask);
    product[r] = own;
  }
}

// x * keep of a mask's entry; what the mask excludes has no influence, NaN and infinity either.
__device__ __forceinline__ float masked(float x, float keep) { return keep == 0.f ? 0.f : x * keep; }

// No digit of the tail at 0 is lost; where expf overflows it is 0.
__device__ __forceinline__ float sigmoid(float z) { return 1.f / (1.f + expf(-z)); }

// The value that the lane `source` of every LANES neighbours holds.
template <int LANES>
__device__ __forceinline__ float from_lane(float value, int source) {
  return __shfl_sync(0xffffffffu, value, source, LANES);
}
