// One time step each, for sizes that the persistent kernels do not hold and for float64: all that comes
// after the step's matrix product, or before it on the way back, in one pass. A thread owns one unit of
// one sequence. Macro: real, float or double.
//
// `row` is the first row of the step in the arrays of N rows; states (B + N, .) have h_0 in front, so that
// there it is `B + row`, and the states before the step begin in row `before`. n sequences take the step,
// and the first `later` of them the next one too.
//
// mask (B, H), recurrent dropout, may be null. It multiplies states before W_hh does: forward fills masked
// (B, H), which is null with it, with mask * h_t for the next step's product; backward applies it to W_hh^T dz,
// the next step's product, when it reads that.
typedef long long int64;

// No digit of the tail at 0 is lost; where exp overflows it is 0.
__device__ __forceinline__ real sigmoid(real z) { return 1 / (1 + exp(-z)); }

// What the mask excludes has no influence, NaN and infinity either.
__device__ __forceinline__ real excluding(real mask, real x) { return mask == 0 ? real(0) : mask * x; }

#define UNIT                                                      \
  const int e = blockIdx.x * blockDim.x + threadIdx.x;            \
  if (e >= n * H) return;                                         \
  const int b = e / H, j = e % H;                                 \
  const int64 at = (row + b) * H + j;

// h holds W_ih x_t in the step's rows; product (n, H) = W_hh (mask * h_{t-1}).
extern "C" __global__ void rnn_step_forward(real* h, real* masked, const real* mask, const real* product,
                                            const real* b_ih, const real* b_hh, int relu,
                                            int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real z = h[at + (int64)B * H] + product[e];
  if (b_ih) z += b_ih[j] + b_hh[j];
  const real h_t = relu ? (z < 0 ? real(0) : z) : tanh(z);
  h[at + (int64)B * H] = h_t;
  if (mask) masked[e] = excluding(mask[e], h_t);
}

// dh (B, H): the gradient of the states after this step, without dy; of those that go on, W_hh^T dz_{t+1}.
extern "C" __global__ void rnn_step_backward(real* dz, const real* dh, const real* mask, const real* dy,
                                             real* trace, const real* h, int relu,
                                             int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real dh_t = mask && b < later ? excluding(mask[e], dh[e]) : dh[e];
  if (dy) dh_t += dy[at];
  if (trace) trace[at] = dh_t;
  const real h_t = h[at + (int64)B * H];
  // ReLU selects: 0 times an infinite gradient would be NaN, and a state that is NaN hands on what it gets.
  dz[at] = relu ? (h_t <= 0 ? real(0) : dh_t) : dh_t * (1 - h_t * h_t);
}

// gates (N, 4H) holds W_ih x_t; m (N, H), filled with o tanh(c_t), is h without h_0, or with a projection what
// is projected.
extern "C" __global__ void lstm_step_forward(real* gates, real* c, real* m, real* masked, const real* mask,
                                             const real* product, const real* b_ih, const real* b_hh,
                                             int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real* const mine = gates + (row + b) * 4 * H + j;
  real gate[4];
  for (int k = 0; k < 4; k++) {
    real z = mine[k * H] + product[(int64)b * 4 * H + k * H + j];
    if (b_ih) z += b_ih[k * H + j] + b_hh[k * H + j];
    mine[k * H] = gate[k] = k == 2 ? tanh(z) : sigmoid(z);
  }
  const real &i = gate[0], &f = gate[1], &g = gate[2], &o = gate[3];
  const real c_t = f * c[(before + b) * H + j] + i * g, m_t = o * tanh(c_t);
  c[at + (int64)B * H] = c_t;
  m[at] = m_t;
  if (mask) masked[e] = excluding(mask[e], m_t);
}

// dh (B, H): the gradient of o tanh(c_t), without dy; of those that go on, W_hh^T dz_{t+1}. dc (B, H) goes
// one step back in place.
extern "C" __global__ void lstm_step_backward(real* dz, real* dc, const real* dh, const real* mask,
                                              const real* dy, real* trace_h, real* trace_c,
                                              const real* gates, const real* c,
                                              int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  const real* const mine = gates + (row + b) * 4 * H + j;
  const real i = mine[0], f = mine[H], g = mine[2 * H], o = mine[3 * H];
  real dh_t = mask && b < later ? excluding(mask[e], dh[e]) : dh[e];
  if (dy) dh_t += dy[at];
  const real tanh_c = tanh(c[at + (int64)B * H]);
  const real dc_t = dc[e] + dh_t * o * (1 - tanh_c * tanh_c);
  real* const dz_t = dz + (row + b) * 4 * H + j;
  dz_t[0] = dc_t * g * i * (1 - i);                        // dz_i
  dz_t[H] = dc_t * c[(before + b) * H + j] * f * (1 - f);  // dz_f
  dz_t[2 * H] = dc_t * i * (1 - g * g);                    // dz_g
  dz_t[3 * H] = dh_t * tanh_c * o * (1 - o);               // dz_o
  dc[e] = dc_t * f;
  if (trace_h) trace_h[at] = dh_t;
  if (trace_c) trace_c[at] = dc_t;
}

// gates (N, 3H) holds W_ih x_t; product (n, 3H) = W_hh (mask * h_{t-1}).
extern "C" __global__ void gru_step_forward(real* gates, real* q, real* h, real* masked, const real* mask,
                                            const real* product, const real* b_ih, const real* b_hh,
                                            int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real* const mine = gates + (row + b) * 3 * H + j;
  real a[3], p[3];
  for (int g = 0; g < 3; g++) {
    a[g] = mine[g * H] + (b_ih ? b_ih[g * H + j] : real(0));
    p[g] = product[(int64)b * 3 * H + g * H + j] + (b_hh ? b_hh[g * H + j] : real(0));
  }
  const real r = sigmoid(a[0] + p[0]), z = sigmoid(a[1] + p[1]), n_t = tanh(a[2] + r * p[2]);
  mine[0] = r;
  mine[H] = z;
  mine[2 * H] = n_t;
  q[at] = p[2];
  const real h_t = n_t + z * (h[(before + b) * H + j] - n_t);
  h[at + (int64)B * H] = h_t;
  if (mask) masked[e] = excluding(mask[e], h_t);
}

// dh (B, H) + mask * product (B, H): the gradient of the states after this step, without dy. For those that go
// on, product is W_hh^T [da_r, da_z, dq] of step t + 1, and dh the part that does not pass through W_hh; for
// the others product is zero. dh goes one step back in place.
extern "C" __global__ void gru_step_backward(real* da_rzn, real* da_rzq, real* dh, const real* product,
                                             const real* mask, const real* dy, real* trace,
                                             const real* gates, const real* q, const real* h,
                                             int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real dh_t = dh[e] + (mask ? excluding(mask[e], product[e]) : product[e]);
  if (dy) dh_t += dy[at];
  const real* const mine = gates + (row + b) * 3 * H + j;
  const real r = mine[0], z = mine[H], n_t = mine[2 * H];
  const real da_n = dh_t * (1 - z) * (1 - n_t * n_t), da_r = da_n * q[at] * r * (1 - r);
  const real da_z = dh_t * (h[(before + b) * H + j] - n_t) * z * (1 - z);
  real* const da_rzn_t = da_rzn + (row + b) * 3 * H + j;
  real* const da_rzq_t = da_rzq + (row + b) * 3 * H + j;
  da_rzn_t[0] = da_rzq_t[0] = da_r;
  da_rzn_t[H] = da_rzq_t[H] = da_z;
  da_rzn_t[2 * H] = da_n;
  da_rzq_t[2 * H] = da_n * r;  // dq
  dh[e] = dh_t * z;
  if (trace) trace[at] = dh_t;
}
