/* handle.c: what bus, producer, consumer, queue and state have in common: who is inside, who hangs on whom, closing, the end.
 *
 * A child holds its parent (a producer its bus); the parent knows its open children without holding them, and closes them first. A handle
 * is closed when core->handle is NULL. One that nobody closed is closed by its finaliser, with a ResourceWarning; in a forked child it is
 * left alone, since what it refers to is the parent process's. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {"bus", "producer", "consumer", "queue", "state"};

enum { FINAL_MS = 2000, STUCK_MS = 1000 };

bwpy_handle *bwpy_handle_new(PyTypeObject *type, bwpy_kind kind, bwpy_handle *parent, void *c)
{
    bwpy_core *core = calloc(1, sizeof *core);
    if (!core) return (bwpy_handle *)PyErr_NoMemory();
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    bwpy_handle *h = (bwpy_handle *)alloc(type, 0);
    if (!h) {
        free(core);
        return NULL;
    }
    core->refs = 1;
    core->handle = c;
    h->core = core;
    h->kind = kind;
    h->generation = bwpy_generation;
    h->parent = parent;
    if (!parent) return h;
    Py_INCREF(parent);
    h->next = parent->children;
    h->before = &parent->children;
    if (h->next) h->next->before = &h->next;
    parent->children = h;
    return h;
}

static void unlink_handle(bwpy_handle *h)
{
    if (!h->before) return;
    *h->before = h->next;
    if (h->next) h->next->before = h->before;
    h->before = NULL;
    h->next = NULL;
}

void *bwpy_enter(bwpy_handle *h)
{
    if (!h->core) {
        PyErr_Format(bwpy_closed, "the %s was never opened", kind_names[h->kind]);
        return NULL;
    }
    if (h->generation != bwpy_generation) {
        PyErr_Format(bwpy_forked, "the %s belongs to the parent process: open another one after fork", kind_names[h->kind]);
        return NULL;
    }
    if (h->closing || !h->core->handle) {
        PyErr_Format(bwpy_closed, "the %s is closed", kind_names[h->kind]);
        return NULL;
    }
    if (h->kind >= BWPY_CONSUMER) {
        unsigned long me = PyThread_get_thread_ident();
        if (h->depth > 0 ? h->thread != me : atomic_load(&h->core->inside) > 0) {
            PyErr_Format(bwpy_concurrent, h->depth > 0 ? "another thread is inside this %s: one at a time may use it"
                                                       : "an interrupted call of this %s has not ended yet", kind_names[h->kind]);
            return NULL;
        }
        h->thread = me;
    }
    h->depth++;
    atomic_fetch_add(&h->core->inside, 1);
    return h->core->handle;
}

void bwpy_leave(bwpy_handle *h)
{
    h->depth--;
    atomic_fetch_sub(&h->core->inside, 1);
}

/* ---- closing ---- */

static void wake(bwpy_handle *h)
{
    if (h->kind == BWPY_CONSUMER) bw_consumer_wake(h->core->handle);
    if (h->kind == BWPY_QUEUE) bw_queue_wake(h->core->handle);
}

/* Nobody is inside any more: 0. -1: an exception, or (final) they stay. */
static int shut(bwpy_handle *h, bool final)
{
    int64_t stuck = bwpy_deadline_after(STUCK_MS);
    h->closing = true;
    while (atomic_load(&h->core->inside) > 0) {
        wake(h);
        bwpy_pause();
        if (final ? bwpy_over(stuck) : PyErr_CheckSignals() < 0) {
            h->closing = false;
            return -1;
        }
    }
    return 0;
}

typedef struct close_job {
    bwpy_job job;
    bwpy_kind kind;
    void *handle;
} close_job;

static void run_close(bwpy_job *job)
{
    close_job *j = (close_job *)job;
    if (j->kind == BWPY_BUS) bw_bus_close(j->handle);
    if (j->kind == BWPY_QUEUE) bwpy_note(job, bw_queue_close(j->handle));
}

static int close_by_job(bwpy_handle *h)
{
    close_job *j = bwpy_job_new(sizeof *j, run_close, NULL, NULL);
    if (!j) return -1;
    j->kind = h->kind;
    j->handle = h->core->handle;
    h->core->handle = NULL;
    if (bwpy_run(&j->job) < 0) return -1; /* the helper ends it */
    if (j->job.error) bwpy_raise(j->job.error, j->job.message);
    bw_err e = j->job.error;
    bwpy_job_free(&j->job);
    return e ? -1 : 0;
}

/* Flush in slices as long as there is time, then close without waiting. */
static int close_producer(bwpy_handle *h, int64_t deadline, bool final)
{
    bwpy_producer *p = (bwpy_producer *)h;
    bw_producer *c = h->core->handle;
    bw_err e;
    do {
        int32_t slice = bwpy_slice(deadline);
        Py_BEGIN_ALLOW_THREADS
        e = bw_producer_flush(c, slice);
        Py_END_ALLOW_THREADS
        if (e == BW_ERR_TIMED_OUT && !final && PyErr_CheckSignals() < 0) return -1;
    } while (e == BW_ERR_TIMED_OUT && !bwpy_over(deadline));
    h->core->handle = NULL;
    char message[512] = "";
    Py_BEGIN_ALLOW_THREADS
    e = bw_producer_close(c, 0);
    if (e) strncpy(message, bw_error_message(), sizeof message - 1);
    Py_END_ALLOW_THREADS
    if (bwpy_delivered(p) < 0) return -1;
    if (p->outbox->failed) {
        p->outbox->failed = 0;
        bwpy_raise(p->outbox->first, p->outbox->message);
        return -1;
    }
    if (e) bwpy_raise(e, message);
    return e ? -1 : 0;
}

static int close_consumer(bwpy_handle *h)
{
    bwpy_consumer *c = (bwpy_consumer *)h;
    bw_consumer *handle = h->core->handle;
    if (bwpy_retire(c, handle) < 0) return -1;
    /* Callbacks that it calls may use it: nobody else may. */
    h->thread = PyThread_get_thread_ident();
    h->depth++;
    atomic_fetch_add(&h->core->inside, 1);
    h->closing = false;
    c->in_callback = false;
    BWPY_CONSUMER_BEGIN(c);
    bw_consumer_close(handle);
    BWPY_CONSUMER_END(c);
    h->depth--;
    atomic_fetch_sub(&h->core->inside, 1);
    h->core->handle = NULL;
    Py_CLEAR(c->on_rebalance);
    return bwpy_callback_error(c);
}

static int close_one(bwpy_handle *h, int64_t deadline, bool final)
{
    if (!h->core || !h->core->handle || h->generation != bwpy_generation) return 0;
    if (h->depth > 0 && h->kind >= BWPY_CONSUMER && h->thread == PyThread_get_thread_ident()) {
        bwpy_raise(BW_ERR_INVALID_ARGUMENT, "close from inside its own callback: leave the callback first");
        return -1;
    }
    while (h->children) {
        bwpy_handle *child = h->children;
        Py_INCREF(child);
        int r = close_one(child, deadline, final);
        if (r == 0) unlink_handle(child);
        Py_DECREF(child);
        if (r < 0 && (!child->core || child->core->handle)) return -1;
        if (r < 0) { /* closed, with an error to tell: the rest goes on */
            unlink_handle(child);
            PyObject *type, *value, *trace;
            PyErr_Fetch(&type, &value, &trace);
            if (close_one(h, deadline, final) < 0) PyErr_Clear();
            PyErr_Restore(type, value, trace);
            return -1;
        }
    }
    if (h->closing) return 0; /* another thread is at it */
    if (shut(h, final) < 0) return -1;
    if (!h->core->handle) return 0;
    int r = 0;
    if (h->kind == BWPY_PRODUCER) r = close_producer(h, deadline, final);
    else if (h->kind == BWPY_CONSUMER) r = close_consumer(h);
    else if (h->kind == BWPY_STATE) bwpy_close_state(h);
    else r = close_by_job(h);
    h->closing = false;
    if (!h->core->handle) unlink_handle(h);
    return r;
}

int bwpy_close(bwpy_handle *h, int64_t deadline) { return close_one(h, deadline, false); }

/* ---- the end ---- */

void bwpy_finish(bwpy_handle *h)
{
    if (!h->core || !h->core->handle || h->generation != bwpy_generation) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyErr_ResourceWarning((PyObject *)h, 1, "unclosed %s %p", kind_names[h->kind], (void *)h) < 0) PyErr_WriteUnraisable((PyObject *)h);
    if (close_one(h, bwpy_deadline_after(FINAL_MS), true) < 0 && PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)h);
    PyErr_Restore(type, value, trace);
}

void bwpy_free(PyObject *self)
{
    bwpy_handle *h = (bwpy_handle *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    if (h->core) {
        unlink_handle(h);
        bwpy_core_unref(h->core);
    }
    Py_CLEAR(h->parent);
    release(self);
    Py_DECREF(type);
}

int bwpy_handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((bwpy_handle *)self)->parent);
    return 0;
}

PyObject *bwpy_get_closed(PyObject *self, void *unused)
{
    (void)unused;
    bwpy_handle *h = (bwpy_handle *)self;
    return PyBool_FromLong(!h->core || !h->core->handle);
}

PyObject *bwpy_no_pickle(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyErr_Format(PyExc_TypeError, "%R can't be pickled: it is a connection of this process; send the URL and connect there",
                 (PyObject *)Py_TYPE(self));
    return NULL;
}

PyObject *bwpy_no_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    PyErr_Format(PyExc_TypeError, "%R is not made by hand", (PyObject *)type);
    return NULL;
}

PyTypeObject *bwpy_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base, const char *name)
{
    PyObject *bases = base ? PyTuple_Pack(1, (PyObject *)base) : NULL;
    if (base && !bases) return NULL;
    PyObject *type = PyType_FromSpecWithBases(spec, bases);
    Py_XDECREF(bases);
    if (!type || !name) return (PyTypeObject *)type;
    Py_INCREF(type);
    if (PyModule_AddObject(module, name, type) < 0) {
        Py_DECREF(type);
        Py_DECREF(type);
        return NULL;
    }
    return (PyTypeObject *)type;
}
