/* consumer.c: the consumer's object: opening, the present batch, iteration, polling. Places and groups are in consumer_group.c, batches and
 * views in batch.c.
 *
 * A poll of the library gives a batch; all its records are decoded at once into `records`; iteration and poll() give copies of them one by
 * one, poll_batch() hands out the rest as a Batch. Before the library is asked for the next batch, or anything that would end this one,
 * bwpy_retire ends it: records that were not given come again (a seek), views of it that are alive make it an error. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

PyTypeObject *bwpy_consumer_type;

enum { RECORDS_MIN = 1024 };

/* Consumer(bus, read_limit, reset, check_crcs, fetch_max_bytes, isolation, group_id, group_instance_id, auto_commit, interval_ms, assignor,
 * session_ms, max_poll_ms, rebalance_ms, commit_durable, on_rebalance, value_deserializer, key_deserializer, iter_timeout_ms) */
static PyObject *consumer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    bwpy_handle *bus;
    int read_limit, reset, check_crcs, isolation, auto_commit, interval_ms, session_ms, max_poll_ms, rebalance_ms, durable;
    unsigned int fetch_bytes;
    PyObject *on_rebalance, *value_deserializer, *key_deserializer;
    long long iter_timeout_ms;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    if (!PyArg_ParseTuple(args, "O!iipIizzpiziiipOOOL", bwpy_bus_type, &bus, &read_limit, &reset, &check_crcs, &fetch_bytes, &isolation,
                          &o.group_id, &o.group_instance_id, &auto_commit, &interval_ms, &o.assignor, &session_ms, &max_poll_ms,
                          &rebalance_ms, &durable, &on_rebalance, &value_deserializer, &key_deserializer, &iter_timeout_ms))
        return NULL;
    bw_bus *c_bus = bwpy_enter(bus);
    if (!c_bus) return NULL;
    bwpy_consumer *c = (bwpy_consumer *)bwpy_handle_new(type, BWPY_CONSUMER, bus, NULL);
    if (!c) {
        bwpy_leave(bus);
        return NULL;
    }
    o.read_limit = (bw_read_limit)read_limit;
    o.auto_offset_reset = (bw_offset_reset)reset;
    o.check_crcs = check_crcs;
    o.fetch_max_bytes = fetch_bytes;
    o.isolation = (bw_isolation)isolation;
    o.enable_auto_commit = auto_commit;
    o.auto_commit_interval_ms = interval_ms;
    o.session_timeout_ms = session_ms;
    o.max_poll_interval_ms = max_poll_ms;
    o.rebalance_timeout_ms = rebalance_ms;
    o.commit_durable = durable;
    o.on_rebalance = on_rebalance != Py_None ? bwpy_on_rebalance : NULL;
    o.rebalance_opaque = c;
    c->iter_timeout_ms = iter_timeout_ms;
    if (on_rebalance != Py_None) Py_INCREF(c->on_rebalance = on_rebalance);
    if (value_deserializer != Py_None) Py_INCREF(c->value_deserializer = value_deserializer);
    if (key_deserializer != Py_None) Py_INCREF(c->key_deserializer = key_deserializer);
    bw_consumer *handle = NULL;
    bw_err e;
    Py_BEGIN_ALLOW_THREADS
    e = bw_consumer_open(c_bus, &o, &handle);
    Py_END_ALLOW_THREADS
    bwpy_leave(bus);
    if (e) {
        bwpy_raise(e, NULL);
        Py_DECREF(c);
        return NULL;
    }
    c->base.core->handle = handle;
    return (PyObject *)c;
}

/* ---- the end ---- */

static void consumer_finalize(PyObject *self) { bwpy_finish((bwpy_handle *)self); }

static int consumer_traverse(PyObject *self, visitproc visit, void *arg)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    Py_VISIT(c->value_deserializer);
    Py_VISIT(c->key_deserializer);
    Py_VISIT(c->on_rebalance);
    return bwpy_handle_traverse(self, visit, arg);
}

static int consumer_clear(PyObject *self)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    Py_CLEAR(c->value_deserializer);
    Py_CLEAR(c->key_deserializer);
    Py_CLEAR(c->on_rebalance);
    return 0;
}

static void consumer_dealloc(PyObject *self)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    PyObject_GC_UnTrack(self);
    if (c->base.weak) PyObject_ClearWeakRefs(self);
    consumer_clear(self);
    Py_CLEAR(c->topic);
    Py_CLEAR(c->raised_type);
    Py_CLEAR(c->raised);
    Py_CLEAR(c->raised_trace);
    free(c->records);
    bwpy_free(self);
}

/* ---- the present batch ---- */

PyObject *bwpy_topic(bwpy_consumer *c)
{
    if (!c->topic_changed && c->topic) return c->topic;
    PyObject *text = PyUnicode_FromString(c->topic_name);
    if (!text) return NULL;
    PyUnicode_InternInPlace(&text);
    Py_XDECREF(c->topic);
    c->topic = text;
    c->topic_changed = false;
    return text;
}

bool bwpy_take(bwpy_consumer *c, const bw_batch *batch)
{
    c->info = *batch;
    c->count = c->at = 0;
    c->corrupt = c->state_txn = false;
    if (batch->topic && strcmp(batch->topic, c->topic_name) != 0) {
        c->topic_name[0] = 0;
        strncat(c->topic_name, batch->topic, sizeof c->topic_name - 1);
        c->topic_changed = true;
    }
    for (;;) {
        if (c->count == c->capacity) {
            int32_t more = c->capacity ? c->capacity * 2 : RECORDS_MIN;
            bw_record_view *grown = c->capacity > INT32_MAX / 2 ? NULL : realloc(c->records, (size_t)more * sizeof *grown);
            if (!grown) return false;
            c->records = grown;
            c->capacity = more;
        }
        int32_t n = bw_batch_records(&c->info, c->records + c->count, c->capacity - c->count);
        if (n < 0) c->corrupt = true;
        if (n <= 0) return true;
        c->count += n;
    }
}

/* libbusway's position is behind the batch that it gave: for Python it is behind the last record that was given. */
int64_t bwpy_given_offset(const bwpy_consumer *c, const char *topic, int32_t partition)
{
    if (c->at >= c->count || c->state_txn || c->info.partition != partition || strcmp(c->topic_name, topic) != 0) return -1;
    return c->records[c->at].offset;
}

int bwpy_retire(bwpy_consumer *c, bw_consumer *handle)
{
    bwpy_batch *b = c->batch;
    if (b && b->exports > 0) {
        PyErr_Format(PyExc_BufferError, "%d views into the batch of %s [%d] are alive: release them before what ends the batch (poll, seek, "
                     "assign, close)", b->exports, c->topic_name, (int)c->info.partition);
        return -1;
    }
    if (b) {
        c->batch = NULL;
        b->consumer = NULL;
        Py_DECREF(c); /* the batch's; the caller has one */
    }
    if (c->at < c->count && !c->state_txn) bw_consumer_seek(handle, c->topic_name, c->info.partition, c->records[c->at].offset);
    c->at = c->count = 0;
    return 0;
}

int bwpy_callback_error(bwpy_consumer *c)
{
    if (!c->raised_type) return 0;
    PyErr_Restore(c->raised_type, c->raised, c->raised_trace);
    c->raised_type = c->raised = c->raised_trace = NULL;
    return -1;
}

void bwpy_raise_poll(bwpy_consumer *c, bw_err e, const bw_batch *batch)
{
    if (e == BW_ERR_WOKEN && c->base.closing) {
        PyErr_SetString(bwpy_closed, "the consumer was closed by another thread");
        return;
    }
    PyObject *exception = bwpy_make_error(e, NULL);
    if (!exception) return;
    PyObject *topic = batch->topic ? PyUnicode_FromString(batch->topic) : NULL;
    PyObject *partition = topic ? PyLong_FromLong(batch->partition) : NULL;
    if (partition && (PyObject_SetAttrString(exception, "topic", topic) < 0 || PyObject_SetAttrString(exception, "partition", partition) < 0))
        PyErr_Clear();
    Py_XDECREF(topic);
    Py_XDECREF(partition);
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
}

int bwpy_fetch(bwpy_consumer *c, bw_consumer *handle, int64_t deadline)
{
    if (c->in_callback) {
        bwpy_raise(BW_ERR_INVALID_ARGUMENT, "polling from inside a callback of the same consumer");
        return -1;
    }
    bool corrupt = c->corrupt && c->at >= c->count;
    if (bwpy_callback_error(c) < 0) return -1; /* left over: see bwpy_gather_into */
    if (bwpy_retire(c, handle) < 0) return -1;
    if (corrupt) {
        c->corrupt = false;
        bwpy_raise(BW_ERR_CORRUPT, "records of the batch that follow the last one given can't be decoded");
        return -1;
    }
    for (;;) {
        bw_batch batch;
        bw_err e;
        bool taken = true;
        int32_t slice = bwpy_slice(deadline);
        batch.topic = NULL;
        BWPY_CONSUMER_BEGIN(c);
        e = bw_consumer_poll(handle, slice, &batch);
        if (!e) taken = bwpy_take(c, &batch);
        BWPY_CONSUMER_END(c);
        if (bwpy_callback_error(c) < 0) return -1; /* what came meanwhile is given by the next call */
        if (!taken) {
            PyErr_NoMemory();
            return -1;
        }
        if (!e && (c->count > 0 || c->corrupt)) {
            if (c->count > 0) return 1;
            return bwpy_fetch(c, handle, deadline); /* tells of the corruption */
        }
        if (e && e != BW_ERR_TIMED_OUT) {
            bwpy_raise_poll(c, e, &batch);
            return -1;
        }
        if (e && bwpy_over(deadline)) {
            bwpy_drain_log();
            return PyErr_CheckSignals() < 0 ? -1 : 0;
        }
        if (PyErr_CheckSignals() < 0) return -1;
    }
}

/* ---- polling ---- */

static bool ready(const bwpy_consumer *c)
{
    return c->at < c->count && c->base.depth == 0 && c->base.generation == bwpy_generation && !c->base.closing && !c->state_txn &&
           !c->in_callback;
}

static PyObject *next_record(bwpy_consumer *c)
{
    PyObject *topic = bwpy_topic(c);
    if (!topic) return NULL;
    const bw_record_view *v = &c->records[c->at++];
    return bwpy_record_make(bwpy_record_type, topic, c->info.partition, c->info.leader_epoch, (int)c->info.timestamp_type, v,
                            c->value_deserializer, c->key_deserializer);
}

/* 1: there are records to give; 0: none in time; -1. */
static int fill(bwpy_consumer *c, int64_t deadline)
{
    if (ready(c)) return 1;
    bw_consumer *handle = bwpy_enter(&c->base);
    if (!handle) return -1;
    int r = c->has_state ? -1 : c->at < c->count && !c->in_callback ? 1 : bwpy_fetch(c, handle, deadline);
    if (c->has_state) bwpy_raise(BW_ERR_INVALID_ARGUMENT, "the consumer's records go to its state: use State.process or State.begin");
    bwpy_leave(&c->base);
    return r;
}

static PyObject *consumer_next(PyObject *self)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    if (!ready(c)) {
        int r = fill(c, c->iter_timeout_ms < 0 ? BWPY_FOREVER : c->iter_timeout_ms == 0 ? 0 : bwpy_deadline_after(c->iter_timeout_ms));
        if (r <= 0) return NULL; /* without an exception: the iteration's end */
    }
    return next_record(c);
}

static PyObject *consumer_poll(PyObject *self, PyObject *timeout)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    int64_t deadline;
    if (!ready(c)) {
        if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
        int r = fill(c, deadline);
        if (r < 0) return NULL;
        if (r == 0) Py_RETURN_NONE;
    }
    return next_record(c);
}

static PyObject *consumer_poll_batch(PyObject *self, PyObject *timeout)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    int64_t deadline;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    int r = fill(c, deadline);
    if (r < 0) return NULL;
    if (r == 0) Py_RETURN_NONE;
    return bwpy_batch_make(c);
}

static PyObject *consumer_wake(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_handle *h = (bwpy_handle *)self;
    if (h->generation != bwpy_generation || !h->core->handle) { /* not entered: any thread may, at any time */
        PyErr_SetString(bwpy_closed, "the consumer is closed");
        return NULL;
    }
    bw_consumer_wake(h->core->handle);
    Py_RETURN_NONE;
}

static PyObject *consumer_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    bw_consumer *handle = bwpy_enter((bwpy_handle *)self);
    if (!handle) return NULL;
    int fd = bw_consumer_fd(handle);
    bwpy_leave((bwpy_handle *)self);
    return fd < 0 ? bwpy_raise(BW_ERR_IO, NULL) : PyLong_FromLong(fd);
}

static PyObject *consumer_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (bwpy_close((bwpy_handle *)self, 0) < 0) return NULL;
    bwpy_drain_log();
    Py_RETURN_NONE;
}

static PyObject *consumer_iter(PyObject *self)
{
    Py_INCREF(self);
    return self;
}

static PyMethodDef consumer_methods[] = {
    {"_poll", consumer_poll, METH_O, NULL},
    {"_poll_batch", consumer_poll_batch, METH_O, NULL},
    {"_gather_into", bwpy_gather_into, METH_VARARGS, NULL},
    {"_close", consumer_close, METH_NOARGS, NULL},
    {"wake", consumer_wake, METH_NOARGS, NULL},
    {"fileno", consumer_fileno, METH_NOARGS, NULL},
    {"_place", bwpy_place, METH_VARARGS, NULL},
    {"_subscribe", bwpy_subscribe, METH_O, NULL},
    {"_unsubscribe", bwpy_unsubscribe, METH_NOARGS, NULL},
    {"_assignment", bwpy_assignment, METH_NOARGS, NULL},
    {"_subscription", bwpy_subscription, METH_NOARGS, NULL},
    {"_group_metadata", bwpy_group_metadata, METH_NOARGS, NULL},
    {"_commit", bwpy_commit, METH_VARARGS, NULL},
    {"_commit_async", bwpy_commit_async, METH_VARARGS, NULL},
    {"_committed", bwpy_committed, METH_VARARGS, NULL},
    {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef consumer_getset[] = {
    {"closed", bwpy_get_closed, NULL, "True after close().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef consumer_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bwpy_handle, weak), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

int bwpy_consumer_init(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_new, consumer_new},
        {Py_tp_finalize, consumer_finalize},
        {Py_tp_dealloc, consumer_dealloc},
        {Py_tp_traverse, consumer_traverse},
        {Py_tp_clear, consumer_clear},
        {Py_tp_methods, consumer_methods},
        {Py_tp_getset, consumer_getset},
        {Py_tp_members, consumer_members},
        {Py_tp_iter, consumer_iter},
        {Py_tp_iternext, consumer_next},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway._busway.Consumer", sizeof(bwpy_consumer), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    bwpy_consumer_type = bwpy_type(module, &spec, NULL, "Consumer");
    return bwpy_consumer_type ? 0 : -1;
}
