/* The loops over time for one type of number and one instruction set; _loops.c includes this for each of them.
 *
 *   REAL, BITS_OF_REAL    the type, and an unsigned integer of its size
 *   NAME(x)               x with a suffix of its own
 *   VECTOR_BYTES, LANES   bytes and numbers in a vector of the instruction set
 *   TARGET                attribute that lets a function use it
 *
 * Besides it needs what stands in _loops.c before the first of them, and the constants of types.h.
 *
 * The equations stand in minirnn/functional/rnn.py, lstm.py and gru.py, and so do the names. Rows are those of a
 * packed batch: step t has sizes[t] of them, after those of the steps before. States are [entering; all rows], B of
 * them entering. Loops over a row's H entries are marked for vectors, as the compiler finds gates too many to try.
 */
#define SIMD _Pragma("omp simd")

#include "products.h"

/* 2^n, and expm1(r) in `p`, of y = n ln 2 + r with |r| <= ln 2 / 2: exp(y) = 2^n p + 2^n. For LOWEST <= y <= 0, where
 * 2^n is 0 in the place of less than a normal number. */
INLINE REAL NAME(power)(REAL y, REAL *expm1_r) {
    static const REAL factorials[] = {INVERSE_FACTORIALS};
    const int terms = sizeof factorials / sizeof *factorials;
    REAL shifted = y * LOG2_E + MAGIC; /* rounds to an integer, which stands in the lowest bits */
    REAL n = shifted - MAGIC;
    REAL r = y - n * LN2_HIGH - n * LN2_LOW;
    REAL p = factorials[0];
    for (int k = 1; k < terms; k++) p = p * r + factorials[k];
    *expm1_r = p * r * r + r;
    union { REAL real; BITS_OF_REAL bits; } magic = {MAGIC}, power = {shifted};
    power.bits = (power.bits - magic.bits + EXPONENT_OF_ONE) << FRACTION_BITS; /* 2^n */
    return power.real;
}

/* tanh x = -e / (2 + e) for x > 0, with e = expm1(-2x). No branches. NaN stays NaN. */
INLINE REAL NAME(tanh)(REAL x) {
    REAL y = -2 * ABS(x), p;
    REAL power = NAME(power)(y < LOWEST ? LOWEST : y, &p), e = power * p + (power - 1);
    return COPYSIGN(e / (2 + e), x);
}

/* e / (1 + e) for z < 0, with e = exp(-|z|), and 1 / (1 + e) else: no overflow, and all digits of the tail at 0, down
 * to the smallest normal numbers. */
INLINE REAL NAME(sigmoid)(REAL z) {
    REAL y = -ABS(z), p;
    REAL power = NAME(power)(y < LOWEST ? LOWEST : y, &p), e = power * p + power;
    return (z < 0 ? e : 1) / (1 + e);
}

TARGET static void NAME(tanh_all)(void *out, const void *x, Size count) {
    REAL *restrict y = out;
    const REAL *restrict from = x;
    SIMD
    for (Size k = 0; k < count; k++) y[k] = NAME(tanh)(from[k]);
}

/* ---- recurrent dropout -------------------------------------------------------------------------------------------- */

/* What enters the recurrent product: mu * h_{t-1}, if there is a mask; what it excludes has no influence, NaN too. */
INLINE const REAL *NAME(entering)(const REAL *h_prev, const REAL *restrict mask, REAL *restrict masked, Size count) {
    if (!mask) return h_prev;
    for (Size j = 0; j < count; j++) masked[j] = mask[j] == 0 ? 0 : h_prev[j] * mask[j];
    return masked;
}

/* dh_{t-1} += mu * W_hh^T dz */
INLINE void NAME(add_to_previous)(REAL *dh, const REAL *dz, const REAL *w, const REAL *restrict mask, REAL *masked,
                                  Size n, Size K, Size H, Size dz_row) {
    if (!mask) {
        NAME(product)(dh, dz, w, n, K, H, dz_row, 1);
        return;
    }
    NAME(product)(masked, dz, w, n, K, H, dz_row, 0);
    for (Size j = 0; j < n * H; j++) dh[j] += mask[j] == 0 ? 0 : mask[j] * masked[j];
}

/* dh_t: what came back through time, and what came from the output. */
INLINE void NAME(add_output)(REAL *restrict dh, const REAL *restrict dy, REAL *restrict trace, Size first, Size count) {
    if (dy) for (Size j = 0; j < count; j++) dh[j] += dy[first + j];
    if (trace) memcpy(trace + first, dh, sizeof(REAL) * count);
}

/* ---- gates -------------------------------------------------------------------------------------------------------- */

/* One function a loop: of one as short as that a processor has several vectors under way. */
INLINE void NAME(sigmoids)(REAL *restrict z, const REAL *restrict b, Size count) {
    SIMD
    for (Size j = 0; j < count; j++) z[j] = NAME(sigmoid)(z[j] + b[j]);
}

INLINE void NAME(tanhs)(REAL *restrict z, const REAL *restrict b, Size count) {
    SIMD
    for (Size j = 0; j < count; j++) z[j] = NAME(tanh)(z[j] + b[j]);
}

INLINE void NAME(relus)(REAL *restrict z, const REAL *restrict b, Size count) {
    SIMD
    for (Size j = 0; j < count; j++) z[j] = z[j] + b[j] <= 0 ? 0 : z[j] + b[j];
}

/* ---- before some steps forward, and after them backward ------------------------------------------------------------- */

/* Where dz is to lie: in the array of all rows that was given, or in the loop's own for a block of steps. */
INLINE REAL *NAME(room)(void *const *at) { return at[0] ? at[0] : at[6]; }

INLINE void NAME(add_biases)(REAL *restrict b, const REAL *restrict b_ih, const REAL *restrict b_hh, Size count) {
    for (Size j = 0; j < count; j++) b[j] = b_ih ? b_ih[j] + b_hh[j] : 0;
}

/* What the input gives to the next steps, out = x W_ih^T, for as many rows as a product takes at a time: they are still in
 * a cache when the steps come to them. Return the step after them. */
INLINE Size NAME(begin)(void *const *at, REAL *out, Span span, Size t, Size start, int gates) {
    const REAL *w_ih = at[6], *x = at[7];
    Size rows = span.sizes[t++];
    for (; t < span.T && rows + span.sizes[t] <= HEIGHT; t++) rows += span.sizes[t];
    if (w_ih) NAME(product)(out, x + start * span.I, w_ih, rows, span.I, gates * span.H, span.I, 0);
    return t;
}

/* The same for a single step, the sum of the biases, and h W_hh^T to `from_h`, or if that is `out`, added to it. */
INLINE void NAME(begin_step)(void *const *at, REAL *out, const REAL *h, REAL *from_h, Span span, int gates) {
    const REAL *w_ih = at[0], *x = at[1], *w_hh = at[2];
    Size K = gates * span.H;
    NAME(add_biases)(at[5], at[3], at[4], K);
    NAME(product_transposed)(out, x, w_ih, span.B, span.I, K, 0);
    NAME(product_transposed)(from_h, h, w_hh, span.B, span.H, K, from_h == out);
}

/* Add columns up in double: of many rows float would lose the small ones. */
INLINE void NAME(add_columns)(double *restrict sums, const REAL *restrict dz, Size rows, Size width) {
    enum { SUMS = VECTOR_BYTES }; /* eight vectors of them, under way at the same time */
    for (Size j = 0; j < width; j += SUMS) {
        int columns = width - j < SUMS ? (int)(width - j) : SUMS;
        double sum[SUMS] = {0};
        for (Size row = 0; row < rows; row++)
            for (int c = 0; c < columns; c++) sum[c] += dz[row * width + j + c];
        for (int c = 0; c < columns; c++) sums[j + c] += sum[c];
    }
}

/* Add sums to what a bias's gradient has from `first` on. */
INLINE void NAME(add_sums)(void *db, Size first, const double *restrict sums, Size count, int wide) {
    for (Size j = 0; j < count; j++)
        if (wide) ((double *)db)[first + j] += sums[j];
        else ((REAL *)db)[first + j] += (REAL)sums[j];
}

/* db = sum_t dz_t: what the block adds to it, and with the last block, which is of the first steps, the whole. The GRU's
 * dz has a block of columns more, dq, before those of r, z and n; of b_hh's it takes the place of n's. */
INLINE void NAME(add_bias_gradients)(void *const *at, const REAL *dz, Span span, Block block, int gates, int gru) {
    void *db_ih = at[0], *db_hh = at[1];
    double *sums = at[2];
    if (!db_ih) return;
    Size H = span.H, K = gates * H, width = gru ? K + H : K;
    if (block.row + block.rows == span.N) memset(sums, 0, sizeof(double) * width);
    NAME(add_columns)(sums, dz, block.rows, width);
    if (block.first) return;
    NAME(add_sums)(db_ih, 0, sums + width - K, K, span.wide);
    NAME(add_sums)(db_hh, 0, sums + width - K, gru ? 2 * H : K, span.wide);
    if (gru) NAME(add_sums)(db_hh, 2 * H, sums, H, span.wide);
}

/* dx = dz W_ih, dW_ih += dz^T x, dW_hh += sum_t dz_t^T (mu * h_{t-1}), and the biases', of a block of steps, if they are
 * not left to NumPy. Of the GRU's W_hh, too, dq takes the place of n's. */
INLINE void NAME(add_gradients)(void *const *at, const REAL *dz, const REAL *h, const REAL *mask, REAL *masked, Span span,
                                Block block, int gates, int gru) {
    const REAL *w_ih = at[0], *x = at[1];
    REAL *dx = at[2], *dw_ih = at[3], *dw_hh = at[4], *x_panels = at[6], *h_panels = at[7], *spread = at[8];
    NAME(add_bias_gradients)(at + 9, dz, span, block, gates, gru);
    if (!w_ih) return;
    Size H = span.H, I = span.I, K = gates * H, width = gru ? K + H : K;
    Size t = block.first, before = t ? span.sizes[t - 1] : span.B;
    const REAL *h_prev = h + (span.B + block.row - before) * H, *dz_ih = gru ? dz + H : dz;
    x += block.row * I;
    dx += block.row * I;
    for (Size first = 0, row = 0; first < block.rows; first += TOGETHER) {
        Size depth = block.rows - first < TOGETHER ? block.rows - first : TOGETHER;
        for (Size d = 0; d < depth; d++, row++) {
            for (; row == span.sizes[t]; row = 0, before = span.sizes[t++]) h_prev += before * H;
            NAME(lay)(x_panels, x + (first + d) * I, d, depth, I);
            const REAL *mask_row = mask ? mask + row * H : NULL;
            NAME(lay)(h_panels, NAME(entering)(h_prev + row * H, mask_row, masked, H), d, depth, H);
        }
        NAME(pad)(x_panels, depth, I);
        NAME(pad)(h_panels, depth, H);
        const REAL *a = dz_ih + first * width;
        NAME(product)(dx + first * I, a, w_ih, depth, K, I, width, 0);
        NAME(Sum) of_both[] = {{dw_ih, x_panels, I}, {dw_hh, h_panels, H}};
        NAME(add_transposed)(of_both, 2, a, gru ? 2 * H : K, depth, width, spread);
        if (!gru) continue;
        NAME(Sum) of_n = {dw_ih + 2 * H * I, x_panels, I}, of_q = {dw_hh + 2 * H * H, h_panels, H};
        NAME(add_transposed)(&of_n, 1, a + 2 * H, H, depth, width, spread);
        NAME(add_transposed)(&of_q, 1, a - H, H, depth, width, spread);
    }
}

/* ---- RNN ---------------------------------------------------------------------------------------------------------- */

/* z_t becomes h_t in its place. */
INLINE void NAME(rnn_states)(REAL *h, const REAL *b, Size n, Size H, int relu) {
    for (Size row = 0; row < n; row++)
        if (relu) NAME(relus)(h + row * H, b, H);
        else NAME(tanhs)(h + row * H, b, H);
}

INLINE void NAME(rnn_forward)(void *const *at, Span span, int relu) {
    REAL *h = at[0], *b = at[4], *masked = at[6];
    const REAL *w = at[1], *mask = at[5];
    Size H = span.H;
    const REAL *h_prev = h;
    h += span.B * H;
    NAME(add_biases)(b, at[2], at[3], H);
    for (Size t = 0, next = 0, start = 0; t < span.T; t++) {
        Size n = span.sizes[t];
        if (t == next) next = NAME(begin)(at + 1, h, span, t, start, 1);
        NAME(product)(h, NAME(entering)(h_prev, mask, masked, n * H), w, n, H, H, H, 1);
        NAME(rnn_states)(h, b, n, H, relu);
        h_prev = h;
        h += n * H;
        start += n;
    }
}

INLINE void NAME(rnn_backward)(void *const *at, Span span, int relu) {
    REAL *dh = at[0], *trace = at[2], *masked = at[6], *dz_all = NAME(room)(at + 7);
    const REAL *dy = at[1], *h = at[3], *w = at[4], *mask = at[5];
    Size H = span.H, start = span.N;
    Block block = {.first = span.T};
    for (Size t = span.T - 1; t >= 0; t--) {
        Size n = span.sizes[t];
        if (t < block.first) block = steps_up_to(span, t, start, at[7]);
        start -= n;
        NAME(add_output)(dh, dy, trace, start * H, n * H);
        REAL *restrict dz = dz_all + (start - block.row) * H, *restrict d = dh;
        const REAL *restrict y = h + (span.B + start) * H;
        SIMD
        for (Size j = 0; j < n * H; j++) {
            dz[j] = relu ? (y[j] <= 0 ? 0 : d[j]) : d[j] * (1 - y[j] * y[j]);
            d[j] = 0;
        }
        NAME(add_to_previous)(d, dz, w, mask, masked, n, H, H, H);
        if (t == block.first) NAME(add_gradients)(at + 8, dz_all, h, mask, masked, span, block, 1, 0);
    }
}

INLINE void NAME(rnn_step)(void *const *at, Span span, int relu) {
    REAL *h_new = at[0];
    NAME(begin_step)(at + 2, h_new, at[1], h_new, span, 1);
    NAME(rnn_states)(h_new, at[7], span.B, span.H, relu);
}

TARGET static void NAME(rnn_tanh_forward)(void *const *at, Span span) { NAME(rnn_forward)(at, span, 0); }
TARGET static void NAME(rnn_relu_forward)(void *const *at, Span span) { NAME(rnn_forward)(at, span, 1); }
TARGET static void NAME(rnn_tanh_step)(void *const *at, Span span) { NAME(rnn_step)(at, span, 0); }
TARGET static void NAME(rnn_relu_step)(void *const *at, Span span) { NAME(rnn_step)(at, span, 1); }
TARGET static void NAME(rnn_tanh_backward)(void *const *at, Span span) { NAME(rnn_backward)(at, span, 0); }
TARGET static void NAME(rnn_relu_backward)(void *const *at, Span span) { NAME(rnn_backward)(at, span, 1); }

/* ---- LSTM --------------------------------------------------------------------------------------------------------- */

/* z_t becomes the gates in their place. */
INLINE void NAME(lstm_states)(REAL *gates, REAL *h, REAL *c, const REAL *c_prev, const REAL *b, Size n, Size H) {
    for (Size row = 0; row < n; row++) {
        REAL *i = gates + row * 4 * H, *f = i + H, *g = f + H, *o = g + H;
        const REAL *restrict c_before = c_prev + row * H;
        REAL *restrict c_t = c + row * H, *restrict h_t = h + row * H;
        NAME(sigmoids)(i, b, 2 * H); /* and f */
        NAME(tanhs)(g, b + 2 * H, H);
        NAME(sigmoids)(o, b + 3 * H, H);
        SIMD
        for (Size j = 0; j < H; j++) {
            c_t[j] = f[j] * c_before[j] + i[j] * g[j];
            h_t[j] = o[j] * NAME(tanh)(c_t[j]);
        }
    }
}

TARGET static void NAME(lstm_forward)(void *const *at, Span span) {
    REAL *gates = at[0], *h = at[1], *c = at[2], *b = at[6], *masked = at[8];
    const REAL *w = at[3], *mask = at[7];
    Size H = span.H;
    const REAL *h_prev = h, *c_prev = c;
    h += span.B * H;
    c += span.B * H;
    NAME(add_biases)(b, at[4], at[5], 4 * H);
    for (Size t = 0, next = 0, start = 0; t < span.T; t++) {
        Size n = span.sizes[t];
        if (t == next) next = NAME(begin)(at + 3, gates, span, t, start, 4);
        NAME(product)(gates, NAME(entering)(h_prev, mask, masked, n * H), w, n, H, 4 * H, H, 1);
        NAME(lstm_states)(gates, h, c, c_prev, b, n, H);
        h_prev = h;
        c_prev = c;
        h += n * H;
        c += n * H;
        gates += n * 4 * H;
        start += n;
    }
}

TARGET static void NAME(lstm_step)(void *const *at, Span span) {
    REAL *gates = at[4];
    NAME(begin_step)(at + 5, gates, at[2], gates, span, 4);
    NAME(lstm_states)(gates, at[0], at[1], at[3], at[10], span.B, span.H);
}

TARGET static void NAME(lstm_backward)(void *const *at, Span span) {
    REAL *dh = at[0], *dc = at[1], *trace_h = at[3], *trace_c = at[4], *masked = at[10], *dz_all = NAME(room)(at + 11);
    const REAL *dy = at[2], *gates = at[5], *h = at[6], *c = at[7], *w = at[8], *mask = at[9];
    Size H = span.H, start = span.N;
    Block block = {.first = span.T};
    for (Size t = span.T - 1; t >= 0; t--) {
        Size n = span.sizes[t];
        if (t < block.first) block = steps_up_to(span, t, start, at[11]);
        start -= n;
        REAL *dz = dz_all + (start - block.row) * 4 * H;
        const REAL *c_prev = c + (t ? span.B + start - span.sizes[t - 1] : 0) * H;
        NAME(add_output)(dh, dy, trace_h, start * H, n * H);
        for (Size row = 0; row < n; row++) {
            Size k = start + row;
            const REAL *restrict i = gates + k * 4 * H, *restrict f = i + H, *restrict g = f + H, *restrict o = g + H;
            const REAL *restrict c_t = c + (span.B + k) * H, *restrict c_before = c_prev + row * H;
            REAL *restrict dz_i = dz + row * 4 * H, *restrict dz_f = dz_i + H, *restrict dz_g = dz_f + H;
            REAL *restrict dz_o = dz_g + H, *restrict dh_t = dh + row * H, *restrict dc_t = dc + row * H;
            SIMD
            for (Size j = 0; j < H; j++) {
                REAL tanh_c = NAME(tanh)(c_t[j]); /* anew, in less time than memory takes to keep it */
                dc_t[j] += dh_t[j] * o[j] * (1 - tanh_c * tanh_c);
                dz_o[j] = dh_t[j] * tanh_c * o[j] * (1 - o[j]);
                dh_t[j] = 0;
            }
            if (trace_c) memcpy(trace_c + k * H, dc_t, sizeof(REAL) * H);
            SIMD
            for (Size j = 0; j < H; j++) {
                dz_i[j] = dc_t[j] * g[j] * i[j] * (1 - i[j]);
                dz_f[j] = dc_t[j] * c_before[j] * f[j] * (1 - f[j]);
                dz_g[j] = dc_t[j] * i[j] * (1 - g[j] * g[j]);
                dc_t[j] *= f[j];
            }
        }
        NAME(add_to_previous)(dh, dz, w, mask, masked, n, 4 * H, H, 4 * H);
        if (t == block.first) NAME(add_gradients)(at + 12, dz_all, h, mask, masked, span, block, 4, 0);
    }
}

/* ---- GRU ---------------------------------------------------------------------------------------------------------- */

/* Of all biases added up: those of r and z, n's of W_ih, n's of W_hh. */
INLINE void NAME(part_biases)(REAL *restrict b, const REAL *restrict b_ih, const REAL *restrict b_hh, Size H) {
    for (Size j = 2 * H; j < 3 * H; j++) {
        b[j] = b_ih ? b_ih[j] : 0;
        b[H + j] = b_hh ? b_hh[j] : 0;
    }
}

/* What the input gives becomes the gates in their place; p is what h_{t-1} gives. */
INLINE void NAME(gru_states)(REAL *gates, REAL *q, REAL *h, const REAL *h_prev, const REAL *p, const REAL *b,
                             Size count, Size H) {
    for (Size row = 0; row < count; row++) {
        REAL *rz = gates + row * 3 * H, *r = rz, *z = r + H, *n = z + H;
        const REAL *restrict p_rz = p + row * 3 * H, *restrict p_n = p_rz + 2 * H;
        const REAL *restrict before = h_prev + row * H;
        REAL *restrict q_t = q + row * H, *restrict h_t = h + row * H;
        SIMD
        for (Size j = 0; j < 2 * H; j++) rz[j] = NAME(sigmoid)(rz[j] + p_rz[j] + b[j]);
        SIMD
        for (Size j = 0; j < H; j++) {
            q_t[j] = p_n[j] + b[3 * H + j];
            n[j] = NAME(tanh)(n[j] + b[2 * H + j] + r[j] * q_t[j]);
            h_t[j] = n[j] + z[j] * (before[j] - n[j]);
        }
    }
}

TARGET static void NAME(gru_forward)(void *const *at, Span span) {
    REAL *gates = at[0], *q = at[1], *h = at[2], *p = at[3], *b = at[7], *masked = at[9];
    const REAL *w = at[4], *b_ih = at[5], *b_hh = at[6], *mask = at[8];
    Size H = span.H;
    const REAL *h_prev = h;
    h += span.B * H;
    NAME(add_biases)(b, b_ih, b_hh, 3 * H);
    NAME(part_biases)(b, b_ih, b_hh, H);
    for (Size t = 0, next = 0, start = 0; t < span.T; t++) {
        Size count = span.sizes[t];
        if (t == next) next = NAME(begin)(at + 4, gates, span, t, start, 3);
        NAME(product)(p, NAME(entering)(h_prev, mask, masked, count * H), w, count, H, 3 * H, H, 0);
        NAME(gru_states)(gates, q, h, h_prev, p, b, count, H);
        h_prev = h;
        h += count * H;
        q += count * H;
        gates += count * 3 * H;
        start += count;
    }
}

TARGET static void NAME(gru_step)(void *const *at, Span span) {
    REAL *gates = at[2], *p = at[3], *b = at[10];
    NAME(begin_step)(at + 5, gates, at[1], p, span, 3);
    NAME(part_biases)(b, at[8], at[9], span.H);
    NAME(gru_states)(gates, at[4], at[0], at[1], p, b, span.B, span.H);
}

/* As in gru.py, da has its blocks in the order q, r, z, n, and w (q, r, z) those of the first three. */
TARGET static void NAME(gru_backward)(void *const *at, Span span) {
    REAL *dh = at[0], *trace = at[2], *masked = at[8], *da_all = NAME(room)(at + 9);
    const REAL *dy = at[1], *gates = at[3], *q = at[4], *h = at[5], *w = at[6], *mask = at[7];
    Size H = span.H, start = span.N;
    Block block = {.first = span.T};
    for (Size t = span.T - 1; t >= 0; t--) {
        Size count = span.sizes[t];
        if (t < block.first) block = steps_up_to(span, t, start, at[9]);
        start -= count;
        REAL *da = da_all + (start - block.row) * 4 * H;
        const REAL *h_prev = h + (t ? span.B + start - span.sizes[t - 1] : 0) * H;
        NAME(add_output)(dh, dy, trace, start * H, count * H);
        for (Size row = 0; row < count; row++) {
            Size k = start + row;
            const REAL *restrict r = gates + k * 3 * H, *restrict z = r + H, *restrict n = z + H;
            const REAL *restrict q_t = q + k * H, *restrict before = h_prev + row * H;
            REAL *restrict da_q = da + row * 4 * H, *restrict da_r = da_q + H, *restrict da_z = da_r + H;
            REAL *restrict da_n = da_z + H, *restrict dh_t = dh + row * H;
            SIMD
            for (Size j = 0; j < H; j++) {
                da_n[j] = dh_t[j] * (1 - z[j]) * (1 - n[j] * n[j]);
                da_q[j] = da_n[j] * r[j];
                da_r[j] = da_n[j] * q_t[j] * r[j] * (1 - r[j]);
                da_z[j] = dh_t[j] * (before[j] - n[j]) * z[j] * (1 - z[j]);
                dh_t[j] *= z[j];
            }
        }
        NAME(add_to_previous)(dh, da, w, mask, masked, count, 3 * H, H, 4 * H);
        if (t == block.first) NAME(add_gradients)(at + 10, da_all, h, mask, masked, span, block, 3, 1);
    }
}

#undef SIMD
#undef TALL
#undef BROAD
#undef PANEL
#undef NARROW
#undef DEPTH
#undef HEIGHT
