/* Arrays as they come in, by the buffer protocol: contiguous, aligned, of the numbers that are expected, and what is
 * written apart from all else: integers that were looked at stay as they were, and `restrict` says the truth.
 *
 * Whatever is handed in, nothing is read or written outside of them: how many numbers each has is for whoever takes
 * it to look at.
 */
typedef long long Size; /* where addresses have 32 bits too: products of sizes are looked at before they are known to fit */

enum { READ = 0, WRITTEN = 1, MAYBE = 2 }; /* MAYBE: or None */
enum { MOST = 24 };

typedef struct {
    Py_buffer views[MOST];
    void *at[MOST]; /* NULL for None */
    int uses[MOST];
    int taken;
} Taken;

static const char REALS[] = "fd", *const INTEGERS = sizeof(long) == 8 ? "lq" : "q";

/* Let go of all, and return NULL, as a function does that has raised an exception. */
static void *release(Taken *taken) {
    while (taken->taken) {
        Py_buffer *view = taken->views + --taken->taken;
        if (view->obj) PyBuffer_Release(view);
    }
    return NULL;
}

/* Whether the last array and the k-th, one of them to be written, have memory in common. */
static int overlap(const Taken *taken, int k) {
    int last = taken->taken - 1;
    const Py_buffer *a = taken->views + k, *b = taken->views + last;
    uintptr_t a_first = (uintptr_t)a->buf, b_first = (uintptr_t)b->buf, a_end = a_first + a->len, b_end = b_first + b->len;
    int apart = (a_first > b_first ? a_first : b_first) >= (a_end < b_end ? a_end : b_end); /* of no numbers, too */
    return (taken->uses[k] | taken->uses[last]) & WRITTEN && !apart;
}

/* Take one more array, of numbers of one of the formats; return whether that went well. */
static int take(Taken *taken, PyObject *object, const char *name, int use, const char *formats) {
    Py_buffer *view = taken->views + taken->taken;
    memset(view, 0, sizeof *view);
    taken->uses[taken->taken] = use;
    if (object == Py_None && use & MAYBE) {
        taken->at[taken->taken++] = NULL;
        return 1;
    }
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (use & WRITTEN ? PyBUF_WRITABLE : 0))) return 0;
    taken->at[taken->taken++] = view->buf;
    const char *own = view->format ? view->format : "B";
    if (strlen(own) != 1 || !strchr(formats, *own)) {
        PyErr_Format(PyExc_TypeError, "%s: expected numbers of format %s, got %s", name, formats, own);
        return 0;
    }
    if ((uintptr_t)view->buf % view->itemsize) {
        PyErr_Format(PyExc_ValueError, "%s: expected an aligned array", name);
        return 0;
    }
    for (int k = 0; k < taken->taken - 1; k++)
        if (overlap(taken, k)) {
            PyErr_Format(PyExc_ValueError, "%s: expected an array apart from those that are written", name);
            return 0;
        }
    return 1;
}

static Size count(const Taken *taken, int k) { return taken->views[k].len / taken->views[k].itemsize; }

static int is_double(const Taken *taken) { return *taken->views[0].format == 'd'; }
