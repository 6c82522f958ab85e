/* What a step of training computes beside the recurrences, for numbers of the type REAL: one pass where NumPy takes
 * many. The equations stand in minirnn/functional, under the same names. */

/* Each number is rounded as in NumPy: the same operations in the same order, and none of them fused. */
static void NAME(adam)(void *const *at, Size n, Adam step) {
    REAL *restrict data = at[0], *restrict m = at[2], *restrict v = at[3], *restrict largest = at[4];
    const REAL *restrict grad = at[1];
    const REAL beta1 = (REAL)step.beta1, beta2 = (REAL)step.beta2, take = (REAL)(1 - step.beta1);
    const REAL square = (REAL)(sqrt(1 - step.beta2) / (1 - step.beta1));
    const double root = sqrt(1 - pow(step.beta2, step.t));
    const REAL eps = (REAL)(step.eps * root), rate = (REAL)(step.lr * root / (1 - pow(step.beta1, step.t)));
    for (Size i = 0; i < n; i++) {
        REAL g = grad[i] * take;
        m[i] = m[i] * beta1 + g;
        g *= square;
        v[i] = v[i] * beta2 + g * g;
        REAL most = v[i];
        if (largest) {
            if (most > largest[i] || most != most) largest[i] = most; /* NaN stays, as in NumPy's maximum */
            most = largest[i];
        }
        data[i] -= m[i] / (SQRT(most) + eps) * rate;
    }
}

/* -log p of each row's target, added up and divided, and p - onehot; p is the softmax. */
static double NAME(cross_entropy)(void *const *at, Size N, Size C, double denominator) {
    REAL *restrict slope = at[0];
    const REAL *restrict logits = at[1];
    const int64_t *targets = at[2];
    double sum = 0;
    for (Size row = 0; row < N; row++, logits += C, slope += C) {
        Size target = (Size)targets[row];
        REAL largest = logits[0], others = 0;
        for (Size c = 1; c < C; c++)
            if (logits[c] > largest) largest = logits[c];
        for (Size c = 0; c < C; c++) {
            slope[c] = EXP(logits[c] - largest);
            others += c == target ? 0 : slope[c];
        }
        REAL own = slope[target], total = others + own;
        sum += (REAL)(LOG1P(others + (own - 1)) - (logits[target] - largest));
        for (Size c = 0; c < C; c++) slope[c] /= total;
        slope[target] = -others / total;
    }
    return (REAL)(sum / denominator);
}

static void NAME(scale)(void *const *at, Size n, double by) {
    REAL *x = at[0], factor = (REAL)by;
    for (Size i = 0; i < n; i++) x[i] *= factor;
}

/* table[token] += row, for the rows of all tokens but the one left out. */
static void NAME(add_rows)(void *const *at, Size N, Size width, int64_t left_out) {
    REAL *restrict table = at[0];
    const REAL *restrict rows = at[1];
    const int64_t *tokens = at[2];
    for (Size n = 0; n < N; n++, rows += width) {
        if (tokens[n] == left_out) continue;
        REAL *restrict own = table + (Size)tokens[n] * width;
        for (Size j = 0; j < width; j++) own[j] += rows[j];
    }
}

/* y = x W^T + b: each product in several sums side by side, as vectors take them. */
static void NAME(linear)(void *const *at, Size N, Size in, Size out) {
    REAL *restrict y = at[0];
    const REAL *restrict x = at[1], *restrict w = at[2], *restrict b = at[3];
    for (Size n = 0; n < N; n++, x += in, y += out)
        for (Size k = 0; k < out; k++) {
            const REAL *restrict w_k = w + k * in;
            REAL sums[8] = {0}, total = b ? b[k] : 0;
            Size i = 0;
            for (; i + 8 <= in; i += 8)
                for (int j = 0; j < 8; j++) sums[j] += x[i + j] * w_k[i + j];
            for (int j = 0; i < in; i++, j++) sums[j] += x[i] * w_k[i];
            for (int j = 0; j < 8; j++) total += sums[j];
            y[k] = total;
        }
}

/* C += A B of m columns and rows, the entries of a row of A being so far apart: eight of C's in registers. */
static void NAME(add_product)(REAL *restrict C, const REAL *restrict A, const REAL *restrict B, Size m, Size apart, Size width) {
    for (Size first = 0; first < width; first += 8) {
        REAL sums[8] = {0};
        Size wide = width - first < 8 ? width - first : 8;
        if (wide == 8)
            for (Size k = 0; k < m; k++)
                for (int j = 0; j < 8; j++) sums[j] += A[k * apart] * B[k * width + first + j];
        else
            for (Size k = 0; k < m; k++)
                for (Size j = 0; j < wide; j++) sums[j] += A[k * apart] * B[k * width + first + j];
        for (Size j = 0; j < wide; j++) C[first + j] += sums[j];
    }
}

/* dx = dy W; to the gradients of W and b are added dy^T x and dy's columns. */
static void NAME(linear_backward)(void *const *at, Size N, Size in, Size out) {
    REAL *restrict dx = at[0], *restrict dw = at[1], *restrict db = at[2];
    const REAL *restrict dy = at[3], *restrict x = at[4], *restrict w = at[5];
    memset(dx, 0, sizeof *dx * (size_t)(N * in));
    for (Size n = 0; n < N; n++) NAME(add_product)(dx + n * in, dy + n * out, w, out, 1, in);
    for (Size k = 0; k < out; k++) NAME(add_product)(dw + k * in, dy + k, x, N, out, in);
    for (Size k = 0; db && k < out; k++) {
        double sum = 0; /* of many rows float would lose the small ones */
        for (Size n = 0; n < N; n++) sum += dy[n * out + k];
        db[k] += (REAL)sum;
    }
}

/* The sum of all squares, in several sums side by side, as vectors take them. */
static double NAME(squares)(const REAL *x, Size n) {
    double sums[8] = {0}, total = 0;
    for (; n >= 8; n -= 8, x += 8)
        for (int k = 0; k < 8; k++) sums[k] += (double)x[k] * (double)x[k];
    for (int k = 0; k < n; k++) sums[k] += (double)x[k] * (double)x[k];
    for (int k = 0; k < 8; k++) total += sums[k];
    return total;
}
