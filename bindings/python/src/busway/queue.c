/* queue.c: records handed out one by one. A message is a copy of its record; what is acknowledged is named by topic, partition and offset. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

PyTypeObject *bwpy_queue_type;

enum { POLL_MAX = 4096 };

typedef struct queue_object {
    bwpy_handle base;
    PyObject *value_deserializer, *key_deserializer;
    PyObject *topic;           /* str of the last message's topic */
    const char *topic_name;    /* libbusway's pointer for it */
} queue_object;

typedef struct open_job {
    bwpy_job job;
    bw_bus *bus;
    bw_queue_options options;
    bw_queue *queue;
} open_job;

static void run_open(bwpy_job *job)
{
    open_job *j = (open_job *)job;
    bwpy_note(job, bw_queue_open(j->bus, &j->options, &j->queue));
}

static void drop_open(bwpy_job *job)
{
    if (!job->error) bw_queue_close(((open_job *)job)->queue);
}

/* Names as an array in a bytes object, which is put into *keep with the tuple. */
static const char **names_of(PyObject *topics, size_t *count, PyObject **keep)
{
    PyObject *tuple = PySequence_Tuple(topics);
    if (!tuple) return NULL;
    Py_ssize_t n = PyTuple_Size(tuple);
    PyObject *room = PyBytes_FromStringAndSize(NULL, (n + 1) * (Py_ssize_t)sizeof(char *));
    const char **names = room ? (const char **)(void *)PyBytes_AsString(room) : NULL;
    for (Py_ssize_t i = 0; names && i < n; i++)
        if (!(names[i] = bwpy_text(PyTuple_GetItem(tuple, i), "a topic"))) names = NULL;
    *keep = names ? PyTuple_Pack(2, tuple, room) : NULL;
    *count = (size_t)n;
    Py_DECREF(tuple);
    Py_XDECREF(room);
    return *keep ? names : NULL;
}

/* Queue(bus, group, topics, lease_ms, max_deliveries, max_in_flight, dead_letter_topic, archive, isolation, start, max_records, ack_records,
 * value_deserializer, key_deserializer) */
static PyObject *queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    bwpy_handle *bus;
    PyObject *topics, *value_deserializer, *key_deserializer, *keep_names;
    int lease, deliveries, in_flight, archive, isolation, start, max_records, ack_records;
    bw_queue_options o = BW_QUEUE_OPTIONS_INIT;
    if (!PyArg_ParseTuple(args, "O!sOiiizpiiiiOO", bwpy_bus_type, &bus, &o.group, &topics, &lease, &deliveries, &in_flight,
                          &o.dead_letter_topic, &archive, &isolation, &start, &max_records, &ack_records, &value_deserializer,
                          &key_deserializer))
        return NULL;
    o.topics = names_of(topics, &o.topic_count, &keep_names);
    if (!o.topics) return NULL;
    o.lease_ms = lease;
    o.max_deliveries = deliveries;
    o.max_in_flight = in_flight;
    o.archive = archive;
    o.isolation = (bw_queue_isolation)isolation;
    o.start = (bw_offset_reset)start;
    o.max_records = max_records;
    o.ack_records = ack_records;
    bw_bus *c_bus = bwpy_enter(bus);
    PyObject *keep = c_bus ? PyTuple_Pack(2, args, keep_names) : NULL;
    Py_DECREF(keep_names);
    open_job *j = keep ? bwpy_job_new(sizeof *j, run_open, keep, bus->core) : NULL;
    Py_XDECREF(keep);
    queue_object *q = NULL;
    if (j) {
        j->bus = c_bus;
        j->options = o;
        j->job.drop = drop_open;
        if (bwpy_run(&j->job) == 0) {
            if (j->job.error) bwpy_raise(j->job.error, j->job.message);
            else if (!(q = (queue_object *)bwpy_handle_new(type, BWPY_QUEUE, bus, j->queue))) bw_queue_close(j->queue);
            bwpy_job_free(&j->job);
        }
    }
    if (c_bus) bwpy_leave(bus);
    if (!q) return NULL;
    if (value_deserializer != Py_None) Py_INCREF(q->value_deserializer = value_deserializer);
    if (key_deserializer != Py_None) Py_INCREF(q->key_deserializer = key_deserializer);
    return (PyObject *)q;
}

static void queue_finalize(PyObject *self) { bwpy_finish((bwpy_handle *)self); }

static int queue_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((queue_object *)self)->value_deserializer);
    Py_VISIT(((queue_object *)self)->key_deserializer);
    return bwpy_handle_traverse(self, visit, arg);
}

static int queue_clear(PyObject *self)
{
    Py_CLEAR(((queue_object *)self)->value_deserializer);
    Py_CLEAR(((queue_object *)self)->key_deserializer);
    return 0;
}

static void queue_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (((bwpy_handle *)self)->weak) PyObject_ClearWeakRefs(self);
    queue_clear(self);
    Py_CLEAR(((queue_object *)self)->topic);
    bwpy_free(self);
}

/* ---- polling ---- */

static PyObject *message_make(queue_object *q, const bw_message *m)
{
    if (m->topic != q->topic_name) {
        PyObject *topic = PyUnicode_FromString(m->topic);
        if (!topic) return NULL;
        Py_XDECREF(q->topic);
        q->topic = topic;
        q->topic_name = m->topic;
    }
    bwpy_record *r = (bwpy_record *)bwpy_record_make(bwpy_message_type, q->topic, m->partition, -1, BW_TIMESTAMP_CREATE, &m->record,
                                                     q->value_deserializer, q->key_deserializer);
    if (!r) return NULL;
    r->deliveries = m->deliveries;
    r->c_topic = m->topic;
    Py_INCREF(q);
    r->queue = (PyObject *)q;
    return (PyObject *)r;
}

/* 1: *count messages; 0: none in time; -1. The queue is entered. */
static int fetch(queue_object *q, bw_queue *handle, int64_t deadline, bw_message *messages, size_t max, size_t *count)
{
    for (;;) {
        bw_err e;
        int32_t slice = bwpy_slice(deadline);
        Py_BEGIN_ALLOW_THREADS
        e = bw_queue_poll_batch(handle, slice, messages, max, count);
        Py_END_ALLOW_THREADS
        if (!e) return 1;
        if (e == BW_ERR_WOKEN && q->base.closing) {
            PyErr_SetString(bwpy_closed, "the queue was closed by another thread");
            return -1;
        }
        if (e != BW_ERR_TIMED_OUT) {
            bwpy_raise(e, NULL);
            return -1;
        }
        if (PyErr_CheckSignals() < 0) return -1;
        if (bwpy_over(deadline)) return 0;
    }
}

static PyObject *poll_one(queue_object *q, int64_t deadline)
{
    bw_queue *handle = bwpy_enter(&q->base);
    if (!handle) return NULL;
    bw_message m;
    size_t count = 0;
    PyObject *message = NULL;
    int r = fetch(q, handle, deadline, &m, 1, &count);
    if (r == 1) message = message_make(q, &m);
    bwpy_leave(&q->base);
    return message;
}

static PyObject *queue_poll(PyObject *self, PyObject *timeout)
{
    int64_t deadline;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    PyObject *message = poll_one((queue_object *)self, deadline);
    if (message || PyErr_Occurred()) return message;
    Py_RETURN_NONE;
}

static PyObject *queue_next(PyObject *self) { return poll_one((queue_object *)self, BWPY_FOREVER); }

static PyObject *queue_iter(PyObject *self)
{
    Py_INCREF(self);
    return self;
}

/* _poll_batch(timeout, max): a list, empty when there was nothing. */
static PyObject *queue_poll_batch(PyObject *self, PyObject *args)
{
    queue_object *q = (queue_object *)self;
    PyObject *timeout;
    int max;
    int64_t deadline;
    if (!PyArg_ParseTuple(args, "Oi", &timeout, &max) || bwpy_deadline(timeout, &deadline) < 0) return NULL;
    if (max < 1) {
        PyErr_SetString(PyExc_ValueError, "max_records is at least 1");
        return NULL;
    }
    if (max > POLL_MAX) max = POLL_MAX;
    bw_message *messages = PyMem_Calloc((size_t)max, sizeof *messages);
    if (!messages) return PyErr_NoMemory();
    bw_queue *handle = bwpy_enter(&q->base);
    PyObject *list = NULL;
    size_t count = 0;
    if (handle) {
        int r = fetch(q, handle, deadline, messages, (size_t)max, &count);
        if (r >= 0) list = PyList_New(r ? (Py_ssize_t)count : 0);
        for (size_t i = 0; list && r == 1 && i < count; i++) {
            PyObject *m = message_make(q, &messages[i]);
            if (!m || PyList_SetItem(list, (Py_ssize_t)i, m) < 0) Py_CLEAR(list);
        }
        bwpy_leave(&q->base);
    }
    PyMem_Free(messages);
    return list;
}

/* ---- what became of them ---- */

typedef bw_err (*settle_fn)(bw_queue *queue, const bw_message *messages, size_t count);

static bw_err renew_all(bw_queue *queue, const bw_message *messages, size_t count)
{
    bw_err first = BW_OK;
    for (size_t i = 0; i < count; i++) {
        bw_err e = bw_queue_renew(queue, &messages[i]);
        if (!first) first = e;
    }
    return first;
}

static bw_err one(bw_err (*of_one)(bw_queue *, const bw_message *), settle_fn of_many, bw_queue *q, const bw_message *m, size_t n)
{
    return n == 1 ? of_one(q, m) : of_many(q, m, n);
}

static bw_err settle(int how, bw_queue *q, const bw_message *m, size_t n)
{
    switch (how) {
    case 0: return one(bw_queue_ack, bw_queue_ack_batch, q, m, n);
    case 1: return one(bw_queue_release, bw_queue_release_batch, q, m, n);
    case 2: return one(bw_queue_reject, bw_queue_reject_batch, q, m, n);
    default: return renew_all(q, m, n);
    }
}

/* _settle(how, messages): 0 ack, 1 release, 2 reject, 3 renew */
static PyObject *queue_settle(PyObject *self, PyObject *args)
{
    queue_object *q = (queue_object *)self;
    int how;
    PyObject *given;
    if (!PyArg_ParseTuple(args, "iO", &how, &given)) return NULL;
    PyObject *tuple = PySequence_Tuple(given);
    if (!tuple) return NULL;
    size_t n = (size_t)PyTuple_Size(tuple);
    bw_message *messages = PyMem_Calloc(n + 1, sizeof *messages);
    bw_queue *handle = messages ? bwpy_enter(&q->base) : (void *)PyErr_NoMemory();
    bw_err e = BW_OK;
    bool ok = handle;
    for (size_t i = 0; i < n && ok; i++) {
        bwpy_record *r = (bwpy_record *)PyTuple_GetItem(tuple, (Py_ssize_t)i);
        if (!PyObject_TypeCheck((PyObject *)r, bwpy_message_type) || r->queue != self) {
            PyErr_SetString(PyExc_ValueError, "a message that was not polled from this queue");
            ok = false;
            break;
        }
        messages[i].topic = r->c_topic;
        messages[i].partition = r->partition;
        messages[i].deliveries = r->deliveries;
        messages[i].record.offset = r->offset;
    }
    if (ok && n) {
        Py_BEGIN_ALLOW_THREADS
        e = settle(how, handle, messages, n);
        Py_END_ALLOW_THREADS
        if (e) bwpy_raise(e, NULL);
    }
    if (handle) bwpy_leave(&q->base);
    PyMem_Free(messages);
    Py_DECREF(tuple);
    if (!ok || e) return NULL;
    Py_RETURN_NONE;
}

static PyObject *queue_flush(PyObject *self, PyObject *timeout)
{
    queue_object *q = (queue_object *)self;
    int64_t deadline;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_queue *handle = bwpy_enter(&q->base);
    if (!handle) return NULL;
    bw_err e;
    for (;;) {
        int32_t slice = bwpy_slice(deadline);
        Py_BEGIN_ALLOW_THREADS
        e = bw_queue_flush(handle, slice);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0 || e != BW_ERR_TIMED_OUT || bwpy_over(deadline)) break;
    }
    bwpy_leave(&q->base);
    if (PyErr_Occurred()) return NULL;
    if (e) return bwpy_raise(e, NULL);
    Py_RETURN_NONE;
}

static PyObject *queue_wake(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_handle *h = (bwpy_handle *)self;
    if (h->generation != bwpy_generation || !h->core->handle) {
        PyErr_SetString(bwpy_closed, "the queue is closed");
        return NULL;
    }
    bw_queue_wake(h->core->handle);
    Py_RETURN_NONE;
}

static PyObject *queue_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (bwpy_close((bwpy_handle *)self, 0) < 0) return NULL;
    bwpy_drain_log();
    Py_RETURN_NONE;
}

static PyMethodDef queue_methods[] = {
    {"_poll", queue_poll, METH_O, NULL},
    {"_poll_batch", queue_poll_batch, METH_VARARGS, NULL},
    {"_settle", queue_settle, METH_VARARGS, NULL},
    {"_flush", queue_flush, METH_O, NULL},
    {"_close", queue_close, METH_NOARGS, NULL},
    {"wake", queue_wake, METH_NOARGS, NULL},
    {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef queue_getset[] = {
    {"closed", bwpy_get_closed, NULL, "True after close().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef queue_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bwpy_handle, weak), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

int bwpy_queue_init(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_new, queue_new},
        {Py_tp_finalize, queue_finalize},
        {Py_tp_dealloc, queue_dealloc},
        {Py_tp_traverse, queue_traverse},
        {Py_tp_clear, queue_clear},
        {Py_tp_methods, queue_methods},
        {Py_tp_getset, queue_getset},
        {Py_tp_members, queue_members},
        {Py_tp_iter, queue_iter},
        {Py_tp_iternext, queue_next},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway._busway.Queue", sizeof(queue_object), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    bwpy_queue_type = bwpy_type(module, &spec, NULL, "Queue");
    return bwpy_queue_type ? 0 : -1;
}
