/* producer_reserve.c: a record that is written in place.
 *
 * A Reservation has a writable buffer that leads into the log itself. While memoryviews of it live it can't be committed or aborted
 * (BufferError), and the producer can't be closed while it is open. It holds the partition's lock: the thread that made it ends it, soon;
 * the context manager commits, or aborts when the block raised. One that is forgotten aborts when it is freed by that thread. */
#include "_busway.h"

static PyTypeObject *reservation_type;

typedef struct reservation {
    PyObject_HEAD
    bwpy_producer *producer; /* strong; NULL: ended */
    bw_reservation in;
    PyObject *topic;
    int exports;
    unsigned long thread;
    Py_ssize_t size;
    PyObject *timeout;
} reservation;

/* _reserve(topic, partition, size, key, timestamp_ms, headers, timeout) */
PyObject *bwpy_reserve(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"topic", "partition", "size", "key", "timestamp_ms", "headers", "timeout"};
    bwpy_producer *p = (bwpy_producer *)self;
    PyObject *a[7];
    bwpy_outgoing o;
    int64_t size, deadline;
    if (bwpy_parse("reserve", args, nargs, kwnames, names, 7, 7, 7, a) < 0) return NULL;
    if (bwpy_get_int64(a[2], "size", &size) < 0 || bwpy_deadline(a[6], &deadline) < 0) return NULL;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "size is a number of bytes from 0");
        return NULL;
    }
    if (bwpy_outgoing_get(p, a[0], NULL, a[3], a[1], a[4], a[5], &o) < 0) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    reservation *r = handle ? PyObject_New(reservation, reservation_type) : NULL;
    if (r) {
        bw_err e;
        r->producer = NULL;
        r->topic = r->timeout = NULL;
        r->exports = 0;
        for (;;) {
            int32_t slice = bwpy_slice(deadline);
            Py_BEGIN_ALLOW_THREADS
            e = bw_producer_reserve(handle, o.topic, o.partition, &o.record, (size_t)size, slice, &r->in);
            Py_END_ALLOW_THREADS
            if ((e != BW_ERR_TIMED_OUT && e != BW_ERR_LOCK_HELD) || PyErr_CheckSignals() < 0 || bwpy_over(deadline)) break;
        }
        if (e) {
            if (!PyErr_Occurred()) bwpy_raise(e, NULL);
            Py_CLEAR(r);
        } else {
            Py_INCREF(p);
            Py_INCREF(a[0]);
            Py_INCREF(a[6]);
            r->producer = p;
            r->topic = a[0];
            r->timeout = a[6];
            r->thread = PyThread_get_thread_ident();
            r->size = (Py_ssize_t)size;
            p->reservations++;
        }
    }
    if (handle) bwpy_leave(&p->base);
    bwpy_outgoing_put(&o);
    return (PyObject *)r;
}

static bw_producer *check(reservation *r)
{
    if (!r->producer) {
        PyErr_SetString(bwpy_released, "the reservation has been committed or aborted");
        return NULL;
    }
    if (r->thread != PyThread_get_thread_ident()) {
        PyErr_SetString(bwpy_concurrent, "a reservation is ended by the thread that made it: it holds the partition's lock");
        return NULL;
    }
    if (r->exports > 0) {
        PyErr_Format(PyExc_BufferError, "%d memoryviews of the reservation are alive: release them first", r->exports);
        return NULL;
    }
    return bwpy_enter(&r->producer->base);
}

static void ended(reservation *r)
{
    bwpy_producer *p = r->producer;
    r->producer = NULL;
    p->reservations--;
    Py_DECREF(p);
}

/* commit(size=None): the first size bytes (all) become the value: the delivery. */
static PyObject *reservation_commit(PyObject *self, PyObject *args)
{
    reservation *r = (reservation *)self;
    PyObject *size = Py_None;
    int64_t n = r->size, deadline;
    if (!PyArg_ParseTuple(args, "|O:commit", &size) || (size != Py_None && bwpy_get_int64(size, "size", &n) < 0)) return NULL;
    if (n < 0 || n > r->size) {
        PyErr_Format(PyExc_ValueError, "the reservation has %zd bytes, not %lld", r->size, (long long)n);
        return NULL;
    }
    if (bwpy_deadline(r->timeout, &deadline) < 0) return NULL;
    bw_producer *handle = check(r);
    if (!handle) return NULL;
    bw_delivery d;
    bw_err e;
    Py_BEGIN_ALLOW_THREADS
    e = bw_producer_commit(handle, &r->in, (size_t)n, bwpy_left(deadline), &d);
    Py_END_ALLOW_THREADS
    const char *topic = bwpy_text(r->topic, "topic");
    PyObject *result = e || !topic ? bwpy_raise(e, NULL) : bwpy_delivery_make(topic, &d, NULL);
    bwpy_leave(&r->producer->base);
    ended(r);
    return result;
}

static PyObject *reservation_abort(PyObject *self, PyObject *unused)
{
    (void)unused;
    reservation *r = (reservation *)self;
    if (!r->producer) Py_RETURN_NONE;
    bw_producer *handle = check(r);
    if (!handle) return NULL;
    bw_producer_abort(handle, &r->in);
    bwpy_leave(&r->producer->base);
    ended(r);
    Py_RETURN_NONE;
}

static PyObject *reservation_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_INCREF(self);
    return self;
}

static PyObject *reservation_exit(PyObject *self, PyObject *args)
{
    PyObject *type, *value, *trace, *r;
    if (!PyArg_ParseTuple(args, "OOO", &type, &value, &trace)) return NULL;
    if (!((reservation *)self)->producer) Py_RETURN_NONE;
    if (type != Py_None) {
        r = reservation_abort(self, NULL);
    } else {
        PyObject *none = PyTuple_New(0);
        r = none ? reservation_commit(self, none) : NULL;
        Py_XDECREF(none);
    }
    if (!r) return NULL;
    Py_DECREF(r);
    Py_RETURN_NONE;
}

static int reservation_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    reservation *r = (reservation *)self;
    if (!r->producer || r->producer->base.generation != bwpy_generation) {
        PyErr_SetString(bwpy_released, "the reservation has been committed or aborted");
        return -1;
    }
    if (PyBuffer_FillInfo(view, self, r->in.value, r->size, 0, flags) < 0) return -1;
    r->exports++;
    return 0;
}

static void reservation_releasebuffer(PyObject *self, Py_buffer *view)
{
    (void)view;
    ((reservation *)self)->exports--;
}

static void reservation_dealloc(PyObject *self)
{
    reservation *r = (reservation *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (r->producer) {
        bwpy_producer *p = r->producer;
        if (p->base.generation == bwpy_generation && p->base.core->handle && r->thread == PyThread_get_thread_ident())
            bw_producer_abort(p->base.core->handle, &r->in);
        ended(r);
    }
    Py_XDECREF(r->topic);
    Py_XDECREF(r->timeout);
    PyObject_Free(self);
    Py_DECREF(type);
}

static Py_ssize_t reservation_length(PyObject *self) { return ((reservation *)self)->size; }

int bwpy_reserve_init(PyObject *module)
{
    static PyMethodDef methods[] = {
        {"commit", reservation_commit, METH_VARARGS, "commit(size=None): the first size bytes (all) become the value; returns the Delivery."},
        {"abort", reservation_abort, METH_NOARGS, "Nothing was written."},
        {"__enter__", reservation_enter, METH_NOARGS, NULL},
        {"__exit__", reservation_exit, METH_VARARGS, NULL},
        {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_new, bwpy_no_new},
        {Py_tp_dealloc, reservation_dealloc},
        {Py_tp_methods, methods},
        {Py_bf_getbuffer, reservation_getbuffer},
        {Py_bf_releasebuffer, reservation_releasebuffer},
        {Py_sq_length, reservation_length},
        {Py_tp_doc, "Room for one record's value in the log: memoryview(reservation) is written, commit() or abort() ends it."},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway.Reservation", sizeof(reservation), 0, Py_TPFLAGS_DEFAULT, slots};
    reservation_type = bwpy_type(module, &spec, NULL, "Reservation");
    return reservation_type ? 0 : -1;
}
