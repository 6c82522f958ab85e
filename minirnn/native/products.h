/* Products of matrices, for one type of number and one instruction set: part of loops.h, which says what it needs.
 *
 * The second factor lies in panels, one after the other: so many columns of all its rows, side by side as a tile of the
 * product reads them. Only for a few rows of the first it is read as it lies, as to pack it would take longer.
 */

/* ---- out = a @ w or, with `add`, out += a @ w, of shapes (n, J), (n, K) and (K, J) ----------------------------------- */

/* PANEL columns of w make a panel; where fewer are left, NARROW; and what is left then, a last one. DEPTH rows of a panel
 * stay in the first-level cache while HEIGHT rows of `a` go by, and DEPTH columns of those in the second while panels go
 * by. */
#define PANEL (VECTOR_BYTES == 64 ? 4 * LANES : 2 * LANES)
#define NARROW (2 * LANES)
#define DEPTH (8192 / VECTOR_BYTES)
#define HEIGHT 192

/* R rows of P panels' first `columns`, of which `kept` are added to out, the sums in registers: so the loops over them are
 * unrolled, and without `add` out is set to zero and then added to all the same, as GCC would take the sums of a mere copy
 * by way of memory. From row to row of a and w, and from column to column of a, it is a_row, w_row and a_col numbers, from
 * panel to panel w_panel. */
INLINE void NAME(tile)(REAL *restrict out, const REAL *restrict a, const REAL *restrict w, Size K, Size J,
                       Size a_row, Size a_col, Size w_row, Size w_panel, int add, int R, int P, int columns, int kept) {
#define EACH(r, R) _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)
#define EACH_COLUMN(width) SIMD for (int c = 0; c < width; c++)
    REAL sum[8][4][PANEL];
    if (!add)
        EACH(r, R) EACH(p, P) EACH_COLUMN(kept) out[r * J + p * PANEL + c] = 0;
    EACH(r, R) EACH(p, P) EACH_COLUMN(columns) sum[r][p][c] = 0;
    for (Size k = 0; k < K; k++)
        EACH(r, R) {
            REAL a_rk = a[r * a_row + k * a_col];
            EACH(p, P) EACH_COLUMN(columns) sum[r][p][c] += a_rk * w[p * w_panel + k * w_row + c];
        }
    EACH(r, R) EACH(p, P) EACH_COLUMN(kept) out[r * J + p * PANEL + c] += sum[r][p][c];
#undef EACH
#undef EACH_COLUMN
}

/* All rows of so many columns, in tiles of nearly equal height: with few rows a tile has few sums, and each addition waits
 * for the one before. Meanwhile what the next tile adds to is fetched. */
INLINE void NAME(columns)(REAL *out, const REAL *a, const REAL *w, Size n, Size K, Size J,
                          Size a_row, Size a_col, Size w_row, int add, int columns, int kept) {
#define ROWS(R) \
    case R: \
        if (R <= most) NAME(tile)(out, a, w, K, J, a_row, a_col, w_row, 0, add, R, 1, columns, kept); \
        break;
    const int most = VECTOR_BYTES < 64 ? 6 : columns > NARROW ? 4 : 8;
    for (Size tiles = (n + most - 1) / most; tiles > 0; tiles--) {
        Size rows = (n + tiles - 1) / tiles;
        for (Size r = rows; add && r < 2 * rows && r < n; r++)
            for (int c = 0; c < kept; c += LINE / (int)sizeof(REAL)) FETCH(out + r * J + c);
        switch (rows) { /* a constant number each, so that the sums are registers */
            ROWS(8) ROWS(7) ROWS(6) ROWS(5) ROWS(4) ROWS(3) ROWS(2) ROWS(1)
        }
        n -= rows;
        out += rows * J;
        a += rows * a_row;
    }
#undef ROWS
}

/* One row of one panel, with two sums for each column, as one's additions would wait for each other. */
INLINE void NAME(row)(REAL *restrict out, const REAL *restrict a, const REAL *restrict w, Size K, Size a_col, int add,
                      int columns) {
    REAL even[PANEL], odd[PANEL];
    SIMD
    for (int c = 0; c < columns; c++) even[c] = add ? out[c] : 0;
    SIMD
    for (int c = 0; c < columns; c++) odd[c] = 0;
    for (Size k = 0; k < K - 1; k += 2, w += 2 * columns) {
        SIMD
        for (int c = 0; c < columns; c++) even[c] += a[k * a_col] * w[c];
        SIMD
        for (int c = 0; c < columns; c++) odd[c] += a[(k + 1) * a_col] * w[columns + c];
    }
    if (K % 2) {
        SIMD
        for (int c = 0; c < columns; c++) even[c] += a[(K - 1) * a_col] * w[c];
    }
    SIMD
    for (int c = 0; c < columns; c++) out[c] = even[c] + odd[c];
}

/* w lies as NAME(pack) writes it. A few rows take several panels at a time, so that they have as many sums. Of the last
 * columns, fewer than a vector, 1, 2 or 4 are multiplied by themselves; others as a whole vector, with whatever lies beside
 * them, and that part of the result is dropped. */
INLINE void NAME(multiply)(REAL *out, const REAL *a, const REAL *w, Size n, Size K, Size J, Size a_row, Size a_col, int add) {
    for (; n > 0; n -= HEIGHT, out += HEIGHT * J, a += HEIGHT * a_row)
        for (Size k = 0; k < K; k += DEPTH) {
            Size height = n < HEIGHT ? n : HEIGHT, depth = K - k < DEPTH ? K - k : DEPTH, j = 0;
            const REAL *a_k = a + k * a_col;
            int add_k = add || k;
#define ACROSS(R, P) \
            for (; height == R && j + P * PANEL <= J; j += P * PANEL) \
                NAME(tile)(out + j, a_k, w + j * K + k * PANEL, depth, J, a_row, a_col, PANEL, PANEL * K, add_k, R, P, \
                           PANEL, PANEL);
#define PANELS(width) \
            for (; height == 1 && j + (width) <= J; j += (width)) \
                NAME(row)(out + j, a_k, w + j * K + k * (width), depth, a_col, add_k, width); \
            for (; j + (width) <= J; j += (width)) \
                NAME(columns)(out + j, a_k, w + j * K + k * (width), height, depth, J, a_row, a_col, width, add_k, width, width);
#define COLUMNS(width, kept) \
            for (; j + (kept) <= J; j += (kept), w_k += (kept)) \
                NAME(columns)(out + j, a_k, w_k, height, depth, J, a_row, a_col, w_row, add_k, width, kept);
            ACROSS(1, 4) ACROSS(1, 2) ACROSS(2, 2) ACROSS(3, 2) PANELS(PANEL) PANELS(NARROW)
            Size w_row = J - j;
            const REAL *w_k = w + j * K + k * w_row;
            COLUMNS(LANES, LANES)
            int rest = (int)(J - j);
            if (rest < LANES && (rest == 3 || rest > 4)) {
                COLUMNS(LANES, rest)
                continue;
            }
            COLUMNS(4, 4) COLUMNS(2, 2) COLUMNS(1, 1)
#undef ACROSS
#undef PANELS
#undef COLUMNS
        }
}

TARGET static void NAME(product)(REAL *out, const REAL *a, const REAL *w, Size n, Size K, Size J, Size a_row, int add) {
    NAME(multiply)(out, a, w, n, K, J, a_row, 1, add);
}

/* Where a.T @ w is added up: what it is added to, and w. */
typedef struct {
    REAL *out;
    const REAL *w;
    Size J;
} NAME(Sum);

/* Add to several of them, each piece of `a` while it is in a cache; its K rows are a_row apart. Of columns that lie far
 * apart, for which there is `spread`, a few at a time are laid side by side in it. */
TARGET static void NAME(add_transposed)(const NAME(Sum) *sums, int count, const REAL *a, Size n, Size K, Size a_row,
                                        REAL *restrict spread) {
    enum { BREADTH = SPREAD_BYTES / TOGETHER / sizeof(REAL) };
    Size most = spread ? BREADTH : HEIGHT, apart = spread ? BREADTH : a_row;
    for (Size first = 0; first < n; first += most, a += most) {
        Size breadth = n - first < most ? n - first : most;
        for (Size k = 0; spread && k < K; k++) memcpy(spread + k * BREADTH, a + k * a_row, sizeof(REAL) * breadth);
        for (const NAME(Sum) *sum = sums; sum < sums + count; sum++)
            NAME(multiply)(sum->out + first * sum->J, spread ? spread : a, sum->w, breadth, K, sum->J, 1, apart, 1);
    }
}

/* Write the k-th row of w (K, J) to its panels. */
INLINE void NAME(lay)(REAL *restrict panels, const REAL *restrict row, Size k, Size K, Size J) {
    Size j = 0;
    for (; j + PANEL <= J; j += PANEL) memcpy(panels + j * K + k * PANEL, row + j, sizeof(REAL) * PANEL);
    for (; j + NARROW <= J; j += NARROW) memcpy(panels + j * K + k * NARROW, row + j, sizeof(REAL) * NARROW);
    for (Size c = j; c < J; c++) panels[j * K + k * (J - j) + c - j] = row[c];
}

/* A tile loads a whole vector even of a last row with fewer columns: zeros, so that nothing is read that nobody wrote. */
INLINE void NAME(pad)(REAL *panels, Size K, Size J) { memset(panels + K * J, 0, LINE); }

/* w (K, J) in panels, its rows from the `first` on and then those before. */
TARGET static void NAME(pack)(void *panels, const void *w, Size K, Size J, Size first) {
    const REAL *rows = w;
    for (Size k = 0; k < K; k++) NAME(lay)(panels, rows + (k + first < K ? k + first : k + first - K) * J, k, K, J);
    NAME(pad)(panels, K, J);
}

/* The transpose of w (J, K) in panels. */
TARGET static void NAME(pack_transpose)(void *out, const void *w, Size J, Size K, Size unused) {
    REAL *restrict panels = out;
    const REAL *restrict rows = w;
    (void)unused;
    for (Size j = 0, columns; j < J; j += columns) {
        columns = J - j >= PANEL ? PANEL : J - j >= NARROW ? NARROW : J - j;
        for (Size first = 0; first < K; first += 16)
            for (Size c = 0; c < columns; c++)
                for (Size k = first; k < K && k < first + 16; k++)
                    panels[j * K + k * columns + c] = rows[(j + c) * K + k];
    }
    NAME(pad)(panels, K, J);
}

/* ---- out = a @ w.T or, with `add`, out += a @ w.T, of shapes (n, J), (n, K) and (J, K) ------------------------------- */

/* So many sums at a time as registers hold. */
#define TALL (VECTOR_BYTES == 64 ? 4 : 3)
#define BROAD 8

/* Add what vectors of so many numbers give, from the k-th on, to the sums of Q rows of a by R of w; return where they end.
 * One row is multiplied before w has come: what lies `ahead` comes nearer meanwhile. */
INLINE Size NAME(add_dots)(REAL total[TALL][BROAD], const REAL *restrict a, const REAL *restrict w, Size K, Size k,
                           Size ahead, int Q, int R, int width) {
    REAL sum[TALL][BROAD][16];
    for (int q = 0; q < Q; q++)
        for (int r = 0; r < R; r++)
            for (int c = 0; c < width; c++) sum[q][r][c] = 0;
    for (; k + width <= K; k += width)
        for (int q = 0; q < Q; q++)
            for (int r = 0; r < R; r++) {
                if (R == BROAD && width == LANES) FETCH_TO_READ(w + ahead + r * K + k);
                SIMD
                for (int c = 0; c < width; c++) sum[q][r][c] += a[q * K + k + c] * w[r * K + k + c];
            }
#define FOLD(half) /* not in a loop over them, where GCC would add up number by number */ \
    for (int q = 0; q < Q && (half) < width; q++) \
        for (int r = 0; r < R; r++) { \
            SIMD \
            for (int c = 0; c < (half); c++) sum[q][r][c] += sum[q][r][c + (half)]; \
        }
    FOLD(8) FOLD(4) FOLD(2) FOLD(1)
#undef FOLD
    for (int q = 0; q < Q; q++)
        for (int r = 0; r < R; r++) total[q][r] += sum[q][r][0];
    return k;
}

INLINE void NAME(dots)(REAL *restrict out, const REAL *restrict a, const REAL *restrict w, Size K, Size J, Size ahead,
                       int add, int Q, int R) {
    REAL total[TALL][BROAD];
    for (int q = 0; q < Q; q++)
        for (int r = 0; r < R; r++) total[q][r] = add ? out[q * J + r] : 0;
    Size k = NAME(add_dots)(total, a, w, K, 0, ahead, Q, R, LANES);
    if (k < K && LANES > 8) k = NAME(add_dots)(total, a, w, K, k, 0, Q, R, 8);
    if (k < K && LANES > 4) k = NAME(add_dots)(total, a, w, K, k, 0, Q, R, 4);
    if (k < K && LANES > 2) k = NAME(add_dots)(total, a, w, K, k, 0, Q, R, 2);
    if (k < K) NAME(add_dots)(total, a, w, K, k, 0, Q, R, 1);
    for (int q = 0; q < Q; q++)
        for (int r = 0; r < R; r++) out[q * J + r] = total[q][r];
}

/* Few rows read w as it lies, which for one product takes less time than to pack it; for many it is in panels. */
TARGET static void NAME(product_transposed)(REAL *out, const REAL *a, const REAL *w, Size n, Size K, Size J, int add) {
    Size j = 0, row = 0;
    if (!are_few(n, K)) {
        NAME(product)(out, a, w, n, K, J, K, add);
        return;
    }
#define DOTS(Q, R) \
    for (; row + (Q) <= n; row += (Q)) \
        NAME(dots)(out + row * J + j, a + row * K, w + j * K, K, J, j + 2 * (R) <= J ? (R) * K : 0, add, Q, R);
    for (; n == 1 && j + BROAD <= J; j += BROAD, row = 0) DOTS(1, BROAD)
    for (; j + 4 <= J; j += 4, row = 0) {
        DOTS(TALL, 4) DOTS(2, 4) DOTS(1, 4)
    }
    for (; j < J; j++, row = 0) DOTS(1, 1)
#undef DOTS
}
