/* Arrays as they come in: NumPy's, contiguous, aligned, of the numbers that are expected, and what is written apart from
 * all else: integers that were looked at stay as they were, and `restrict` says the truth.
 *
 * Whatever is handed in, nothing is read or written outside of them: how many numbers each has is for whoever takes
 * it to look at. Whoever calls holds them until the call is over.
 */
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#undef I /* of complex.h, which that includes; here it is the features of an input */

typedef long long Size; /* where addresses have 32 bits too: products of sizes are looked at before they are known to fit */

enum { READ = 0, WRITTEN = 1, MAYBE = 2 }; /* MAYBE: or None */
enum { MOST = 32 };

/* What there is to know of them is written down at once: while other threads run, they may give an array another shape. */
typedef struct {
    PyArrayObject *arrays[MOST]; /* NULL for None */
    void *at[MOST];
    Size counts[MOST];
    int matrices[MOST]; /* whether they are */
    int uses[MOST];
    char type; /* the first one's */
    int taken;
} Taken;

/* Types of numbers by NumPy's characters for them. */
static const char REALS[] = "fd", *const INTEGERS = sizeof(long) == 8 ? "lq" : "q";

static const char *dtypes(const char *types) {
    return strchr(types, 'q') ? "int64" : types[1] ? "float32 or float64" : *types == 'f' ? "float32" : "float64";
}

/* '?' for what is not of NumPy's own, as its character may be any. */
static char type_of(PyArrayObject *array) {
    int number = PyArray_TYPE(array);
    return number < 0 || PyTypeNum_ISUSERDEF(number) ? '?' : PyArray_DESCR(array)->type;
}

/* Whether the last array and the k-th, one of them to be written, have memory in common. */
static int overlap(const Taken *taken, int k) {
    int last = taken->taken - 1;
    if (!((taken->uses[k] | taken->uses[last]) & WRITTEN) || !taken->at[k]) return 0;
    uintptr_t a = (uintptr_t)taken->at[k], a_end = a + (uintptr_t)PyArray_NBYTES(taken->arrays[k]);
    uintptr_t b = (uintptr_t)taken->at[last], b_end = b + (uintptr_t)PyArray_NBYTES(taken->arrays[last]);
    return (a > b ? a : b) < (a_end < b_end ? a_end : b_end); /* never of no numbers */
}

/* Take one more array, of numbers of one of the types; return whether that went well. */
static int take(Taken *taken, PyObject *object, const char *name, int use, const char *types) {
    int k = taken->taken;
    taken->uses[k] = use;
    taken->arrays[k] = NULL;
    taken->at[k] = NULL;
    taken->taken++;
    if (object == Py_None && use & MAYBE) return 1;
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: expected an array, got %s", name, Py_TYPE(object)->tp_name);
        return 0;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (!strchr(types, type_of(array)) || !PyArray_ISNOTSWAPPED(array)) {
        PyErr_Format(PyExc_TypeError, "%s: expected %s, got %S", name, dtypes(types), (PyObject *)PyArray_DESCR(array));
        return 0;
    }
    if (!PyArray_CHKFLAGS(array, NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED)) {
        PyErr_Format(PyExc_ValueError, "%s: expected an array that is contiguous and aligned", name);
        return 0;
    }
    if (use & WRITTEN && !PyArray_ISWRITEABLE(array)) {
        PyErr_Format(PyExc_ValueError, "%s: expected an array that can be written to, got a read-only one", name);
        return 0;
    }
    taken->arrays[k] = array;
    taken->at[k] = PyArray_DATA(array);
    taken->counts[k] = PyArray_SIZE(array);
    taken->matrices[k] = PyArray_NDIM(array) == 2;
    if (!k) taken->type = type_of(array);
    for (int other = 0; other < k; other++)
        if (overlap(taken, other)) {
            PyErr_Format(PyExc_ValueError, "%s: expected an array apart from those that are written", name);
            return 0;
        }
    return 1;
}

static Size count(const Taken *taken, int k) { return taken->counts[k]; }

static int is_double(const Taken *taken) { return taken->type == 'd'; }

/* The types of numbers that go with the first array's: its own. */
static const char *its_type(const Taken *taken) { return is_double(taken) ? "d" : "f"; }
