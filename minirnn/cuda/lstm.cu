// i, f, o = sigmoid(z), g = tanh(z), c_t = f c_{t-1} + i g, h_t = o tanh(c_t): all steps at once.
//
// Forward, the tile of 4 rows is the 4 gates of one unit, shared by 4 threads: each comes out of the
// product with one gate, applies that gate's own nonlinearity, and they exchange. Backward, 16 threads
// share a tile of 4 units, so that each unit is there 4 times: copy q works on gate q.
constexpr int PADDED = round_up(H, 16);
constexpr int GROUP = 4 * PADDED;  // threads
constexpr int QUADS = PADDED / 16;

// gates (N, 4H): comes with W_ih x_t, leaves with i, f, g, o. h and c (B + N, H) come with h_0 and c_0
// and are filled. mask (B, H), if not null, multiplies the state that enters the product.
extern "C" __global__ void __launch_bounds__(GROUP * GROUPS, 1)
lstm_forward(floats gates, floats h, floats c, const_floats w_hh, const_floats b_ih, const_floats b_hh,
             const_floats mask,
             floats gates_reverse, floats h_reverse, floats c_reverse, const_floats w_hh_reverse,
             const_floats b_ih_reverse, const_floats b_hh_reverse, const_floats mask_reverse,
             const int64* __restrict__ before, const int64* __restrict__ lengths, int B) {
  if (blockIdx.y) {  // the reverse direction
    gates = gates_reverse, h = h_reverse, c = c_reverse, w_hh = w_hh_reverse, b_ih = b_ih_reverse,
    b_hh = b_hh_reverse, mask = mask_reverse;
  }
  DYNAMIC_SHARED(float4, shared);  // [2][GROUPS * R][STRIDE]: the states that enter the product
  constexpr int STRIDE = PADDED / 4, BUFFER = GROUPS * R * STRIDE;
  const int thread = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
  const int gate = thread % 4, j = thread / 4, column = gate * H + j;
  const bool own = j < H;
  const int first = blockIdx.x * (GROUPS * R), steps = (int)lengths[first];

  float w[4][4 * QUADS];
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i++) {
      const int k = input_of<4>(i, gate);
      w[m][i] = own && k < H ? w_hh[(m * H + j) * H + k] : 0.f;
    }
  const float bias = own && b_ih ? b_ih[column] + b_hh[column] : 0.f;

  float4* const vectors = shared + group * R * STRIDE;
  int row[R], length[R];
  float state[R], cell[R], keep[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    row[r] = first + group * R + r;
    const bool in = own && row[r] < B;
    length[r] = row[r] < B ? (int)lengths[row[r]] : 0;
    state[r] = in ? h[(size_t)row[r] * H + j] : 0.f;
    cell[r] = in ? c[(size_t)row[r] * H + j] : 0.f;
    keep[r] = in && mask ? mask[row[r] * H + j] : 1.f;
    if (gate == 0) ((float*)(vectors + r * STRIDE))[j] = masked(state[r], keep[r]);
  }

  float z_x[AHEAD][R];
  int start[AHEAD], next = 0;
  auto load = [&](int u, int t, int begin) {
    start[u] = begin;
#pragma unroll
    for (int r = 0; r < R; r++)
      z_x[u][r] = own && t < length[r] ? gates[(size_t)(begin - B + row[r]) * (4 * H) + column] : 0.f;
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
      multiply<4, QUADS, 4>(w, vectors + copy * BUFFER, STRIDE, gate, product);
      copy ^= 1;
#pragma unroll
      for (int r = 0; r < R; r++) {
        const float a = z[r] + product[r], value = gate == 2 ? tanhf(a) : sigmoid(a);
        const float i = from_lane<4>(value, 0), f = from_lane<4>(value, 1);
        const float g = from_lane<4>(value, 2), o = from_lane<4>(value, 3);
        if (t < length[r]) {
          cell[r] = fmaf(f, cell[r], i * g);
          state[r] = o * tanhf(cell[r]);
          if (own) {
            const size_t at = begin + row[r];
            gates[(at - B) * (4 * H) + column] = value;
            if (gate == 0) h[at * H + j] = state[r];
            if (gate == 1) c[at * H + j] = cell[r];
          }
        }
        if (gate == 0) ((float*)(vectors + copy * BUFFER + r * STRIDE))[j] = masked(state[r], keep[r]);
      }
      __syncthreads();
    }
  }
}

// dc_t += dh_t o (1 - tanh^2 c_t), dc_{t-1} = dc_t f, dh_{t-1} = W_hh^T dz_t, where dz_i = dc_t g i (1 - i),
// dz_f = dc_t c_{t-1} f (1 - f), dz_g = dc_t i (1 - g^2), dz_o = dh_t tanh(c_t) o (1 - o).
//
// dz (N, 4H) is filled; dh and dc (B, H) come with the gradients of the last states and leave with those
// of the initial ones. dy (N, H), trace_h and trace_c (N, H), filled with dh_t and dc_t, may be null.
extern "C" __global__ void __launch_bounds__(GROUP * GROUPS, 1)
lstm_backward(floats dz, floats dh, floats dc, const_floats dy, floats trace_h, floats trace_c,
              const_floats gates, const_floats c, const_floats w_hh, const_floats mask,
              floats dz_reverse, floats dh_reverse, floats dc_reverse, const_floats dy_reverse,
              floats trace_h_reverse, floats trace_c_reverse, const_floats gates_reverse,
              const_floats c_reverse, const_floats w_hh_reverse, const_floats mask_reverse,
              const int64* __restrict__ before, const int64* __restrict__ lengths, int B) {
  if (blockIdx.y) {  // the reverse direction
    dz = dz_reverse, dh = dh_reverse, dc = dc_reverse, dy = dy_reverse, trace_h = trace_h_reverse,
    trace_c = trace_c_reverse, gates = gates_reverse, c = c_reverse, w_hh = w_hh_reverse,
    mask = mask_reverse;
  }
  DYNAMIC_SHARED(float4, shared);  // [2][GROUPS * R][STRIDE]: dz_t, gate after gate
  constexpr int STRIDE = PADDED, BUFFER = GROUPS * R * STRIDE;
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
      w[m][i] = tile + m < H && k < H ? w_hh[(n / PADDED * H + k) * H + tile + m] : 0.f;
    }

  float4* const vectors = shared + group * R * STRIDE;
  int row[R], length[R];
  float dstate[R], dcell[R], keep[R];  // dstate, dcell: what step t + 1 hands back
#pragma unroll
  for (int r = 0; r < R; r++) {
    row[r] = first + group * R + r;
    const bool in = own && row[r] < B;
    length[r] = row[r] < B ? (int)lengths[row[r]] : 0;
    dstate[r] = in ? dh[(size_t)row[r] * H + j] : 0.f;
    dcell[r] = in ? dc[(size_t)row[r] * H + j] : 0.f;
    keep[r] = in && mask ? mask[row[r] * H + j] : 1.f;
  }

  float value[AHEAD][R], c_t[AHEAD][R], c_prev[AHEAD][R], dy_t[AHEAD][R];
  int start[AHEAD], begin = 0, next = 0;
  // Loads step t, whose states begin in row `begin` and those before it in row `next`.
  auto load = [&](int u, int t) {
    start[u] = begin - B;
#pragma unroll
    for (int r = 0; r < R; r++) {
      const bool in = own && t < length[r];
      const size_t at = begin - B + row[r];
      value[u][r] = in ? gates[at * (4 * H) + column] : 0.f;
      c_t[u][r] = in ? c[(at + B) * H + j] : 0.f;
      c_prev[u][r] = in ? c[(size_t)(next + row[r]) * H + j] : 0.f;
      dy_t[u][r] = in && dy ? dy[at * H + j] : 0.f;
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
      for (int r = 0; r < R; r++) {
        const float i = from_lane<16>(value[u][r], unit), f = from_lane<16>(value[u][r], unit + 4);
        const float g = from_lane<16>(value[u][r], unit + 8), o = from_lane<16>(value[u][r], unit + 12);
        float dz_t = 0.f;
        if (own && t < length[r]) {
          const size_t at = start[u] + row[r];
          const float dh_t = dstate[r] + dy_t[u][r], tanh_c = tanhf(c_t[u][r]);
          const float dc_t = fmaf(dh_t * o, 1.f - tanh_c * tanh_c, dcell[r]);
          dz_t = gate == 0   ? dc_t * g * i * (1.f - i)             // dz_i
                 : gate == 1 ? dc_t * c_prev[u][r] * f * (1.f - f)  // dz_f
                 : gate == 2 ? dc_t * i * (1.f - g * g)             // dz_g
                             : dh_t * tanh_c * o * (1.f - o);       // dz_o
          dcell[r] = dc_t * f;
          dz[at * (4 * H) + column] = dz_t;
          if (trace_h && gate == 0) trace_h[at * H + j] = dh_t;
          if (trace_c && gate == 1) trace_c[at * H + j] = dc_t;
        }
        ((float*)(vectors + copy * BUFFER + r * STRIDE))[gate * PADDED + j] = dz_t;
      }
      if (t >= AHEAD) load(u, t - AHEAD);
      __syncthreads();
      multiply<4, QUADS, 16>(w, vectors + copy * BUFFER, STRIDE, lane, product);
      copy ^= 1;
#pragma unroll
      for (int r = 0; r < R; r++)
        if (t < length[r]) dstate[r] = masked(product[r], keep[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++)
    if (own && row[r] < B) {
      if (gate == 0) dh[(size_t)row[r] * H + j] = dstate[r];
      if (gate == 1) dc[(size_t)row[r] * H + j] = dcell[r];
    }
}
