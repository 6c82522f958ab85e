/* The module minirnn.native._loops: loops.h for two types and three instruction sets, and what checks their arguments.
 *
 * Arrays come in by the buffer protocol. Whatever is handed in, nothing is read or written outside of them: their
 * type, their order in memory, and that each is as large as the batch sizes say, is looked at here before a loop runs.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef ptrdiff_t Size;

typedef struct {
    const int64_t *sizes; /* of the T steps */
    Size T, B, N, H, I;   /* steps, entering states, rows, hidden size, features of the input */
} Batch;

typedef void Loop(void *const *arrays, Batch batch);
typedef void Pairwise(void *const *arrays, Size a, Size b);
typedef void Product(void *const *arrays, Size n, Size K, Size J);

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#define PASTE_(name, type, set) name##_##type##_##set
#define PASTE(name, type, set) PASTE_(name, type, set)
#define NAME(name) PASTE(name, TYPE, SET)

/* The instruction sets: plain C everywhere; on x86 two more, one of which is picked when the module is imported. */
#define SET plain
#define TARGET
#define VECTOR_BYTES 16
#include "types.h"
#undef SET
#undef TARGET
#undef VECTOR_BYTES

#if defined(__GNUC__) && defined(__x86_64__)
#define X86 1
#define SET avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#include "types.h"
#undef SET
#undef TARGET
#undef VECTOR_BYTES

#ifdef __clang__
#define WIDE "" /* a word that some of its versions do not know, which makes them leave out all of it */
#else
#define WIDE ",prefer-vector-width=512"
#endif
#define SET avx512
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl" WIDE)))
#define VECTOR_BYTES 64
#include "types.h"
#undef SET
#undef TARGET
#undef VECTOR_BYTES
#endif

/* ---- what each loop takes ----------------------------------------------------------------------------------------- */

enum { READ, WRITTEN, MAYBE_READ, MAYBE_WRITTEN, WITH_MASK }; /* MAYBE: or None. WITH_MASK: written, if the one before is there */
enum { ONE, HIDDEN, PANELS, BATCH, ROWS, STATES };            /* so many rows: 1, H, H, B or more, N, B + N */

typedef struct {
    const char *name;
    int use, rows, width; /* width * H numbers in a row; those of_input have I in the place of H */
    int of_input;
} Array;

enum { MOST = 12 };

typedef struct {
    const char *name;
    Array arrays[MOST + 1];
} Arguments;

enum { RNN_TANH_FORWARD, RNN_RELU_FORWARD, RNN_TANH_BACKWARD, RNN_RELU_BACKWARD,
       LSTM_FORWARD, LSTM_BACKWARD, GRU_FORWARD, GRU_BACKWARD, RNN_GRADIENTS, LSTM_GRADIENTS, GRU_GRADIENTS, LOOPS };

#define RNN_FORWARD_ARRAYS \
    {{"h", WRITTEN, STATES, 1}, {"w", MAYBE_READ, PANELS, 1}, {"b", READ, ONE, 1}, {"mask", MAYBE_READ, BATCH, 1}, \
     {"room", WITH_MASK, BATCH, 1}}
#define RNN_BACKWARD_ARRAYS \
    {{"dz", WRITTEN, ROWS, 1}, {"dh", WRITTEN, BATCH, 1}, {"dy", MAYBE_READ, ROWS, 1}, \
     {"trace", MAYBE_WRITTEN, ROWS, 1}, {"h", READ, ROWS, 1}, {"w", READ, PANELS, 1}, {"mask", MAYBE_READ, BATCH, 1}, \
     {"room", WITH_MASK, BATCH, 1}}

/* W_ih first of what is of the input: its size says what I is. */
#define GRADIENTS_ARRAYS(gates, width) \
    {{"dz", READ, ROWS, width}, {"w_ih", READ, HIDDEN, gates, 1}, {"x", READ, ROWS, 1, 1}, {"h", READ, STATES, 1}, \
     {"dx", WRITTEN, ROWS, 1, 1}, {"dw_ih", WRITTEN, HIDDEN, gates, 1}, {"dw_hh", WRITTEN, HIDDEN, gates}, \
     {"db", WRITTEN, ONE, width}}

static const Arguments arguments[LOOPS] = {
    {"rnn_tanh_forward", RNN_FORWARD_ARRAYS},
    {"rnn_relu_forward", RNN_FORWARD_ARRAYS},
    {"rnn_tanh_backward", RNN_BACKWARD_ARRAYS},
    {"rnn_relu_backward", RNN_BACKWARD_ARRAYS},
    {"lstm_forward",
     {{"gates", WRITTEN, ROWS, 4}, {"h", WRITTEN, STATES, 1}, {"c", WRITTEN, STATES, 1}, {"tanh_c", WRITTEN, ROWS, 1},
      {"w", MAYBE_READ, PANELS, 4}, {"b", READ, ONE, 4}, {"mask", MAYBE_READ, BATCH, 1}, {"room", WITH_MASK, BATCH, 1}}},
    {"lstm_backward",
     {{"dz", WRITTEN, ROWS, 4}, {"dh", WRITTEN, BATCH, 1}, {"dc", WRITTEN, BATCH, 1}, {"dy", MAYBE_READ, ROWS, 1},
      {"trace_h", MAYBE_WRITTEN, ROWS, 1}, {"trace_c", MAYBE_WRITTEN, ROWS, 1}, {"gates", READ, ROWS, 4},
      {"c", READ, STATES, 1}, {"tanh_c", READ, ROWS, 1}, {"w", READ, PANELS, 4}, {"mask", MAYBE_READ, BATCH, 1},
      {"room", WITH_MASK, BATCH, 1}}},
    {"gru_forward",
     {{"gates", WRITTEN, ROWS, 3}, {"q", WRITTEN, ROWS, 1}, {"h", WRITTEN, STATES, 1}, {"w", MAYBE_READ, PANELS, 3},
      {"b", READ, ONE, 4}, {"mask", MAYBE_READ, BATCH, 1}, {"room", WITH_MASK, BATCH, 1}, {"p", WRITTEN, BATCH, 3}}},
    {"gru_backward",
     {{"da", WRITTEN, ROWS, 4}, {"dh", WRITTEN, BATCH, 1}, {"dy", MAYBE_READ, ROWS, 1},
      {"trace", MAYBE_WRITTEN, ROWS, 1}, {"gates", READ, ROWS, 3}, {"q", READ, ROWS, 1}, {"h", READ, STATES, 1},
      {"w", READ, PANELS, 3}, {"mask", MAYBE_READ, BATCH, 1}, {"room", WITH_MASK, BATCH, 1}}},
    {"rnn_gradients", GRADIENTS_ARRAYS(1, 1)},
    {"lstm_gradients", GRADIENTS_ARRAYS(4, 4)},
    {"gru_gradients", GRADIENTS_ARRAYS(3, 4)},
};

#define LOOPS_OF(type, set) \
    {rnn_tanh_forward_##type##_##set, rnn_relu_forward_##type##_##set, rnn_tanh_backward_##type##_##set, \
     rnn_relu_backward_##type##_##set, lstm_forward_##type##_##set, lstm_backward_##type##_##set, \
     gru_forward_##type##_##set, gru_backward_##type##_##set, rnn_gradients_##type##_##set, \
     lstm_gradients_##type##_##set, gru_gradients_##type##_##set}
#define TABLE_OF(set) \
    {#set, {LOOPS_OF(float, set), LOOPS_OF(double, set)}, {pack_float_##set, pack_double_##set}, \
     {pack_transpose_float_##set, pack_transpose_double_##set}, {tanh_all_float_##set, tanh_all_double_##set}, \
     {input_product_float_##set, input_product_double_##set}}

typedef struct {
    const char *name;
    Loop *loops[2][LOOPS]; /* float, double */
    Pairwise *pack[2], *pack_transpose[2], *tanh[2];
    Product *product[2];
} InstructionSet;

static const InstructionSet sets[] = {
    TABLE_OF(plain),
#ifdef X86
    TABLE_OF(avx2), TABLE_OF(avx512),
#endif
};

static const InstructionSet *set = sets;

static int best(void) {
#ifdef X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return 2;
    return 1;
#else
    return 0;
#endif
}

/* ---- arguments ---------------------------------------------------------------------------------------------------- */

typedef struct {
    Py_buffer views[MOST + 1];
    void *at[MOST + 1];
    int taken;
} Taken;

static void release(Taken *taken) {
    while (taken->taken) {
        Py_buffer *view = taken->views + --taken->taken;
        if (view->obj) PyBuffer_Release(view);
    }
}

/* Take one array of numbers of this format, or of any floating-point one for 0; return whether that went well. */
static int take(Taken *taken, PyObject *object, const char *name, int use, const char *format) {
    Py_buffer *view = taken->views + taken->taken;
    memset(view, 0, sizeof *view);
    int left_out = use == MAYBE_READ || use == MAYBE_WRITTEN || (use == WITH_MASK && !taken->at[taken->taken - 1]);
    if (object == Py_None && left_out) {
        taken->at[taken->taken++] = NULL;
        return 1;
    }
    int written = use == WRITTEN || use == MAYBE_WRITTEN || use == WITH_MASK;
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (written ? PyBUF_WRITABLE : 0))) return 0;
    taken->at[taken->taken++] = view->buf;
    const char *own = view->format ? view->format : "B";
    if (format ? strcmp(own, format) : strcmp(own, "f") && strcmp(own, "d")) {
        PyErr_Format(PyExc_TypeError, "%s: expected numbers of format %s, got %s", name, format ? format : "f or d", own);
        return 0;
    }
    if ((uintptr_t)view->buf % view->itemsize) {
        PyErr_Format(PyExc_ValueError, "%s: expected an aligned array", name);
        return 0;
    }
    return 1;
}

static Size count(const Taken *taken, int k) { return taken->views[k].len / taken->views[k].itemsize; }

/* So large that nothing else overflows when these are multiplied. */
static const Size MOST_ROWS = (Size)1 << (sizeof(Size) == 8 ? 38 : 16), MOST_HIDDEN = (Size)1 << (sizeof(Size) == 8 ? 20 : 10);

static int take_sizes(Taken *taken, PyObject *sizes, PyObject *B, PyObject *H, Batch *batch) {
    batch->B = PyLong_AsSsize_t(B);
    batch->H = PyLong_AsSsize_t(H);
    if (PyErr_Occurred()) return 0;
    if (batch->B < 0 || batch->B > MOST_ROWS || batch->H < 1 || batch->H > MOST_HIDDEN) {
        PyErr_SetString(PyExc_ValueError, "B, H: expected sizes of a batch");
        return 0;
    }
    if (!take(taken, sizes, "sizes", READ, sizeof(long) == 8 ? "l" : "q")) return 0;
    batch->sizes = taken->at[taken->taken - 1];
    batch->T = count(taken, taken->taken - 1);
    batch->N = 0;
    for (Size t = 0, before = batch->B; t < batch->T; before = batch->sizes[t++]) {
        if (batch->sizes[t] < 0 || batch->sizes[t] > before || batch->N > MOST_ROWS) {
            PyErr_SetString(PyExc_ValueError, "sizes: expected batch sizes, descending from B at most");
            return 0;
        }
        batch->N += (Size)batch->sizes[t];
    }
    return 1;
}

/* Panels begin with a line of the cache, for which their arrays have room: vectors across two lines are slow to load. */
enum { LINE = 64 };

static void *aligned(void *at) { return (char *)at + (LINE - (uintptr_t)at % LINE) % LINE; }

static int fits(Taken *taken, const Array *arrays, Batch *batch) {
    const Size rows[] = {1, batch->H, batch->H, batch->B, batch->N, batch->B + batch->N};
    batch->I = 0;
    for (int k = 0; arrays[k].name; k++) {
        if (!taken->views[k].obj) continue;
        Size given = count(taken, k), in_all = rows[arrays[k].rows] * arrays[k].width;
        if (arrays[k].of_input && !batch->I) {
            batch->I = given / in_all;
            if (batch->I < 1 || batch->I > MOST_HIDDEN) {
                PyErr_Format(PyExc_ValueError, "%s: expected sizes of a layer", arrays[k].name);
                return 0;
            }
        }
        Size expected = in_all * (arrays[k].of_input ? batch->I : batch->H);
        if (arrays[k].rows == PANELS) {
            expected += LINE / taken->views[k].itemsize;
            taken->at[k] = aligned(taken->at[k]);
        }
        if (arrays[k].rows == BATCH ? given < expected : given != expected) {
            PyErr_Format(PyExc_ValueError, "%s: expected %zd numbers, got %zd", arrays[k].name, expected, count(taken, k));
            return 0;
        }
    }
    return 1;
}

static PyObject *run(int loop, PyObject *const *args, Py_ssize_t given) {
    const Array *arrays = arguments[loop].arrays;
    Taken taken = {.taken = 0};
    Batch batch;
    int n = 0, well = 1;
    while (arrays[n].name) n++;
    if (given != n + 3) return PyErr_Format(PyExc_TypeError, "%s: expected %d arguments", arguments[loop].name, n + 3);
    for (int k = 0; well && k < n; k++) well = take(&taken, args[k], arrays[k].name, arrays[k].use, k ? taken.views[0].format : NULL);
    if (!well || !take_sizes(&taken, args[n], args[n + 1], args[n + 2], &batch) || !fits(&taken, arrays, &batch)) {
        release(&taken);
        return NULL;
    }
    Loop *run_loop = set->loops[*taken.views[0].format == 'd'][loop];
    Py_BEGIN_ALLOW_THREADS
    run_loop(taken.at, batch);
    Py_END_ALLOW_THREADS
    release(&taken);
    Py_RETURN_NONE;
}

#define METHOD(name, loop) \
    static PyObject *py_##name(PyObject *module, PyObject *const *args, Py_ssize_t given) { \
        (void)module; \
        return run(loop, args, given); \
    }
METHOD(rnn_tanh_forward, RNN_TANH_FORWARD)
METHOD(rnn_relu_forward, RNN_RELU_FORWARD)
METHOD(rnn_tanh_backward, RNN_TANH_BACKWARD)
METHOD(rnn_relu_backward, RNN_RELU_BACKWARD)
METHOD(lstm_forward, LSTM_FORWARD)
METHOD(lstm_backward, LSTM_BACKWARD)
METHOD(gru_forward, GRU_FORWARD)
METHOD(gru_backward, GRU_BACKWARD)
METHOD(rnn_gradients, RNN_GRADIENTS)
METHOD(lstm_gradients, LSTM_GRADIENTS)
METHOD(gru_gradients, GRU_GRADIENTS)

/* Two arrays of as many numbers, out and in; or panels and, in rows of so many columns, what goes into them. */
static PyObject *pairwise(Pairwise *const *run_pair, PyObject *const *args, Py_ssize_t given, int panels) {
    Taken taken = {.taken = 0};
    Size columns = 1;
    if (given != 2 + panels) return PyErr_Format(PyExc_TypeError, "expected %d arguments", 2 + panels);
    if (panels && (columns = PyLong_AsSsize_t(args[2])) == -1 && PyErr_Occurred()) return NULL;
    if (!take(&taken, args[0], "out", WRITTEN, NULL) || !take(&taken, args[1], "input", READ, taken.views[0].format)) {
        release(&taken);
        return NULL;
    }
    Size numbers = count(&taken, 1), expected = numbers + (panels ? LINE / taken.views[0].itemsize : 0);
    if (count(&taken, 0) != expected || columns < 1 || numbers % columns) {
        release(&taken);
        return PyErr_Format(PyExc_ValueError, "expected room for as many numbers, in rows of %zd", columns);
    }
    if (panels) taken.at[0] = aligned(taken.at[0]);
    Pairwise *one = run_pair[*taken.views[0].format == 'd'];
    Py_BEGIN_ALLOW_THREADS
    one(taken.at, numbers / columns, columns);
    Py_END_ALLOW_THREADS
    release(&taken);
    Py_RETURN_NONE;
}

static PyObject *py_pack(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    return pairwise(set->pack, args, given, 1);
}

static PyObject *py_pack_transpose(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    return pairwise(set->pack_transpose, args, given, 1);
}

static PyObject *py_tanh(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    return pairwise(set->tanh, args, given, 0);
}

/* out, x, panels, K: of shapes (n, J), (n, K) and (K, J). */
static PyObject *py_product(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 4) return PyErr_Format(PyExc_TypeError, "product: expected 4 arguments");
    Size K = PyLong_AsSsize_t(args[3]);
    if (K == -1 && PyErr_Occurred()) return NULL;
    int well = take(&taken, args[0], "out", WRITTEN, NULL) && take(&taken, args[1], "x", READ, taken.views[0].format)
               && take(&taken, args[2], "panels", READ, taken.views[0].format);
    Size out = well ? count(&taken, 0) : 0, x = well ? count(&taken, 1) : 0;
    Size w = well ? count(&taken, 2) - LINE / taken.views[2].itemsize : 0;
    if (!well || w < 1 || K < 1 || x % K || w % K || out % (w / K) || out / (w / K) != x / K) {
        release(&taken);
        return well ? PyErr_Format(PyExc_ValueError, "product: expected shapes that fit, got sizes of %zd, %zd, %zd", out, x, w) : NULL;
    }
    taken.at[2] = aligned(taken.at[2]);
    Product *product = set->product[*taken.views[0].format == 'd'];
    Py_BEGIN_ALLOW_THREADS
    product(taken.at, x / K, K, w / K);
    Py_END_ALLOW_THREADS
    release(&taken);
    Py_RETURN_NONE;
}

static PyObject *py_instruction_sets(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *names = PyList_New(0);
    for (int k = 0; names && k <= best(); k++) {
        PyObject *name = PyUnicode_FromString(sets[k].name);
        if (!name || PyList_Append(names, name)) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *py_use(PyObject *module, PyObject *name) {
    (void)module;
    const char *wanted = PyUnicode_AsUTF8(name);
    for (int k = 0; wanted && k <= best(); k++)
        if (!strcmp(sets[k].name, wanted)) {
            set = sets + k;
            Py_RETURN_NONE;
        }
    return wanted ? PyErr_Format(PyExc_ValueError, "expected an instruction set of this machine, got %s", wanted) : NULL;
}

#define FAST(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    FAST(rnn_tanh_forward), FAST(rnn_relu_forward), FAST(rnn_tanh_backward), FAST(rnn_relu_backward),
    FAST(lstm_forward), FAST(lstm_backward), FAST(gru_forward), FAST(gru_backward),
    FAST(rnn_gradients), FAST(lstm_gradients), FAST(gru_gradients), FAST(pack),
    FAST(pack_transpose), FAST(product), FAST(tanh),
    {"instruction_sets", py_instruction_sets, METH_NOARGS, NULL}, {"use", py_use, METH_O, NULL}, {0},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_loops", "The loops over time in C.", -1, methods};

PyMODINIT_FUNC PyInit__loops(void) {
    set = sets + best();
    return PyModule_Create(&definition);
}
