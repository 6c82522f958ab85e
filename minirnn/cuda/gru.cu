// r, z = sigmoid(.), q = W_hn h_{t-1} + b_hn, n = tanh(. + r q), h_t = n + z (h_{t-1} - n): all steps at once.
//
// Forward, the tile is the 3 gates of one unit, shared by 4 threads: the first three come out of the product
// with r, z and q, and the third goes on to n; the fourth helps with the product and writes h and q.
// Backward, 16 threads share a tile of 4 units, so that each unit is there 4 times: copies 0 to 2 work on
// da_r, da_z and dq, which the product needs, and copy 3 on da_n.
constexpr int PADDED = round_up(H, 16);
constexpr int GROUP = 4 * PADDED;  // threads

// gates (N, 3H): comes with W_ih x_t, leaves with r, z, n; q (N, H) is filled. h (B + N, H) comes with h_0 and
// is filled. mask (B, H), if not null, multiplies the state that enters the product.
extern "C" __global__ void __launch_bounds__(GROUP * GROUPS, 1)
gru_forward(floats gates, floats q, floats h, const_floats w_hh, const_floats b_ih, const_floats b_hh,
            const_floats mask,
            floats gates_reverse, floats q_reverse, floats h_reverse, const_floats w_hh_reverse,
            const_floats b_ih_reverse, const_floats b_hh_reverse, const_floats mask_reverse,
            const int64* __restrict__ before, const int64* __restrict__ lengths, int B) {
  if (blockIdx.y) {  // the reverse direction
    gates = gates_reverse, q = q_reverse, h = h_reverse, w_hh = w_hh_reverse, b_ih = b_ih_reverse,
    b_hh = b_hh_reverse, mask = mask_reverse;
  }
  DYNAMIC_SHARED(float4, shared);  // [2][GROUPS * R][STRIDE]: the states that enter the product
  constexpr int QUADS = PADDED / 16, STRIDE = PADDED / 4, BUFFER = GROUPS * R * STRIDE;
  const int thread = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
  const int gate = thread % 4, j = thread / 4, column = gate * H + j;
  const bool own = j < H, has_gate = own && gate < 3;
  const int first = blockIdx.x * (GROUPS * R), steps = (int)lengths[first];

  float w[3][4 * QUADS];
#pragma unroll
  for (int m = 0; m < 3; m++)
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i++) {
      const int k = input_of<4>(i, gate);
      w[m][i] = own && k < H ? w_hh[(m * H + j) * H + k] : 0.f;
    }
  // r multiplies q with its bias: b_hn may not be added to b_in.
  const float b_x = has_gate && b_ih ? b_ih[column] : 0.f, b_h = has_gate && b_hh ? b_hh[column] : 0.f;

  float4* const vectors = shared + group * R * STRIDE;
  int row[R], length[R];
  float state[R], keep[R];
#pragma unroll
  for (int s = 0; s < R; s++) {
    row[s] = first + group * R + s;
    const bool in = own && row[s] < B;
    length[s] = row[s] < B ? (int)lengths[row[s]] : 0;
    state[s] = in ? h[(size_t)row[s] * H + j] : 0.f;
    keep[s] = in && mask ? mask[row[s] * H + j] : 1.f;
    if (gate == 0) ((float*)(vectors + s * STRIDE))[j] = masked(state[s], keep[s]);
  }

  float a_x[AHEAD][R];
  int start[AHEAD], next = 0;
  auto load = [&](int u, int t, int begin) {
    start[u] = begin;
#pragma unroll
    for (int s = 0; s < R; s++)
      a_x[u][s] = has_gate && t < length[s] ? gates[(size_t)(begin - B + row[s]) * (3 * H) + column] : 0.f;
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
      float a[R], product[R];
#pragma unroll
      for (int s = 0; s < R; s++) a[s] = a_x[u][s] + b_x;
      if (t + AHEAD < steps) {
        load(u, t + AHEAD, next);
        if (t + AHEAD + 1 < steps) next = (int)before[t + AHEAD + 2];
      }
      multiply<3, QUADS, 4>(w, vectors + copy * BUFFER, STRIDE, gate, product);
      copy ^= 1;
#pragma unroll
      for (int s = 0; s < R; s++) {
        const float p = product[s] + b_h;  // of the third thread: q
        const float gate_rz = sigmoid(a[s] + p);
        const float r = from_lane<4>(gate_rz, 0), z = from_lane<4>(gate_rz, 1);
        const float q_t = from_lane<4>(p, 2), n = from_lane<4>(tanhf(fmaf(r, p, a[s])), 2);
        if (t < length[s]) {
          state[s] = fmaf(z, state[s] - n, n);
          if (own) {
            const size_t at = begin + row[s];
            if (gate < 3) {
              gates[(at - B) * (3 * H) + column] = gate == 2 ? n : gate_rz;
            } else {
              h[at * H + j] = state[s];
              q[(at - B) * H + j] = q_t;
            }
          }
        }
        if (gate == 0) ((float*)(vectors + copy * BUFFER + s * STRIDE))[j] = masked(state[s], keep[s]);
      }
      __syncthreads();
    }
  }
}

// da_n = dh_t (1 - z)(1 - n^2), dq = da_n r, da_r = da_n q r (1 - r), da_z = dh_t (h_{t-1} - n) z (1 - z),
// dh_{t-1} = dh_t z + W_hh^T [da_r, da_z, dq].
//
// da_rzn (N, 3H) is filled with da_r, da_z, da_n and da_rzq (N, 3H) with da_r, da_z, dq; dh (B, H) comes with
// the gradient of each last state and leaves with that of h_0. dy (N, H) and trace (N, H), which is filled with
// dh_t, may be null.
extern "C" __global__ void __launch_bounds__(GROUP * GROUPS, 1)
gru_backward(floats da_rzn, floats da_rzq, floats dh, const_floats dy, floats trace, const_floats gates,
             const_floats q, const_floats h, const_floats w_hh, const_floats mask,
             floats da_rzn_reverse, floats da_rzq_reverse, floats dh_reverse, const_floats dy_reverse,
             floats trace_reverse, const_floats gates_reverse, const_floats q_reverse, const_floats h_reverse,
             const_floats w_hh_reverse, const_floats mask_reverse,
             const int64* __restrict__ before, const int64* __restrict__ lengths, int B) {
  if (blockIdx.y) {  // the reverse direction
    da_rzn = da_rzn_reverse, da_rzq = da_rzq_reverse, dh = dh_reverse, dy = dy_reverse,
    trace = trace_reverse, gates = gates_reverse, q = q_reverse, h = h_reverse, w_hh = w_hh_reverse,
    mask = mask_reverse;
  }
  DYNAMIC_SHARED(float4, shared);  // [2][GROUPS * R][STRIDE]: da_r, da_z, dq, and zeros up to whole quads
  constexpr int INPUTS = round_up(3 * PADDED, 64), QUADS = INPUTS / 64, STRIDE = INPUTS / 4;
  constexpr int BUFFER = GROUPS * R * STRIDE;
  const int thread = threadIdx.x % GROUP, group = threadIdx.x / GROUP, lane = thread % 16;
  const int gate = lane / 4, unit = lane % 4, tile = thread / 16 * 4, j = tile + unit;
  const int column = gate * H + j;
  const bool own = j < H;
  const int first = blockIdx.x * (GROUPS * R), steps = (int)lengths[first];

  float w[4][4 * QUADS];  // transposed
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i++) {
      const int n = input_of<16>(i, lane), k = n % PADDED;
      w[m][i] = tile + m < H && n < 3 * PADDED && k < H ? w_hh[(n / PADDED * H + k) * H + tile + m] : 0.f;
    }

  float4* const vectors = shared + group * R * STRIDE;
  int row[R], length[R];
  float dstate[R], keep[R];  // dstate: what step t + 1 hands back
#pragma unroll
  for (int s = 0; s < R; s++) {
    row[s] = first + group * R + s;
    const bool in = own && row[s] < B;
    length[s] = row[s] < B ? (int)lengths[row[s]] : 0;
    dstate[s] = in ? dh[(size_t)row[s] * H + j] : 0.f;
    keep[s] = in && mask ? mask[row[s] * H + j] : 1.f;
    if (3 * PADDED + thread < INPUTS) {
      ((float*)(vectors + s * STRIDE))[3 * PADDED + thread] = 0.f;
      ((float*)(vectors + BUFFER + s * STRIDE))[3 * PADDED + thread] = 0.f;
    }
  }

  float value[AHEAD][R], h_prev[AHEAD][R], dy_t[AHEAD][R];
  int start[AHEAD], begin = 0, next = 0;
  // Loads step t, whose states begin in row `begin` and those before it in row `next`.
  auto load = [&](int u, int t) {
    start[u] = begin - B;
#pragma unroll
    for (int s = 0; s < R; s++) {
      const bool in = own && t < length[s];
      const size_t at = begin - B + row[s];
      value[u][s] = !in ? 0.f : gate < 3 ? gates[at * (3 * H) + column] : q[at * H + j];
      h_prev[u][s] = in ? h[(size_t)(next + row[s]) * H + j] : 0.f;
      dy_t[u][s] = in && dy ? dy[at * H + j] : 0.f;
    }
    begin = next;
    if (t > 0) next = (int)before[t - 1];
  };
  if (steps > 0) begin = (int)before[steps], next = (int)before[steps - 1];
#pragma unroll
  for (int u = 0; u < AHEAD; u++)
    if (u < steps) load(u, steps - 1 - u);

  int copy = 0;
  for (int done = 0; done < steps; done += AHEAD) {
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int t = steps - 1 - done - u;
      if (t < 0) break;
      float product[R];
#pragma unroll
      for (int s = 0; s < R; s++) {
        const float r = from_lane<16>(value[u][s], unit), z = from_lane<16>(value[u][s], unit + 4);
        const float n = from_lane<16>(value[u][s], unit + 8), q_t = from_lane<16>(value[u][s], unit + 12);
        float da_t = 0.f;
        if (own && t < length[s]) {
          const size_t at = start[u] + row[s];
          const float dh_t = dstate[s] + dy_t[u][s], da_n = dh_t * (1.f - z) * (1.f - n * n);
          da_t = gate == 0   ? da_n * q_t * r * (1.f - r)                 // da_r
                 : gate == 1 ? dh_t * (h_prev[u][s] - n) * z * (1.f - z)  // da_z
                 : gate == 2 ? da_n * r                                   // dq
                             : da_n;
          if (gate < 3) da_rzq[at * (3 * H) + column] = da_t;
          if (gate != 2) da_rzn[at * (3 * H) + (gate == 3 ? 2 * H + j : column)] = da_t;
          if (trace && gate == 0) trace[at * H + j] = dh_t;
          dstate[s] = dh_t * z;  // the way past the gates
        }
        if (gate < 3) ((float*)(vectors + copy * BUFFER + s * STRIDE))[gate * PADDED + j] = da_t;
      }
      if (t >= AHEAD) load(u, t - AHEAD);
      __syncthreads();
      multiply<4, QUADS, 16>(w, vectors + copy * BUFFER, STRIDE, lane, product);
      copy ^= 1;
#pragma unroll
      for (int s = 0; s < R; s++)
        if (t < length[s]) dstate[s] += masked(product[s], keep[s]);
    }
  }
#pragma unroll
  for (int s = 0; s < R; s++)
    if (own && gate == 0 && row[s] < B) dh[(size_t)row[s] * H + j] = dstate[s];
}
