// h_t = phi(z_t), z_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, phi = tanh or ReLU: all steps at once.
//
// SPLIT threads (a macro, 4 or 8) share a tile of 4 units; see tile.h for the rest.
constexpr int PADDED = round_up(H, 4 * SPLIT);
constexpr int GROUP = PADDED / 4 * SPLIT;  // threads
constexpr int QUADS = PADDED / (4 * SPLIT);
constexpr int STRIDE = PADDED / 4;                // quads of a vector in shared memory
constexpr int BUFFER = GROUPS * R * STRIDE;       // quads of one of the two copies

// h (B + N, H): comes with h_0 and, in the row of each step, W_ih x_t; leaves with the states.
// mask (B, H), if not null, multiplies the state that enters the product.
extern "C" __global__ void __launch_bounds__(GROUP * GROUPS, 1)
rnn_forward(floats h, const_floats w_hh, const_floats b_ih, const_floats b_hh, const_floats mask,
            floats h_reverse, const_floats w_hh_reverse, const_floats b_ih_reverse, const_floats b_hh_reverse,
            const_floats mask_reverse,
            int relu, const int64* __restrict__ before, const int64* __restrict__ lengths, int B) {
  if (blockIdx.y) {  // the reverse direction
    h = h_reverse, w_hh = w_hh_reverse, b_ih = b_ih_reverse, b_hh = b_hh_reverse, mask = mask_reverse;
  }
  DYNAMIC_SHARED(float4, shared);  // [2][GROUPS * R][STRIDE]: the states that enter the product
  const int thread = threadIdx.x % GROUP, group = threadIdx.x / GROUP, lane = thread % SPLIT;
  const int tile = thread / SPLIT * 4, j = tile + lane % 4;
  const bool writes = lane < 4, own = writes && j < H;
  const int first = blockIdx.x * (GROUPS * R), steps = (int)lengths[first];

  float w[4][4 * QUADS];
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i++) {
      const int k = input_of<SPLIT>(i, lane);
      w[m][i] = tile + m < H && k < H ? w_hh[(tile + m) * H + k] : 0.f;
    }
  const float bias = own && b_ih ? b_ih[j] + b_hh[j] : 0.f;

  float4* const vectors = shared + group * R * STRIDE;
  int row[R], length[R];
  float state[R], keep[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    row[r] = first + group * R + r;
    const bool in = own && row[r] < B;
    length[r] = row[r] < B ? (int)lengths[row[r]] : 0;
    state[r] = in ? h[(size_t)row[r] * H + j] : 0.f;
    keep[r] = in && mask ? mask[row[r] * H + j] : 1.f;
    if (writes) ((float*)(vectors + r * STRIDE))[j] = masked(state[r], keep[r]);
  }

  float z_x[AHEAD][R];
  int start[AHEAD], next = 0;
  auto load = [&](int u, int t, int begin) {
    start[u] = begin;
#pragma unroll
    for (int r = 0; r < R; r++)
      z_x[u][r] = own && t < length[r] ? h[(size_t)(begin + row[r]) * H + j] : 0.f;
  };
#pragma unroll
  for (int u = 0; u < AHEAD; u++)
    if (u < steps) load(u, u, (int)before[u + 1]);
  if (AHEAD < steps) next = (int)before[AHEAD + 1];

  __syncthreads();
  int copy = 0;
  for (int t0 = 0; t0 < steps; t0 += AHEAD) {
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int t = t0 + u;
      if (t >= steps) break;  // the same for all threads of the block
      const int begin = start[u];
      float z[R], product[R];
#pragma unroll
      for (int r = 0; r < R; r++) z[r] = z_x[u][r] + bias;
      if (t + AHEAD < steps) {
        load(u, t + AHEAD, next);
        if (t + AHEAD + 1 < steps) next = (int)before[t + AHEAD + 2];
      }
      multiply<4, QUADS, SPLIT>(w, vectors + copy * BUFFER, STRIDE, lane, product);
      copy ^= 1;
#pragma unroll
      for (int r = 0; r < R; r++) {
        if (t < length[r]) {
          z[r] += product[r];
          state[r] = relu ? (z[r] < 0.f ? 0.f : z[r]) : tanhf(z[r]);
          if (own) h[(size_t)(begin + row[r]) * H + j] = state[r];
        }
        if (writes) ((float*)(vectors + copy * BUFFER + r * STRIDE))[j] = masked(state[r], keep[r]);
      }
      __syncthreads();
    }
  }
}

// dh_t = dy_t + W_hh^T dz_{t+1}, dz_t = dh_t phi'(z_t).
//
// dz (N, H) is filled; dh (B, H) comes with the gradient of each sequence's last state and leaves with
// that of h_0. dy (N, H) and trace (N, H), which is filled with dh_t, may be null.
extern "C" __global__ void __launch_bounds__(GROUP * GROUPS, 1)
rnn_backward(floats dz, floats dh, const_floats dy, floats trace, const_floats h, const_floats w_hh,
             const_floats mask,
             floats dz_reverse, floats dh_reverse, const_floats dy_reverse, floats trace_reverse,
             const_floats h_reverse, const_floats w_hh_reverse, const_floats mask_reverse,
             int relu, const int64* __restrict__ before, const int64* __restrict__ lengths, int B) {
  if (blockIdx.y) {  // the reverse direction
    dz = dz_reverse, dh = dh_reverse, dy = dy_reverse, trace = trace_reverse, h = h_reverse,
    w_hh = w_hh_reverse, mask = mask_reverse;
  }
  DYNAMIC_SHARED(float4, shared);  // [2][GROUPS * R][STRIDE]: dz_t
  const int thread = threadIdx.x % GROUP, group = threadIdx.x / GROUP, lane = thread % SPLIT;
  const int tile = thread / SPLIT * 4, j = tile + lane % 4;
  const bool writes = lane < 4, own = writes && j < H;
  const int first = blockIdx.x * (GROUPS * R), steps = (int)lengths[first];

  float w[4][4 * QUADS];  // transposed
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i++) {
      const int k = input_of<SPLIT>(i, lane);
      w[m][i] = tile + m < H && k < H ? w_hh[k * H + tile + m] : 0.f;
    }

  float4* const vectors = shared + group * R * STRIDE;
  int row[R], length[R];
  float dh_t[R], keep[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    row[r] = first + group * R + r;
    const bool in = own && row[r] < B;
    length[r] = row[r] < B ? (int)lengths[row[r]] : 0;
    dh_t[r] = in ? dh[(size_t)row[r] * H + j] : 0.f;
    keep[r] = in && mask ? mask[row[r] * H + j] : 1.f;
  }

  float h_t[AHEAD][R], dy_t[AHEAD][R];
  int start[AHEAD], next = 0;
  auto load = [&](int u, int t, int begin) {
    start[u] = begin - B;  // without h_0 in front, as in all arrays but h
#pragma unroll
    for (int r = 0; r < R; r++) {
      const bool in = own && t < length[r];
      const size_t at = (size_t)(begin + row[r]) * H + j;
      h_t[u][r] = in ? h[at] : 0.f;
      dy_t[u][r] = in && dy ? dy[at - (size_t)B * H] : 0.f;
    }
  };
#pragma unroll
  for (int u = 0; u < AHEAD; u++)
    if (u < steps) load(u, steps - 1 - u, (int)before[steps - u]);
  if (AHEAD < steps) next = (int)before[steps - AHEAD];

  int copy = 0;
  for (int done = 0; done < steps; done += AHEAD) {
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int t = steps - 1 - done - u;
      if (t < 0) break;
      float product[R];
#pragma unroll
      for (int r = 0; r < R; r++) {
        float dz_t = 0.f;
        if (own && t < length[r]) {
          const size_t at = (size_t)(start[u] + row[r]) * H + j;
          dh_t[r] += dy_t[u][r];
          // ReLU selects: 0 times an infinite gradient would be NaN, and a state that is NaN hands on what it gets.
          dz_t = relu ? (h_t[u][r] <= 0.f ? 0.f : dh_t[r]) : dh_t[r] * (1.f - h_t[u][r] * h_t[u][r]);
          dz[at] = dz_t;
          if (trace) trace[at] = dh_t[r];
        }
        if (writes) ((float*)(vectors + copy * BUFFER + r * STRIDE))[j] = dz_t;
      }
      if (t >= AHEAD) {
        load(u, t - AHEAD, next);
        if (t > AHEAD) next = (int)before[t - AHEAD];
      }
      __syncthreads();
      multiply<4, QUADS, SPLIT>(w, vectors + copy * BUFFER, STRIDE, lane, product);
      copy ^= 1;
#pragma unroll
      for (int r = 0; r < R; r++)
        if (t < length[r]) dh_t[r] = masked(product[r], keep[r]);  // on to step t - 1
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++)
    if (own && row[r] < B) dh[(size_t)row[r] * H + j] = dh_t[r];
}
