/* The module minirnn.native._training: training.h for two types, and what checks their arguments.
 *
 * Compiled without contraction: a product and a sum in one rounding would be another result than NumPy's.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "arrays.h"

typedef struct {
    double lr, beta1, beta2, eps, t; /* t: the step, 1 at first */
} Adam;

#define PASTE_(name, type) name##_##type
#define PASTE(name, type) PASTE_(name, type)
#define NAME(name) PASTE(name, REAL)

#define REAL float
#define SQRT sqrtf
#define EXP expf
#define LOG1P log1pf
#include "training.h"
#undef REAL
#undef SQRT
#undef EXP
#undef LOG1P

#define REAL double
#define SQRT sqrt
#define EXP exp
#define LOG1P log1p
#include "training.h"

/* ---- arguments ---------------------------------------------------------------------------------------------------- */

static int expect(const Taken *taken, int k, const char *name, Size expected) {
    if (count(taken, k) == expected) return 1;
    PyErr_Format(PyExc_ValueError, "%s: expected %lld numbers, got %lld", name, expected, count(taken, k));
    return 0;
}

/* How many numbers so many rows have, or more than any array has. */
static Size times(Size rows, Size width) { return width && rows > PY_SSIZE_T_MAX / width ? -1 : rows * width; }

/* Whether an array of integers has only those from 0 to below a limit. */
static int within(const Taken *taken, int k, Size limit) {
    const int64_t *numbers = taken->at[k];
    int beyond = 0;
    for (Size i = 0, n = count(taken, k); i < n; i++) beyond |= (uint64_t)numbers[i] >= (uint64_t)limit; /* or negative */
    return !beyond;
}

static int require_within(const Taken *taken, int k, const char *name, Size limit) {
    if (within(taken, k, limit)) return 1;
    PyErr_Format(PyExc_ValueError, "%s: expected numbers from 0 to below %lld", name, limit);
    return 0;
}

static PyObject *too_few(const char *name, int expected) {
    return PyErr_Format(PyExc_TypeError, "%s: expected %d arguments", name, expected);
}

/* Whoever goes by integers that were looked at keeps the GIL until the end: another thread might write to them. */

/* ---- the functions ------------------------------------------------------------------------------------------------ */

static int take_adam(Taken *taken, PyObject *const *args, Adam *step) {
    static const char *const names[] = {"data", "grad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
    double numbers[5];
    for (int k = 0; k < 5; k++) {
        numbers[k] = PyFloat_AsDouble(args[5 + k]);
        if (numbers[k] == -1 && PyErr_Occurred()) return 0;
    }
    for (int k = 0; k < 5; k++) {
        int use = k == 4 ? MAYBE | WRITTEN : k == 1 ? READ : WRITTEN;
        if (!take(taken, args[k], names[k], use, k ? its_type(taken) : REALS)) return 0;
        if (taken->at[k] && !expect(taken, k, names[k], count(taken, 0))) return 0;
    }
    *step = (Adam){numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
    return 1;
}

/* data, grad, exp_avg, exp_avg_sq, max_exp_avg_sq or None; lr, beta1, beta2, eps, t. */
static PyObject *py_adam(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    Adam step;
    if (given != 10) return too_few("adam", 10);
    if (!take_adam(&taken, args, &step)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    (is_double(&taken) ? adam_double : adam_float)(taken.at, count(&taken, 0), step);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* slope (N, C), logits (N, C), targets (N,), what the sum is divided by: fills the slope and returns the loss. */
static PyObject *py_cross_entropy(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 4) return too_few("cross_entropy", 4);
    double denominator = PyFloat_AsDouble(args[3]), loss;
    if (denominator == -1 && PyErr_Occurred()) return NULL;
    if (!take(&taken, args[0], "slope", WRITTEN, REALS) || !take(&taken, args[1], "logits", READ, its_type(&taken)) ||
        !take(&taken, args[2], "targets", READ, INTEGERS) || !expect(&taken, 1, "logits", count(&taken, 0)))
        return NULL;
    Size N = count(&taken, 2), C = N ? count(&taken, 0) / N : 0;
    if (!expect(&taken, 0, "slope", N * C) || !require_within(&taken, 2, "targets", C)) return NULL;
    loss = (is_double(&taken) ? cross_entropy_double : cross_entropy_float)(taken.at, N, C, denominator);
    return PyFloat_FromDouble(loss);
}

/* table (V, E), rows (N, E), tokens (N,), the token that is left out or -1: adds each row to its token's in the table. */
static PyObject *py_add_rows(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 4) return too_few("add_rows", 4);
    Size left_out = PyLong_AsSsize_t(args[3]);
    if (left_out == -1 && PyErr_Occurred()) return NULL;
    if (!take(&taken, args[0], "table", WRITTEN, REALS) || !take(&taken, args[1], "rows", READ, its_type(&taken)) ||
        !take(&taken, args[2], "tokens", READ, INTEGERS))
        return NULL;
    Size N = count(&taken, 2), width = N ? count(&taken, 1) / N : 0;
    if (!expect(&taken, 1, "rows", N * width) || !require_within(&taken, 2, "tokens", width ? count(&taken, 0) / width : 0))
        return NULL;
    (is_double(&taken) ? add_rows_double : add_rows_float)(taken.at, N, width, left_out);
    Py_RETURN_NONE;
}

/* y (N, out), x (N, in), W (out, in), b (out,) or None, how many come in: fills y. Of few numbers, so others wait. */
static PyObject *py_linear(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 5) return too_few("linear", 5);
    Size in = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred() || !take(&taken, args[0], "y", WRITTEN, REALS)) return NULL;
    const char *type = its_type(&taken);
    if (!take(&taken, args[1], "x", READ, type) || !take(&taken, args[2], "weight", READ, type) ||
        !take(&taken, args[3], "bias", MAYBE, type))
        return NULL;
    Size N = in > 0 ? count(&taken, 1) / in : 0, out = in > 0 ? count(&taken, 2) / in : 0;
    if (!expect(&taken, 0, "y", times(N, out)) || !expect(&taken, 1, "x", N * in) || !expect(&taken, 2, "weight", out * in) ||
        (taken.at[3] && !expect(&taken, 3, "bias", out)))
        return NULL;
    (is_double(&taken) ? linear_double : linear_float)(taken.at, N, in, out);
    Py_RETURN_NONE;
}

/* dx (N, in), dW (out, in), db (out,) or None, dy (N, out), x, W, how many come in: fills dx and adds to the next two. */
static PyObject *py_linear_backward(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    static const char *const names[] = {"dx", "dweight", "dbias", "dy", "x", "weight"};
    Taken taken = {.taken = 0};
    if (given != 7) return too_few("linear_backward", 7);
    Size in = PyLong_AsSsize_t(args[6]);
    if (in == -1 && PyErr_Occurred()) return NULL;
    for (int k = 0; k < 6; k++) {
        int use = k == 2 ? MAYBE | WRITTEN : k < 2 ? WRITTEN : READ;
        if (!take(&taken, args[k], names[k], use, k ? its_type(&taken) : REALS)) return NULL;
    }
    Size N = in > 0 ? count(&taken, 0) / in : 0, out = in > 0 ? count(&taken, 1) / in : 0;
    const Size expected[] = {N * in, out * in, out, times(N, out), N * in, out * in};
    for (int k = 0; k < 6; k++)
        if (taken.at[k] && !expect(&taken, k, names[k], expected[k])) return NULL;
    (is_double(&taken) ? linear_backward_double : linear_backward_float)(taken.at, N, in, out);
    Py_RETURN_NONE;
}

/* x: the sum of its squares. */
static PyObject *py_squares(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 1) return too_few("squares", 1);
    if (!take(&taken, args[0], "x", READ, REALS)) return NULL;
    double total = is_double(&taken) ? squares_double(taken.at[0], count(&taken, 0)) : squares_float(taken.at[0], count(&taken, 0));
    return PyFloat_FromDouble(total);
}

/* x, a factor: multiplies in place. */
static PyObject *py_scale(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 2) return too_few("scale", 2);
    double by = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred() || !take(&taken, args[0], "x", WRITTEN, REALS)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    (is_double(&taken) ? scale_double : scale_float)(taken.at, count(&taken, 0), by);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* Integers, and the limit: tells whether all lie in [0, limit). */
static PyObject *py_within(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 2) return too_few("within", 2);
    Size limit = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred() || !take(&taken, args[0], "integers", READ, INTEGERS)) return NULL;
    int well = within(&taken, 0, limit);
    return PyBool_FromLong(well);
}

/* How many sequences, of these lengths, run at each step; returns the steps there are, or -1 if a length is none. */
static Size batch_sizes(int64_t *sizes, Size most, const int64_t *lengths, Size B) {
    Size longest = 0;
    for (Size k = 0; k < B; k++) {
        if (lengths[k] < 0 || lengths[k] > most) return -1;
        if (lengths[k] > longest) longest = (Size)lengths[k];
    }
    memset(sizes, 0, sizeof *sizes * longest);
    for (Size k = 0; k < B; k++)
        if (lengths[k]) sizes[lengths[k] - 1]++;
    for (Size t = longest - 2; t >= 0; t--) sizes[t] += sizes[t + 1];
    return longest;
}

/* sizes (T,), lengths (B,) of at most T. */
static PyObject *py_batch_sizes(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 2) return too_few("batch_sizes", 2);
    if (!take(&taken, args[0], "sizes", WRITTEN, INTEGERS) || !take(&taken, args[1], "lengths", READ, INTEGERS)) return NULL;
    Size steps = batch_sizes(taken.at[0], count(&taken, 0), taken.at[1], count(&taken, 1));
    return PyLong_FromSsize_t(steps);
}

/* The sequences by length, the longest first and equal ones as given; where each packed row comes from. Until all have
 * their place, `rows` has the next one of each length. */
static void arrange(void *const *at, Size B, Size longest, Size stride) {
    int64_t *order = at[0], *inverse = at[1], *rows = at[2], *next = rows, next_longest = 0;
    const int64_t *lengths = at[3], *first = at[4];
    batch_sizes(next, longest, lengths, B);
    for (Size k = 0; k < B; k++) {
        int64_t place = lengths[k] == longest ? next_longest++ : next[lengths[k]]++;
        order[place] = k;
        inverse[k] = place;
    }
    for (Size t = 0; t < longest; t++)
        for (Size k = 0; k < B && lengths[order[k]] > t; k++) {
            int64_t begin = first ? first[order[k]] : order[k];
            *rows++ = (int64_t)((uint64_t)begin + (uint64_t)t * (uint64_t)stride);
        }
}

/* order, inverse (B,), rows (N,), lengths (B,), first (B,) or None, stride: fills the first three, and tells whether lengths descend. */
static PyObject *py_arrange(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    static const char *const names[] = {"order", "inverse", "rows", "lengths", "first"};
    Taken taken = {.taken = 0};
    if (given != 6) return too_few("arrange", 6);
    Size stride = PyLong_AsSsize_t(args[5]), total = 0, longest = 0;
    if (stride == -1 && PyErr_Occurred()) return NULL;
    for (int k = 0; k < 5; k++)
        if (!take(&taken, args[k], names[k], k < 3 ? WRITTEN : k == 4 ? MAYBE : READ, INTEGERS)) return NULL;
    Size B = count(&taken, 3), N = count(&taken, 2);
    const int64_t *lengths = taken.at[3];
    int descending = 1;
    for (Size k = 0; k < B && total <= N; k++) {
        /* So that nothing overflows, a length that cannot be is as good as one too long. */
        total += lengths[k] < 0 || lengths[k] > N ? N + 1 : lengths[k];
        if (lengths[k] > longest) longest = (Size)lengths[k];
        if (k && lengths[k] > lengths[k - 1]) descending = 0;
    }
    if (!expect(&taken, 2, "rows", total) || !expect(&taken, 0, "order", B) || !expect(&taken, 1, "inverse", B) ||
        (taken.at[4] && !expect(&taken, 4, "first", B)))
        return NULL;
    arrange(taken.at, B, longest, stride);
    return PyBool_FromLong(descending);
}

#define FAST(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    FAST(adam), FAST(cross_entropy), FAST(scale), FAST(add_rows), FAST(linear), FAST(linear_backward), FAST(squares),
    FAST(within), FAST(batch_sizes), FAST(arrange), {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_training", "What a step of training computes beside the recurrences, in C.", -1, methods};

PyMODINIT_FUNC PyInit__training(void) {
    import_array1(NULL);
    return PyModule_Create(&definition);
}
