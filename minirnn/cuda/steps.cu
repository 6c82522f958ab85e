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

__device__ __forceinline__ real sigmoid(real z) { return real(.5) * tanh(real(.5) * z) + real(.5); }

#define UNIT                                                      \
  const int e = blockIdx.x * blockDim.x + threadIdx.x;            \
  if (e >= n * H) return;                                         \
  const int b = e / H, j = e % H;                                 \
  const int64 at = (row + b) * H + j;

// h holds z = W_ih x_t in the step's rows; product (n, H) = W_hh (mask * h_{t-1}).
extern "C" __global__ void rnn_step_forward(real* h, real* masked, const real* mask, const real* product,
                                            const real* b_ih, const real* b_hh, int relu,
                                            int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real z = h[at + (int64)B * H] + product[e];
  if (b_ih) z += b_ih[j] + b_hh[j];
  const real y = relu ? (z < 0 ? real(0) : z) : tanh(z);
  h[at + (int64)B * H] = y;
  if (mask) masked[e] = mask[e] * y;
}

// dh (B, H): the gradient of the states after this step, without dy; of those that go on, W_hh^T dz_{t+1}.
extern "C" __global__ void rnn_step_backward(real* dz, const real* dh, const real* mask, const real* dy,
                                             real* trace, const real* h, int relu,
                                             int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real total = mask && b < later ? mask[e] * dh[e] : dh[e];
  if (dy) total += dy[at];
  if (trace) trace[at] = total;
  const real y = h[at + (int64)B * H];
  dz[at] = total * (relu ? real(y > 0) : 1 - y * y);
}

// gates (N, 4H) holds W_ih x_t; out, h without h_0, or with a projection what is projected, is filled.
extern "C" __global__ void lstm_step_forward(real* gates, real* c, real* out, real* masked, const real* mask,
                                             const real* product, const real* b_ih, const real* b_hh,
                                             int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real* const mine = gates + (row + b) * 4 * H + j;
  real z[4];
  for (int g = 0; g < 4; g++) {
    z[g] = mine[g * H] + product[(int64)b * 4 * H + g * H + j];
    if (b_ih) z[g] += b_ih[g * H + j] + b_hh[g * H + j];
    mine[g * H] = z[g] = g == 2 ? tanh(z[g]) : sigmoid(z[g]);
  }
  const real cell = z[1] * c[(before + b) * H + j] + z[0] * z[2], y = z[3] * tanh(cell);
  c[at + (int64)B * H] = cell;
  out[at] = y;
  if (mask) masked[e] = mask[e] * y;
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
  real total = mask && b < later ? mask[e] * dh[e] : dh[e];
  if (dy) total += dy[at];
  const real tanh_c = tanh(c[at + (int64)B * H]);
  const real s = dc[e] + total * o * (1 - tanh_c * tanh_c);
  real* const d = dz + (row + b) * 4 * H + j;
  d[0] = s * g * i * (1 - i);
  d[H] = s * c[(before + b) * H + j] * f * (1 - f);
  d[2 * H] = s * i * (1 - g * g);
  d[3 * H] = total * tanh_c * o * (1 - o);
  dc[e] = s * f;
  if (trace_h) trace_h[at] = total;
  if (trace_c) trace_c[at] = s;
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
  const real r = sigmoid(a[0] + p[0]), z = sigmoid(a[1] + p[1]), new_h = tanh(a[2] + r * p[2]);
  mine[0] = r;
  mine[H] = z;
  mine[2 * H] = new_h;
  q[at] = p[2];
  const real y = new_h + z * (h[(before + b) * H + j] - new_h);
  h[at + (int64)B * H] = y;
  if (mask) masked[e] = mask[e] * y;
}

// dh (B, H) + mask * product (B, H): the gradient of the states after this step, without dy. For those that go
// on, product is W_hh^T dq_{t+1}, and dh the part that does not pass through W_hh; for the others product is
// zero. dh goes one step back in place.
extern "C" __global__ void gru_step_backward(real* d_input, real* d_hidden, real* dh, const real* product,
                                             const real* mask, const real* dy, real* trace,
                                             const real* gates, const real* q, const real* h,
                                             int64 row, int64 before, int n, int later, int B, int H) {
  UNIT
  real total = dh[e] + (mask ? mask[e] * product[e] : product[e]);
  if (dy) total += dy[at];
  const real* const mine = gates + (row + b) * 3 * H + j;
  const real r = mine[0], z = mine[H], new_h = mine[2 * H];
  const real da_n = total * (1 - z) * (1 - new_h * new_h), da_r = da_n * q[at] * r * (1 - r);
  const real da_z = total * (h[(before + b) * H + j] - new_h) * z * (1 - z);
  real* const di = d_input + (row + b) * 3 * H + j;
  real* const dq = d_hidden + (row + b) * 3 * H + j;
  di[0] = dq[0] = da_r;
  di[H] = dq[H] = da_z;
  di[2 * H] = da_n;
  dq[2 * H] = da_n * r;
  dh[e] = total * z;
  if (trace) trace[at] = total;
}
