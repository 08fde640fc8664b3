/* producer.c: the producer's object: opening, deliveries, polling, flushing, transactions. Sending is in producer_send.c and
 * producer_many.c, writing in place in producer_reserve.c.
 *
 * Deliveries. libbusway calls back from bw_producer_poll, _flush and _close, without the GIL: what is to be told goes into the outbox, and
 * bwpy_delivered tells it with the GIL. A failure of a send that nobody asked about is kept and raised by the next flush or close. */
#include "_busway.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

PyTypeObject *bwpy_producer_type;

typedef struct open_job {
    bwpy_job job;
    bw_bus *bus;
    bw_producer_options options;
    bw_producer *producer;
} open_job;

static void run_open(bwpy_job *job)
{
    open_job *j = (open_job *)job;
    bwpy_note(job, bw_producer_open(j->bus, &j->options, &j->producer));
}

static void drop_open(bwpy_job *job)
{
    open_job *j = (open_job *)job;
    if (!job->error) bw_producer_close(j->producer, 0);
}

static bwpy_producer *producer_make(PyTypeObject *type, bwpy_handle *bus, open_job *j)
{
    bwpy_outbox *outbox = calloc(1, sizeof *outbox);
    bwpy_producer *p = outbox ? (bwpy_producer *)bwpy_handle_new(type, BWPY_PRODUCER, bus, j->producer) : NULL;
    if (!p) {
        free(outbox);
        bw_producer_close(j->producer, 0);
        return PyErr_Occurred() ? NULL : (bwpy_producer *)PyErr_NoMemory();
    }
    pthread_mutex_init(&outbox->mutex, NULL);
    p->outbox = outbox;
    p->delivery_timeout_ms = j->options.delivery_timeout_ms;
    p->queued = j->options.acks >= BW_ACKS_DURABLE || j->options.transactional_id;
    return p;
}

/* Producer(bus, acks, batch_size, linger_ms, buffer_memory, delivery_timeout_ms, compression, name, idempotence, transactional_id,
 * transaction_timeout_ms, value_serializer, key_serializer) */
static PyObject *producer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    bwpy_handle *bus;
    int acks, delivery_ms, codec, idempotence, txn_ms;
    unsigned int batch_size, linger_ms;
    unsigned long long buffer_memory;
    PyObject *value_serializer, *key_serializer;
    bw_producer_options options = BW_PRODUCER_OPTIONS_INIT;
    if (!PyArg_ParseTuple(args, "O!iIIKiizpziOO", bwpy_bus_type, &bus, &acks, &batch_size, &linger_ms, &buffer_memory, &delivery_ms, &codec,
                          &options.name, &idempotence, &options.transactional_id, &txn_ms, &value_serializer, &key_serializer))
        return NULL;
    options.acks = (bw_acks)acks;
    options.batch_size = batch_size;
    options.linger_ms = linger_ms;
    options.buffer_memory = buffer_memory;
    options.delivery_timeout_ms = delivery_ms;
    options.compression = (bw_codec)codec;
    options.enable_idempotence = idempotence;
    options.transaction_timeout_ms = txn_ms;
    bw_bus *c_bus = bwpy_enter(bus);
    if (!c_bus) return NULL;
    bwpy_producer *p = NULL;
    open_job *j = bwpy_job_new(sizeof *j, run_open, args, bus->core);
    if (j) {
        j->job.drop = drop_open;
        j->bus = c_bus;
        j->options = options;
        if (bwpy_run(&j->job) == 0) {
            if (j->job.error) bwpy_raise(j->job.error, j->job.message);
            else p = producer_make(type, bus, j);
            bwpy_job_free(&j->job);
        }
    }
    bwpy_leave(bus);
    if (!p) return NULL;
    if (value_serializer != Py_None) Py_INCREF(p->value_serializer = value_serializer);
    if (key_serializer != Py_None) Py_INCREF(p->key_serializer = key_serializer);
    return (PyObject *)p;
}

/* ---- the end ---- */

static void outbox_free(bwpy_outbox *box)
{
    while (box->head) {
        bwpy_told *t = box->head;
        box->head = t->next;
        Py_XDECREF(t->callback);
        free(t->message);
        free(t);
    }
    pthread_mutex_destroy(&box->mutex);
    free(box);
}

static void producer_finalize(PyObject *self) { bwpy_finish((bwpy_handle *)self); }

static int producer_traverse(PyObject *self, visitproc visit, void *arg)
{
    bwpy_producer *p = (bwpy_producer *)self;
    Py_VISIT(p->value_serializer);
    Py_VISIT(p->key_serializer);
    return bwpy_handle_traverse(self, visit, arg);
}

static int producer_clear(PyObject *self)
{
    bwpy_producer *p = (bwpy_producer *)self;
    Py_CLEAR(p->value_serializer);
    Py_CLEAR(p->key_serializer);
    return 0;
}

static void producer_dealloc(PyObject *self)
{
    bwpy_producer *p = (bwpy_producer *)self;
    PyObject_GC_UnTrack(self);
    if (p->base.weak) PyObject_ClearWeakRefs(self);
    producer_clear(self);
    if (p->outbox && (!p->base.core || !p->base.core->handle)) outbox_free(p->outbox); /* else the library may still call back */
    bwpy_free(self);
}

/* ---- deliveries ---- */

int bwpy_delivered(bwpy_producer *p)
{
    bwpy_outbox *box = p->outbox;
    int ran = 0;
    if (p->in_callback) return 0; /* a callback that polls: the outer call tells the rest, in order */
    while (atomic_load_explicit(&box->waiting, memory_order_relaxed) > 0) {
        pthread_mutex_lock(&box->mutex);
        bwpy_told *t = box->head;
        if (t && !(box->head = t->next)) box->tail = NULL;
        pthread_mutex_unlock(&box->mutex);
        if (!t) break;
        atomic_fetch_sub(&box->waiting, 1);
        PyObject *error = t->delivery.error ? bwpy_make_error(t->delivery.error, t->message) : NULL;
        PyObject *d = t->delivery.error && !error ? NULL : bwpy_delivery_make(t->topic, &t->delivery, error);
        p->in_callback = true;
        PyObject *r = d ? PyObject_CallFunctionObjArgs(t->callback, d, NULL) : NULL;
        p->in_callback = false;
        Py_XDECREF(error);
        Py_XDECREF(d);
        Py_DECREF(t->callback);
        free(t->message);
        free(t);
        if (!r) return -1;
        Py_DECREF(r);
        ran++;
    }
    return ran;
}

int bwpy_flush(bw_producer *handle, int64_t deadline)
{
    bw_err e;
    for (;;) {
        int32_t slice = bwpy_slice(deadline);
        Py_BEGIN_ALLOW_THREADS
        e = bw_producer_flush(handle, slice);
        Py_END_ALLOW_THREADS
        if (e != BW_ERR_TIMED_OUT) break;
        if (PyErr_CheckSignals() < 0) return -1;
        if (bwpy_over(deadline)) break;
    }
    if (e) bwpy_raise(e, NULL);
    return e ? -1 : 0;
}

/* flush(timeout) */
static PyObject *producer_flush(PyObject *self, PyObject *timeout)
{
    bwpy_producer *p = (bwpy_producer *)self;
    int64_t deadline;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    if (!handle) return NULL;
    int r = bwpy_flush(handle, deadline);
    PyObject *type = NULL, *value, *trace;
    if (r < 0) PyErr_Fetch(&type, &value, &trace);
    bwpy_drain_log();
    if (bwpy_delivered(p) < 0) { /* a callback's own exception goes before the time-out */
        Py_XDECREF(type);
        type = NULL;
        r = -1;
    } else if (type) {
        PyErr_Restore(type, value, trace);
    }
    bwpy_leave(&p->base);
    if (r < 0) return NULL;
    bwpy_outbox *box = p->outbox;
    pthread_mutex_lock(&box->mutex);
    uint64_t failed = box->failed;
    box->failed = 0;
    pthread_mutex_unlock(&box->mutex);
    if (!failed) Py_RETURN_NONE;
    if (failed == 1) return bwpy_raise(box->first, box->message);
    char text[640];
    snprintf(text, sizeof text, "%llu records were not delivered; the first: %s", (unsigned long long)failed, box->message);
    return bwpy_raise(box->first, text);
}

/* poll(timeout): how many callbacks ran. */
static PyObject *producer_poll(PyObject *self, PyObject *timeout)
{
    bwpy_producer *p = (bwpy_producer *)self;
    int64_t deadline;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    if (!handle) return NULL;
    int ran;
    for (;;) {
        int told;
        int32_t slice = atomic_load(&p->outbox->waiting) ? 0 : bwpy_slice(deadline);
        Py_BEGIN_ALLOW_THREADS
        told = bw_producer_poll(handle, slice);
        Py_END_ALLOW_THREADS
        ran = bwpy_delivered(p);
        if (ran != 0 || told > 0 || bwpy_over(deadline)) break;
        if (PyErr_CheckSignals() < 0) {
            ran = -1;
            break;
        }
    }
    bwpy_leave(&p->base);
    return ran < 0 ? NULL : PyLong_FromLong(ran);
}

/* close(timeout) */
static PyObject *producer_close(PyObject *self, PyObject *timeout)
{
    int64_t deadline;
    bwpy_producer *p = (bwpy_producer *)self;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    if (p->in_callback) return bwpy_raise(BW_ERR_INVALID_ARGUMENT, "close from inside a delivery callback: leave the callback first");
    if (p->reservations > 0) {
        PyErr_SetString(PyExc_BufferError, "a reservation is open: commit or abort it before the producer is closed");
        return NULL;
    }
    if (bwpy_close(&p->base, deadline) < 0) return NULL;
    bwpy_drain_log();
    Py_RETURN_NONE;
}

static PyObject *producer_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    bw_producer *handle = bwpy_enter((bwpy_handle *)self);
    if (!handle) return NULL;
    int fd = bw_producer_fd(handle);
    bwpy_leave((bwpy_handle *)self);
    return fd < 0 ? bwpy_raise(BW_ERR_IO, NULL) : PyLong_FromLong(fd);
}

static PyObject *get_outstanding(PyObject *self, void *unused)
{
    (void)unused;
    bwpy_producer *p = (bwpy_producer *)self;
    return PyLong_FromLongLong(atomic_load(&p->outbox->outstanding) + atomic_load(&p->outbox->waiting));
}

static PyMethodDef producer_methods[] = {
    {"send", (PyCFunction)(void (*)(void))bwpy_send, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_queue_send", (PyCFunction)(void (*)(void))bwpy_queue_send, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_try_send", (PyCFunction)(void (*)(void))bwpy_try_send, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"send_sync", (PyCFunction)(void (*)(void))bwpy_send_sync, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_send_many", (PyCFunction)(void (*)(void))bwpy_send_many, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_reserve", (PyCFunction)(void (*)(void))bwpy_reserve, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_transaction", bwpy_transaction, METH_VARARGS, NULL},
    {"_last_sequence", bwpy_last_sequence, METH_VARARGS, NULL},
    {"_flush", producer_flush, METH_O, NULL},
    {"_poll", producer_poll, METH_O, NULL},
    {"_close", producer_close, METH_O, NULL},
    {"fileno", producer_fileno, METH_NOARGS, NULL},
    {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef producer_getset[] = {
    {"closed", bwpy_get_closed, NULL, "True after close().", NULL},
    {"outstanding", get_outstanding, NULL, "Records that were sent and whose outcome is not known, or not told yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef producer_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bwpy_handle, weak), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

int bwpy_producer_init(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_new, producer_new},
        {Py_tp_finalize, producer_finalize},
        {Py_tp_dealloc, producer_dealloc},
        {Py_tp_traverse, producer_traverse},
        {Py_tp_clear, producer_clear},
        {Py_tp_methods, producer_methods},
        {Py_tp_getset, producer_getset},
        {Py_tp_members, producer_members},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway._busway.Producer", sizeof(bwpy_producer), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    bwpy_producer_type = bwpy_type(module, &spec, NULL, "Producer");
    return bwpy_producer_type ? 0 : -1;
}
