/* The module minirnn.native._loops: loops.h for two types and three instruction sets, and what checks their arguments.
 *
 * That each array is as large as the batch says is looked at here before a loop runs.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "arrays.h"

typedef struct {
    const int64_t *sizes; /* of the T steps */
    Size T, B, N, H, I;   /* steps, entering states, rows, hidden size, features of the input */
    int wide;             /* whether the biases' gradients are in double, as over many spans, whatever the rest is */
} Span;

typedef void Loop(void *const *arrays, Span span);
typedef void Pack(void *out, const void *w, Size rows, Size columns, Size first);
typedef void Elementwise(void *out, const void *x, Size count);

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define FETCH(at) __builtin_prefetch(at, 1) /* it is going to be written */
#define FETCH_TO_READ(at) __builtin_prefetch(at)
#else
#define INLINE static inline
#define FETCH(at) (void)(at)
#define FETCH_TO_READ(at) (void)(at)
#endif

enum { LINE = 64 }; /* bytes of the cache's lines */

/* Backward, a block of steps has so many rows at most, or is a single step: what the loop has written is still in a cache
 * when the products read it. */
enum { TOGETHER = 128 };

/* Steps of a span: the first, its first row, and how many rows they have. */
typedef struct {
    Size first, row, rows;
} Block;

/* The block that ends with the t-th step, whose rows end at `stop`; all steps if there is room for their dz. */
static Block steps_up_to(Span span, Size t, Size stop, const void *room) {
    if (room) return (Block){0, 0, span.N};
    Size rows = span.sizes[t];
    for (; t > 0 && rows + span.sizes[t - 1] <= TOGETHER; t--) rows += span.sizes[t - 1];
    return (Block){t, stop - rows, rows};
}

/* Where rows are APART bytes long or longer, the numbers of one column crowd in a few places of the caches. Then those of a
 * few columns are spread out first, each column's side by side. In the heap, as it would fill most of a small stack. */
enum { APART = 4096, SPREAD_BYTES = TOGETHER * 192 * sizeof(float) };

/* Whether n rows are so few that to multiply them by a matrix of so many columns takes less time than to pack it. */
static int are_few(Size n, Size columns) { return n <= columns / 4; }

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

/* Besides how arrays.h takes them. BESIDE: there if and only if the array before is. PACKED, TRANSPOSED: w or its transpose
 * in panels of columns, or w itself, which is a matrix, to be packed first; ROTATED: from its last H rows on. OWN: no
 * argument but memory for the loop to work in; with BESIDE, only if the last argument before it is there. INPUT: with I in
 * the place of H. SUMS: in double where the rest is in float, if wanted. LYING: a matrix whose transpose is packed if the
 * batch has many rows. SPREAD: to spread columns in, if rows of so many numbers have them far apart. ELSE: there if and only
 * if the array before is not. */
enum { BESIDE = 4, PACKED = 8, TRANSPOSED = 16, ROTATED = 32, OWN = 64, INPUT = 128, SUMS = 256, LYING = 512, SPREAD = 1024,
       ELSE = 2048 };
/* How many rows an array has. */
enum {
    ONE,
    HIDDEN,  /* H */
    BATCH,   /* B, or more */
    ROWS,    /* all of the whole batch */
    ROOM,    /* all of the whole batch, or N or more */
    STATES,  /* all of the whole batch, after those that enter it */
    DZ_ROWS, /* of the loop's own: a block's, or ... */
    TOGETHER_ROWS, /* ... of a block those that the products take together */
};

typedef struct {
    const char *name;
    int use, rows, width; /* width * H numbers in a row */
} Array;

typedef struct {
    const char *name;
    Array arrays[MOST + 1];
} Arguments;

enum { RNN_TANH_FORWARD, RNN_RELU_FORWARD, RNN_TANH_BACKWARD, RNN_RELU_BACKWARD,
       LSTM_FORWARD, LSTM_BACKWARD, GRU_FORWARD, GRU_BACKWARD,
       RNN_TANH_STEP, RNN_RELU_STEP, LSTM_STEP, GRU_STEP, LOOPS };

/* W_ih, of whose size I follows, comes before what is of the input. Without it the input's products are NumPy's. */
#define FORWARD_ARRAYS(gates, biases) \
    {"w_hh", TRANSPOSED, HIDDEN, gates}, {"b_ih", MAYBE, ONE, gates}, {"b_hh", BESIDE, ONE, gates}, \
    {"b", OWN, ONE, biases}, {"mask", MAYBE, BATCH, 1}, {"masked", OWN | BESIDE, BATCH, 1}, \
    {"w_ih", MAYBE | TRANSPOSED | INPUT, HIDDEN, gates}, {"x", BESIDE | INPUT, ROWS, 1}
/* There is room for the dz of all rows, or W_ih and what the loop ends a block of steps with. */
#define BACKWARD_ARRAYS(gates, width, packed) \
    {"w_hh", packed, HIDDEN, gates}, {"mask", MAYBE, BATCH, 1}, {"masked", OWN | BESIDE, BATCH, 1}, \
    {"dz", MAYBE | WRITTEN, ROOM, width}, {"w_ih", ELSE | PACKED | INPUT, HIDDEN, gates}, {"x", BESIDE | INPUT, ROWS, 1}, \
    {"dx", BESIDE | WRITTEN | INPUT, ROWS, 1}, {"dw_ih", BESIDE | WRITTEN | INPUT, HIDDEN, gates}, \
    {"dw_hh", BESIDE | WRITTEN, HIDDEN, gates}, {"own_dz", OWN | BESIDE, DZ_ROWS, width}, \
    {"x_panels", OWN | BESIDE | INPUT, TOGETHER_ROWS, 1}, {"h_panels", OWN | BESIDE, TOGETHER_ROWS, 1}, \
    {"spread", OWN | BESIDE | SPREAD, ONE, width}, {"db_ih", MAYBE | WRITTEN | SUMS, ONE, gates}, \
    {"db_hh", BESIDE | WRITTEN | SUMS, ONE, gates}, {"sums", OWN | BESIDE, ONE, 2 * (width)} /* in double */
#define RNN_FORWARD_ARRAYS {{"h", WRITTEN, STATES, 1}, FORWARD_ARRAYS(1, 1)}
#define RNN_BACKWARD_ARRAYS \
    {{"dh", WRITTEN, BATCH, 1}, {"dy", MAYBE, ROWS, 1}, {"trace", MAYBE | WRITTEN, ROWS, 1}, {"h", READ, STATES, 1}, \
     BACKWARD_ARRAYS(1, 1, PACKED)}
/* A step has no span, but the state before it and the one after it, whose shape is B and H. */
#define STEP_ARRAYS(gates, biases) \
    {"w_ih", LYING | INPUT, HIDDEN, gates}, {"x", INPUT, ROWS, 1}, {"w_hh", LYING, HIDDEN, gates}, \
    {"b_ih", MAYBE, ONE, gates}, {"b_hh", BESIDE, ONE, gates}, {"b", OWN, ONE, biases}
#define RNN_STEP_ARRAYS {{"h_new", WRITTEN, ROWS, 1}, {"h", READ, ROWS, 1}, STEP_ARRAYS(1, 1)}

static const Arguments arguments[LOOPS] = {
    {"rnn_tanh_forward", RNN_FORWARD_ARRAYS},
    {"rnn_relu_forward", RNN_FORWARD_ARRAYS},
    {"rnn_tanh_backward", RNN_BACKWARD_ARRAYS},
    {"rnn_relu_backward", RNN_BACKWARD_ARRAYS},
    {"lstm_forward",
     {{"gates", WRITTEN, ROOM, 4}, {"h", WRITTEN, STATES, 1}, {"c", WRITTEN, STATES, 1}, FORWARD_ARRAYS(4, 4)}},
    {"lstm_backward",
     {{"dh", WRITTEN, BATCH, 1}, {"dc", WRITTEN, BATCH, 1}, {"dy", MAYBE, ROWS, 1}, {"trace_h", MAYBE | WRITTEN, ROWS, 1},
      {"trace_c", MAYBE | WRITTEN, ROWS, 1}, {"gates", READ, ROWS, 4}, {"h", READ, STATES, 1}, {"c", READ, STATES, 1},
      BACKWARD_ARRAYS(4, 4, PACKED)}},
    {"gru_forward",
     {{"gates", WRITTEN, ROOM, 3}, {"q", WRITTEN, ROOM, 1}, {"h", WRITTEN, STATES, 1}, {"p", OWN, BATCH, 3},
      FORWARD_ARRAYS(3, 4)}},
    {"gru_backward",
     {{"dh", WRITTEN, BATCH, 1}, {"dy", MAYBE, ROWS, 1}, {"trace", MAYBE | WRITTEN, ROWS, 1}, {"gates", READ, ROWS, 3},
      {"q", READ, ROWS, 1}, {"h", READ, STATES, 1}, BACKWARD_ARRAYS(3, 4, PACKED | ROTATED)}},
    {"rnn_tanh_step", RNN_STEP_ARRAYS},
    {"rnn_relu_step", RNN_STEP_ARRAYS},
    {"lstm_step",
     {{"h_new", WRITTEN, ROWS, 1}, {"c_new", WRITTEN, ROWS, 1}, {"h", READ, ROWS, 1}, {"c", READ, ROWS, 1},
      {"gates", OWN, BATCH, 4}, STEP_ARRAYS(4, 4)}},
    {"gru_step",
     {{"h_new", WRITTEN, ROWS, 1}, {"h", READ, ROWS, 1}, {"gates", OWN, BATCH, 3}, {"p", OWN, BATCH, 3},
      {"q", OWN, BATCH, 1}, STEP_ARRAYS(3, 4)}},
};

#define LOOPS_OF(type, set) \
    {rnn_tanh_forward_##type##_##set, rnn_relu_forward_##type##_##set, rnn_tanh_backward_##type##_##set, \
     rnn_relu_backward_##type##_##set, lstm_forward_##type##_##set, lstm_backward_##type##_##set, \
     gru_forward_##type##_##set, gru_backward_##type##_##set, rnn_tanh_step_##type##_##set, \
     rnn_relu_step_##type##_##set, lstm_step_##type##_##set, gru_step_##type##_##set}
#define TABLE_OF(set) \
    {#set, {LOOPS_OF(float, set), LOOPS_OF(double, set)}, {pack_float_##set, pack_double_##set}, \
     {pack_transpose_float_##set, pack_transpose_double_##set}, {tanh_all_float_##set, tanh_all_double_##set}}

typedef struct {
    const char *name;
    Loop *loops[2][LOOPS]; /* float, double */
    Pack *pack[2], *pack_transpose[2];
    Elementwise *tanh[2];
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

/* More than any machine has, and so few that nothing overflows when they are multiplied. */
static const Size MOST_ROWS = (Size)1 << 38, MOST_HIDDEN = (Size)1 << 20;

/* Where a span lies in the whole batch. */
typedef struct {
    Size row, state, rows, states; /* its first row, the first of the states that enter it; all rows, all states */
} Place;

/* Set N by the steps' sizes, if they are such. */
static int add_rows_up(Span *span) {
    span->N = 0;
    for (Size t = 0, before = span->B; t < span->T; t++) {
        Size size = (Size)span->sizes[t];
        if (size < 0 || size > before || span->N > MOST_ROWS) {
            PyErr_SetString(PyExc_ValueError, "sizes: expected batch sizes, descending from B at most");
            return 0;
        }
        span->N += size;
        before = size;
    }
    return 1;
}

/* The sizes of all steps; the span's first step, the one after its last, and its first row; the batch size and H. */
static int take_span(Taken *taken, PyObject *const *args, Span *span, Place *place) {
    Size numbers[5];
    for (int k = 0; k < 5; k++) numbers[k] = PyLong_AsSsize_t(args[k + 1]);
    if (PyErr_Occurred()) return 0;
    Size first = numbers[0], stop = numbers[1], row = numbers[2], B = numbers[3], H = numbers[4];
    if (B < 0 || B > MOST_ROWS || H < 1 || H > MOST_HIDDEN || row < 0 || row > MOST_ROWS) {
        PyErr_SetString(PyExc_ValueError, "row, B, H: expected sizes of a batch");
        return 0;
    }
    if (!take(taken, args[0], "sizes", READ, INTEGERS)) return 0;
    const int64_t *sizes = taken->at[taken->taken - 1];
    int there = first >= 0 && stop >= first && stop <= count(taken, taken->taken - 1);
    Size before = there && first ? (Size)sizes[first - 1] : B;
    if (!there || before < 0 || before > B) {
        PyErr_SetString(PyExc_ValueError, "sizes: expected a span of the steps");
        return 0;
    }
    *span = (Span){sizes + first, stop - first, before, 0, H, 0, span->wide};
    *place = (Place){row, first ? B + row - before : 0, 0, B};
    return add_rows_up(span);
}

/* A step: one row for each sequence, as the first array, the state after it, has them. */
static int take_step(const Taken *taken, const Array *arrays, Span *span, Place *place) {
    PyArrayObject *state = taken->arrays[0];
    if (PyArray_NDIM(state) != 2 || PyArray_DIM(state, 0) > MOST_ROWS || PyArray_DIM(state, 1) < 1 ||
        PyArray_DIM(state, 1) > MOST_HIDDEN) {
        PyErr_Format(PyExc_ValueError, "%s: expected shape (B, H)", arrays[0].name);
        return 0;
    }
    span->B = span->N = PyArray_DIM(state, 0);
    span->H = PyArray_DIM(state, 1);
    span->T = 1;
    place->rows = span->B;
    return 1;
}

/* Set how many rows there are in all, by the states; return whether the span lies among them. */
static int find_rows(const Taken *taken, const Array *arrays, Span span, Place *place) {
    int k = 0;
    while (arrays[k].rows != STATES) k++;
    place->rows = count(taken, k) / span.H - place->states;
    place->states += place->rows;
    if (place->row + span.N <= place->rows && place->rows <= MOST_ROWS) return 1; /* then the states are there, too */
    PyErr_Format(PyExc_ValueError, "%s: expected the states of all rows", arrays[k].name);
    return 0;
}

/* Panels begin with a line of the cache, for which their arrays have room: vectors across two lines are slow to load. And
 * their last vector may reach beyond their end. */
enum { SPARE = 2 * LINE };

static void *aligned(void *at) { return (char *)at + (LINE - (uintptr_t)at % LINE) % LINE; }

static Size itemsize(const Taken *taken) { return is_double(taken) ? sizeof(double) : sizeof(float); }

/* Set I, look whether all arrays have as many numbers as they are to, and go to where the span begins in them; those of
 * the loop's own get no place yet. */
static int fits(Taken *taken, const Array *arrays, Span *span, const Place *place) {
    const Size rows[] = {1, span->H, span->B, place->rows, span->N, place->states};
    for (int k = 0; arrays[k].name; k++) {
        int there = taken->at[k] != NULL, before = k && taken->at[k - 1], use = arrays[k].use & OWN ? 0 : arrays[k].use;
        if ((use & BESIDE && there != before) || (use & ELSE && there == before)) {
            PyErr_Format(PyExc_TypeError, "%s: expected %s", arrays[k].name, there ? "None" : "an array, got None");
            return 0;
        }
        if (!there) continue;
        Size width = arrays[k].width;
        int panels = arrays[k].use & (PACKED | TRANSPOSED) && !taken->matrices[k];
        Size given = count(taken, k) - (panels ? SPARE / itemsize(taken) : 0), in_all = rows[arrays[k].rows] * width;
        if (arrays[k].use & INPUT && !span->I) {
            span->I = given / in_all;
            if (span->I < 1 || span->I > MOST_HIDDEN) {
                PyErr_Format(PyExc_ValueError, "%s: expected sizes of a layer", arrays[k].name);
                return 0;
            }
        }
        width *= arrays[k].use & INPUT ? span->I : span->H;
        Size expected = rows[arrays[k].rows] * width;
        int to_spare = arrays[k].rows == BATCH || (arrays[k].rows == ROOM && given != place->rows * width);
        if (to_spare ? given < expected : arrays[k].rows != ROOM && given != expected) {
            PyErr_Format(PyExc_ValueError, "%s: expected %lld numbers, got %lld", arrays[k].name, expected, given);
            return 0;
        }
        if (panels) taken->at[k] = aligned(taken->at[k]);
        int whole = arrays[k].rows == ROWS || (arrays[k].rows == ROOM && !to_spare);
        Size first = arrays[k].rows == STATES ? place->state : whole ? place->row : 0;
        taken->at[k] = (char *)taken->at[k] + first * width * itemsize(taken);
    }
    return 1;
}

/* Return how many bytes of the loop's own one of its arrays takes: as panels, or to work in. */
static Size own_bytes(const Taken *taken, const Array *arrays, int k, Span span) {
    Size together = span.N < TOGETHER ? span.N : TOGETHER, step = span.N < span.B ? span.N : span.B;
    Size dz = step > together ? step : together;
    const Size rows[] = {[ONE] = 1, [BATCH] = span.B, [DZ_ROWS] = dz, [TOGETHER_ROWS] = together};
    Size numbers = arrays[k].width * (arrays[k].use & INPUT ? span.I : span.H);
    if (arrays[k].use & OWN) {
        int beside = k - 1;
        while (beside > 0 && arrays[beside].use & OWN) beside--;
        if (arrays[k].use & BESIDE && !taken->at[beside]) return 0;
        if (arrays[k].use & SPREAD) return numbers * itemsize(taken) < APART ? 0 : SPREAD_BYTES + LINE;
        return rows[arrays[k].rows] * numbers * itemsize(taken) + SPARE;
    }
    int packed = arrays[k].use & LYING ? !are_few(span.B, arrays[k].use & INPUT ? span.I : span.H)
                                       : arrays[k].use & (PACKED | TRANSPOSED) && taken->at[k] && taken->matrices[k];
    return packed ? count(taken, k) * itemsize(taken) + SPARE : 0;
}

/* Give the loop its own arrays, out of `memory`, and pack the matrices into theirs. */
static void prepare(const InstructionSet *own, Taken *taken, const Array *arrays, Span span, char *memory) {
    for (int k = 0; arrays[k].name; k++) {
        Size bytes = own_bytes(taken, arrays, k, span);
        if (!bytes) continue;
        void *out = aligned(memory);
        if (!(arrays[k].use & OWN)) {
            Pack *pack = (arrays[k].use & (TRANSPOSED | LYING) ? own->pack_transpose : own->pack)[is_double(taken)];
            Size rows = arrays[k].width * span.H, columns = arrays[k].use & INPUT ? span.I : span.H;
            pack(out, taken->at[k], rows, columns, arrays[k].use & ROTATED ? rows - span.H : 0);
        }
        taken->at[k] = out;
        memory += bytes;
    }
}

/* Say of what type the sums of biases are; both of them, if this is the second. */
static int set_wide(Span *span, PyArrayObject *sums, int second) {
    int wide = type_of(sums) == 'd';
    if (!second || wide == span->wide) {
        span->wide = wide;
        return 1;
    }
    PyErr_SetString(PyExc_TypeError, "db_hh: expected numbers of the type of db_ih");
    return 0;
}

/* Memory for a call to work in. One of no great size is kept, so that a step of a stream asks the system for none; it is
 * taken and put back under the GIL only. */
static struct { char *memory; size_t bytes; } kept;
#ifdef __SANITIZE_ADDRESS__
static const size_t MOST_KEPT = 0; /* which is to see where each call's memory ends */
#else
static const size_t MOST_KEPT = (size_t)4 << 20;
#endif

static char *take_memory(size_t *bytes) {
    if (kept.bytes < *bytes || !kept.memory) return PyMem_RawMalloc(*bytes);
    char *memory = kept.memory;
    *bytes = kept.bytes;
    kept.memory = NULL;
    return memory;
}

static void put_back_memory(char *memory, size_t bytes) {
    char *spare = memory;
    if (bytes <= MOST_KEPT && (!kept.memory || kept.bytes < bytes)) {
        spare = kept.memory;
        kept.memory = memory;
        kept.bytes = bytes;
    }
    PyMem_RawFree(spare);
}

static PyObject *run(int loop, PyObject *const *args, Py_ssize_t given) {
    const Array *arrays = arguments[loop].arrays;
    Taken taken = {.taken = 0};
    Span span = {.wide = 0};
    Place place = {0};
    int n = 0, step = loop >= RNN_TANH_STEP, expected = step ? 0 : 6, well = 1;
    for (; arrays[n].name; n++) expected += !(arrays[n].use & OWN);
    if (given != expected) return PyErr_Format(PyExc_TypeError, "%s: expected %d arguments", arguments[loop].name, expected);
    for (int k = 0; well && k < n; k++) {
        PyObject *object = arrays[k].use & OWN ? Py_None : *args++;
        int use = arrays[k].use & (BESIDE | ELSE | OWN) ? arrays[k].use | MAYBE : arrays[k].use;
        int any = !k || (use & SUMS && !is_double(&taken));
        well = take(&taken, object, arrays[k].name, use, any ? REALS : its_type(&taken));
        if (well && use & SUMS && taken.at[k]) well = set_wide(&span, taken.arrays[k], use & BESIDE);
    }
    well = well && (step ? take_step(&taken, arrays, &span, &place)
                         : take_span(&taken, args, &span, &place) && find_rows(&taken, arrays, span, &place));
    if (!well || !fits(&taken, arrays, &span, &place)) return NULL;
    Size of_sizes = step ? 0 : span.T * (Size)sizeof *span.sizes, bytes = of_sizes;
    for (int k = 0; k < n; k++) bytes += own_bytes(&taken, arrays, k, span);
    size_t room = (size_t)bytes;
    char *memory = bytes <= PY_SSIZE_T_MAX ? take_memory(&room) : NULL;
    if (!memory) return PyErr_NoMemory();
    Size N = span.N;
    /* Other threads may write to the array, some without the GIL: from now on what was copied counts. */
    if (of_sizes) span.sizes = memcpy(memory, span.sizes, (size_t)of_sizes);
    if ((well = step || (add_rows_up(&span) && span.N == N))) {
        const InstructionSet *own = set;
        Py_BEGIN_ALLOW_THREADS
        prepare(own, &taken, arrays, span, memory + of_sizes);
        own->loops[is_double(&taken)][loop](taken.at, span);
        Py_END_ALLOW_THREADS
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "sizes: expected an array that nobody writes to");
    }
    put_back_memory(memory, room);
    return well ? Py_NewRef(Py_None) : NULL;
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
METHOD(rnn_tanh_step, RNN_TANH_STEP)
METHOD(rnn_relu_step, RNN_RELU_STEP)
METHOD(lstm_step, LSTM_STEP)
METHOD(gru_step, GRU_STEP)

static int take_out_and_in(Taken *taken, PyObject *const *args) {
    return take(taken, args[0], "out", WRITTEN, REALS) && take(taken, args[1], "input", READ, its_type(taken));
}

/* Panels, and in rows of so many columns what goes into them. */
static PyObject *pack(Pack *const *packs, PyObject *const *args, Py_ssize_t given) {
    Taken taken = {.taken = 0};
    if (given != 3) return PyErr_Format(PyExc_TypeError, "expected 3 arguments");
    Size columns = PyLong_AsSsize_t(args[2]);
    if ((columns == -1 && PyErr_Occurred()) || !take_out_and_in(&taken, args)) return NULL;
    Size numbers = count(&taken, 1);
    if (count(&taken, 0) != numbers + SPARE / itemsize(&taken) || columns < 1 || columns > numbers || numbers % columns) {
        return PyErr_Format(PyExc_ValueError, "expected room for as many numbers, in rows of %lld", columns);
    }
    Py_BEGIN_ALLOW_THREADS
    packs[is_double(&taken)](aligned(taken.at[0]), taken.at[1], numbers / columns, columns, 0);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_pack(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    return pack(set->pack, args, given);
}

static PyObject *py_pack_transpose(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    return pack(set->pack_transpose, args, given);
}

static PyObject *py_tanh(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    Taken taken = {.taken = 0};
    if (given != 2) return PyErr_Format(PyExc_TypeError, "expected 2 arguments");
    if (!take_out_and_in(&taken, args)) return NULL;
    if (count(&taken, 0) != count(&taken, 1)) {
        return PyErr_Format(PyExc_ValueError, "expected room for as many numbers");
    }
    Py_BEGIN_ALLOW_THREADS
    set->tanh[is_double(&taken)](taken.at[0], taken.at[1], count(&taken, 1));
    Py_END_ALLOW_THREADS
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
    FAST(rnn_tanh_step), FAST(rnn_relu_step), FAST(lstm_step), FAST(gru_step),
    FAST(pack), FAST(pack_transpose), FAST(tanh),
    {"instruction_sets", py_instruction_sets, METH_NOARGS, NULL}, {"use", py_use, METH_O, NULL}, {0},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_loops", "The loops over time in C.", -1, methods};

PyMODINIT_FUNC PyInit__loops(void) {
    set = sets + best();
    import_array1(NULL);
    return PyModule_Create(&definition);
}
