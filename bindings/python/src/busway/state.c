/* state.c: a consumer's key-value state and its offset in one transaction.
 *
 * A transaction object is good until its commit, abort, the return of the handler that it was given to, or the close of the state; after
 * that it raises ReleasedError. Values come out as bytes: copies. When a store has to grow, libbusway drops the transaction and begins anew:
 * put() raises BusyError, a handler that lets it pass (or swallows it) is called again. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

PyTypeObject *bwpy_state_type;
static PyTypeObject *txn_type;

typedef struct bwpy_txn {
    PyObject_HEAD
    bwpy_state *state; /* strong; NULL: ended */
    bw_state_txn *txn;
    struct bwpy_txn *next, **before; /* in state->txns */
    bool writes, handler; /* handler: the library ends it */
    bool lost;            /* the store must grow */
} bwpy_txn;

static bwpy_consumer *consumer_of(bwpy_state *s) { return (bwpy_consumer *)s->base.parent; }

/* The state and its consumer: both are one thread's. */
static bw_state *enter(bwpy_state *s)
{
    if (!s->base.parent || !bwpy_enter(s->base.parent)) return NULL;
    bw_state *handle = bwpy_enter(&s->base);
    if (!handle) bwpy_leave(s->base.parent);
    return handle;
}

static void leave(bwpy_state *s)
{
    bwpy_leave(&s->base);
    bwpy_leave(s->base.parent);
}

/* State(consumer, dir, fast, map_bytes) */
static PyObject *state_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    bwpy_handle *consumer;
    int fast;
    unsigned long long map_bytes;
    bw_state_options o = BW_STATE_OPTIONS_INIT;
    if (!PyArg_ParseTuple(args, "O!zpK", bwpy_consumer_type, &consumer, &o.dir, &fast, &map_bytes)) return NULL;
    o.fast = fast;
    if (map_bytes) o.map_bytes = map_bytes;
    bw_consumer *handle = bwpy_enter(consumer);
    if (!handle) return NULL;
    bw_state *state = NULL;
    bw_err e;
    Py_BEGIN_ALLOW_THREADS
    e = bw_state_open(handle, &o, &state);
    Py_END_ALLOW_THREADS
    bwpy_leave(consumer);
    if (e) return bwpy_raise(e, NULL);
    PyObject *s = (PyObject *)bwpy_handle_new(type, BWPY_STATE, consumer, state);
    if (!s) bw_state_close(state);
    else ((bwpy_consumer *)consumer)->has_state = true;
    return s;
}

static void txn_end(bwpy_txn *t)
{
    if (!t->state) return;
    *t->before = t->next;
    if (t->next) t->next->before = t->before;
    bwpy_state *s = t->state;
    t->state = NULL;
    t->txn = NULL;
    Py_DECREF(s);
}

void bwpy_close_state(bwpy_handle *h)
{
    bwpy_state *s = (bwpy_state *)h;
    bw_state *handle = h->core->handle;
    Py_INCREF(s);
    while (s->txns) {
        if (!s->txns->handler) bw_state_abort(s->txns->txn);
        txn_end(s->txns);
    }
    h->core->handle = NULL;
    Py_BEGIN_ALLOW_THREADS
    bw_state_close(handle);
    Py_END_ALLOW_THREADS
    consumer_of(s)->has_state = false;
    Py_DECREF(s);
}

static void state_finalize(PyObject *self) { bwpy_finish((bwpy_handle *)self); }

static int state_clear(PyObject *self)
{
    (void)self;
    return 0;
}

static void state_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (((bwpy_handle *)self)->weak) PyObject_ClearWeakRefs(self);
    bwpy_free(self);
}

static PyObject *txn_make(bwpy_state *s, bw_state_txn *txn, bool writes, bool handler)
{
    bwpy_txn *t = PyObject_New(bwpy_txn, txn_type);
    if (!t) return NULL;
    Py_INCREF(s);
    t->state = s;
    t->txn = txn;
    t->writes = writes;
    t->handler = handler;
    t->lost = false;
    t->next = s->txns;
    t->before = &s->txns;
    if (t->next) t->next->before = &t->next;
    s->txns = t;
    return (PyObject *)t;
}

/* ---- processing ---- */

typedef struct handling {
    bwpy_state *state;
    PyObject *handler;
} handling;

/* What the handler raised, as an outcome: the store must grow (come again), or the exception is kept to be raised. */
static bw_err outcome(bwpy_consumer *c, bool lost)
{
    if (lost) {
        PyErr_Clear();
        return BW_ERR_BUSY;
    }
    PyErr_Fetch(&c->raised_type, &c->raised, &c->raised_trace);
    return BW_ERR_INVALID_RECORD;
}

static bw_err handle_record(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque)
{
    handling *h = opaque;
    bwpy_consumer *c = consumer_of(h->state);
    bw_err e = BW_OK;
    PyEval_RestoreThread(bwpy_saved(c));
    if (!batch->topic || strcmp(batch->topic, c->topic_name) != 0) {
        c->topic_name[0] = 0;
        strncat(c->topic_name, batch->topic ? batch->topic : "", sizeof c->topic_name - 1);
        c->topic_changed = true;
    }
    PyObject *topic = bwpy_topic(c);
    PyObject *t = topic ? txn_make(h->state, txn, true, true) : NULL;
    PyObject *r = t ? bwpy_record_make(bwpy_record_type, topic, batch->partition, batch->leader_epoch, (int)batch->timestamp_type, record,
                                       c->value_deserializer, c->key_deserializer) : NULL;
    bool before = c->in_callback;
    c->in_callback = true;
    PyObject *done = r ? PyObject_CallFunctionObjArgs(h->handler, t, r, NULL) : NULL;
    c->in_callback = before;
    bool lost = t && ((bwpy_txn *)t)->lost;
    if (!done || lost) e = outcome(c, lost);
    if (t) txn_end((bwpy_txn *)t);
    Py_XDECREF(done);
    Py_XDECREF(r);
    Py_XDECREF(t);
    c->saved = PyEval_SaveThread();
    return e;
}

/* _process(handler, timeout, batch_max): records done; 0: there was nothing in time. */
static PyObject *state_process(PyObject *self, PyObject *args)
{
    bwpy_state *s = (bwpy_state *)self;
    handling h = {s, NULL};
    PyObject *timeout;
    int max;
    int64_t deadline;
    if (!PyArg_ParseTuple(args, "OOi", &h.handler, &timeout, &max) || bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_state *handle = enter(s);
    if (!handle) return NULL;
    bwpy_consumer *c = consumer_of(s);
    int32_t done = 0;
    bw_err e = BW_OK;
    int r = c->in_callback ? -1 : bwpy_retire(c, bwpy_enter(&c->base));
    if (c->in_callback) bwpy_raise(BW_ERR_INVALID_ARGUMENT, "processing from inside a callback of the same consumer");
    else bwpy_leave(&c->base);
    while (r == 0) {
        int32_t slice = bwpy_slice(deadline);
        done = 0;
        BWPY_CONSUMER_BEGIN(c);
        e = bw_state_process(handle, slice, max, handle_record, &h, &done);
        BWPY_CONSUMER_END(c);
        if (bwpy_callback_error(c) < 0 || PyErr_CheckSignals() < 0) {
            r = -1;
        } else if (e && e != BW_ERR_TIMED_OUT) {
            bwpy_raise(e, NULL);
            r = -1;
        }
        if (!e || done > 0 || bwpy_over(deadline)) break;
    }
    leave(s);
    return r < 0 ? NULL : PyLong_FromLong(done);
}

/* _begin(timeout): (transaction, batch), or None. */
static PyObject *state_begin(PyObject *self, PyObject *timeout)
{
    bwpy_state *s = (bwpy_state *)self;
    int64_t deadline;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_state *handle = enter(s);
    if (!handle) return NULL;
    bwpy_consumer *c = consumer_of(s);
    PyObject *result = NULL;
    int r = -1;
    if (c->in_callback) bwpy_raise(BW_ERR_INVALID_ARGUMENT, "polling from inside a callback of the same consumer");
    else {
        r = bwpy_retire(c, bwpy_enter(&c->base));
        bwpy_leave(&c->base);
    }
    while (r == 0) {
        bw_state_txn *txn = NULL;
        bw_batch batch;
        bw_err e;
        bool taken = true;
        int32_t slice = bwpy_slice(deadline);
        BWPY_CONSUMER_BEGIN(c);
        e = bw_state_begin(handle, slice, &txn, &batch);
        if (!e && (taken = bwpy_take(c, &batch))) c->state_txn = true;
        BWPY_CONSUMER_END(c);
        if (!e) {
            PyObject *t = taken ? txn_make(s, txn, true, false) : PyErr_NoMemory();
            PyObject *b = t && c->raised_type == NULL ? bwpy_batch_make(c) : NULL;
            result = b ? Py_BuildValue("(OO)", t, b) : NULL;
            if (!result) {
                bw_state_abort(txn);
                if (t) txn_end((bwpy_txn *)t);
            }
            Py_XDECREF(t);
            Py_XDECREF(b);
            bwpy_callback_error(c);
            break;
        }
        if (bwpy_callback_error(c) < 0 || PyErr_CheckSignals() < 0) break;
        if (e != BW_ERR_TIMED_OUT) {
            bwpy_raise(e, NULL);
            break;
        }
        if (bwpy_over(deadline)) {
            Py_INCREF(result = Py_None);
            break;
        }
    }
    leave(s);
    return result;
}

/* _read(topic, partition): a transaction for reading. */
static PyObject *state_read(PyObject *self, PyObject *args)
{
    bwpy_state *s = (bwpy_state *)self;
    const char *topic;
    int partition;
    if (!PyArg_ParseTuple(args, "si", &topic, &partition)) return NULL;
    bw_state *handle = enter(s);
    if (!handle) return NULL;
    bw_state_txn *txn = NULL;
    bw_err e = bw_state_read(handle, topic, partition, &txn);
    PyObject *t = e ? bwpy_raise(e, NULL) : txn_make(s, txn, false, false);
    if (!e && !t) bw_state_abort(txn);
    leave(s);
    return t;
}

static PyObject *state_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (bwpy_close((bwpy_handle *)self, 0) < 0) return NULL;
    Py_RETURN_NONE;
}

/* ---- transactions ---- */

/* Entered, or NULL and an exception. */
static bw_state_txn *txn_enter(bwpy_txn *t)
{
    if (!t->state) {
        PyErr_SetString(bwpy_released, "the transaction has ended");
        return NULL;
    }
    return enter(t->state) ? t->txn : NULL;
}

static PyObject *txn_result(bwpy_txn *t, bw_err e)
{
    if (e == BW_ERR_BUSY) t->lost = true;
    leave(t->state);
    if (e) return bwpy_raise(e, NULL);
    Py_RETURN_NONE;
}

static PyObject *txn_get(PyObject *self, PyObject *args)
{
    bwpy_txn *t = (bwpy_txn *)self;
    PyObject *key, *fallback = Py_None, *result = NULL;
    bwpy_bytes k;
    if (!PyArg_ParseTuple(args, "O|O:get", &key, &fallback) || bwpy_get_bytes(key, "key", &k) < 0) return NULL;
    bw_state_txn *txn = txn_enter(t);
    if (txn) {
        const void *value;
        size_t len;
        bw_err e = bw_state_get(txn, k.data, k.len, &value, &len);
        if (!e) result = PyBytes_FromStringAndSize(value, (Py_ssize_t)len);
        else if (e == BW_ERR_NOT_FOUND) Py_INCREF(result = fallback);
        else bwpy_raise(e, NULL);
        leave(t->state);
    }
    bwpy_put_bytes(&k);
    return result;
}

static PyObject *txn_put(PyObject *self, PyObject *args)
{
    bwpy_txn *t = (bwpy_txn *)self;
    PyObject *key, *value, *result = NULL;
    bwpy_bytes k, v;
    if (!PyArg_ParseTuple(args, "OO:put", &key, &value) || bwpy_get_bytes(key, "key", &k) < 0) return NULL;
    if (value == Py_None) PyErr_SetString(PyExc_TypeError, "value is bytes-like; delete() removes a key");
    else if (bwpy_get_bytes(value, "value", &v) == 0) {
        bw_state_txn *txn = txn_enter(t);
        if (txn) result = txn_result(t, bw_state_put(txn, k.data, k.len, v.data, v.len));
        bwpy_put_bytes(&v);
    }
    bwpy_put_bytes(&k);
    return result;
}

static PyObject *txn_delete(PyObject *self, PyObject *key)
{
    bwpy_txn *t = (bwpy_txn *)self;
    bwpy_bytes k;
    if (bwpy_get_bytes(key, "key", &k) < 0) return NULL;
    bw_state_txn *txn = txn_enter(t);
    PyObject *result = txn ? txn_result(t, bw_state_del(txn, k.data, k.len)) : NULL;
    bwpy_put_bytes(&k);
    return result;
}

typedef struct collecting {
    PyObject *list;
    Py_ssize_t most;
} collecting;

static bool collect(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    collecting *c = opaque;
    if (c->most >= 0 && PyList_Size(c->list) >= c->most) return false;
    PyObject *pair = Py_BuildValue("(y#y#)", (const char *)key, (Py_ssize_t)key_len, (const char *)value, (Py_ssize_t)value_len);
    int r = pair ? PyList_Append(c->list, pair) : -1;
    Py_XDECREF(pair);
    return r == 0;
}

/* items(prefix=b"", limit=None): a list of (key, value). */
static PyObject *txn_items(PyObject *self, PyObject *args)
{
    bwpy_txn *t = (bwpy_txn *)self;
    PyObject *prefix = Py_None, *limit = Py_None;
    bwpy_bytes p;
    int64_t most = -1;
    if (!PyArg_ParseTuple(args, "|OO:items", &prefix, &limit) || (limit != Py_None && bwpy_get_int64(limit, "limit", &most) < 0) ||
        bwpy_get_bytes(prefix, "prefix", &p) < 0)
        return NULL;
    collecting c = {PyList_New(0), (Py_ssize_t)most};
    bw_state_txn *txn = c.list ? txn_enter(t) : NULL;
    if (txn) {
        bw_err e = bw_state_each(txn, p.data ? p.data : "", p.len, collect, &c);
        leave(t->state);
        if (e && !PyErr_Occurred()) bwpy_raise(e, NULL);
    }
    bwpy_put_bytes(&p);
    if (!txn || PyErr_Occurred()) Py_CLEAR(c.list);
    return c.list;
}

static PyObject *txn_finish(bwpy_txn *t, bool commit)
{
    if (!t->state && !commit) Py_RETURN_NONE;
    bw_state_txn *txn = txn_enter(t);
    if (!txn) return NULL;
    bwpy_state *s = t->state;
    if (t->handler || (commit && !t->writes)) {
        leave(s);
        return bwpy_raise(BW_ERR_INVALID_ARGUMENT, t->handler ? "the transaction ends when the handler returns"
                                                              : "a transaction for reading is aborted, not committed");
    }
    Py_INCREF(s);
    txn_end(t);
    bw_err e = BW_OK;
    if (commit) {
        Py_BEGIN_ALLOW_THREADS
        e = bw_state_commit(txn);
        Py_END_ALLOW_THREADS
    } else {
        bw_state_abort(txn);
    }
    PyObject *result = e ? bwpy_raise(e, NULL) : (Py_INCREF(Py_None), Py_None);
    leave(s);
    Py_DECREF(s);
    return result;
}

static PyObject *txn_commit(PyObject *self, PyObject *unused) { return (void)unused, txn_finish((bwpy_txn *)self, true); }
static PyObject *txn_abort(PyObject *self, PyObject *unused) { return (void)unused, txn_finish((bwpy_txn *)self, false); }

static PyObject *txn_context(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_INCREF(self);
    return self;
}

static PyObject *txn_exit(PyObject *self, PyObject *args)
{
    bwpy_txn *t = (bwpy_txn *)self;
    PyObject *type, *value, *trace;
    if (!PyArg_ParseTuple(args, "OOO", &type, &value, &trace)) return NULL;
    if (!t->state) Py_RETURN_NONE;
    PyObject *r = txn_finish(t, type == Py_None && t->writes);
    Py_XDECREF(r);
    if (!r) return NULL;
    Py_RETURN_NONE;
}

static PyObject *txn_offset(PyObject *self, void *unused)
{
    (void)unused;
    bwpy_txn *t = (bwpy_txn *)self;
    bw_state_txn *txn = txn_enter(t);
    if (!txn) return NULL;
    int64_t offset = bw_state_offset(txn);
    leave(t->state);
    return PyLong_FromLongLong(offset);
}

static void txn_dealloc(PyObject *self)
{
    bwpy_txn *t = (bwpy_txn *)self;
    PyTypeObject *type = Py_TYPE(self);
    bwpy_state *s = t->state;
    if (s) {
        if (!t->handler && s->base.core->handle && s->base.generation == bwpy_generation) bw_state_abort(t->txn);
        txn_end(t);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- types ---- */

static int txn_init(PyObject *module)
{
    static PyMethodDef methods[] = {
        {"get", txn_get, METH_VARARGS, "get(key, default=None): the value as bytes."},
        {"put", txn_put, METH_VARARGS, "put(key, value): the value instead of what was there."},
        {"delete", txn_delete, METH_O, "delete(key): also when there was nothing."},
        {"items", txn_items, METH_VARARGS, "items(prefix=b'', limit=None): a list of (key, value), by key."},
        {"commit", txn_commit, METH_NOARGS, "The changes and the offset behind the batch, together."},
        {"abort", txn_abort, METH_NOARGS, "Neither; the batch comes again."},
        {"__enter__", txn_context, METH_NOARGS, NULL},
        {"__exit__", txn_exit, METH_VARARGS, NULL},
        {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };
    static PyGetSetDef getset[] = {
        {"offset", txn_offset, NULL, "The offset that the store stands at; -1: nothing was processed yet.", NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_new, bwpy_no_new}, {Py_tp_dealloc, txn_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, getset},
        {Py_tp_doc, "A transaction on one partition's store."},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway.StateTransaction", sizeof(bwpy_txn), 0, Py_TPFLAGS_DEFAULT, slots};
    txn_type = bwpy_type(module, &spec, NULL, "StateTransaction");
    return txn_type ? 0 : -1;
}

int bwpy_state_init(PyObject *module)
{
    static PyMethodDef methods[] = {
        {"_process", state_process, METH_VARARGS, NULL},
        {"_begin", state_begin, METH_O, NULL},
        {"_read", state_read, METH_VARARGS, NULL},
        {"_close", state_close, METH_NOARGS, NULL},
        {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };
    static PyGetSetDef getset[] = {
        {"closed", bwpy_get_closed, NULL, "True after close().", NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    static PyMemberDef members[] = {
        {"__weaklistoffset__", T_PYSSIZET, offsetof(bwpy_handle, weak), READONLY, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_new, state_new},
        {Py_tp_finalize, state_finalize},
        {Py_tp_dealloc, state_dealloc},
        {Py_tp_traverse, bwpy_handle_traverse},
        {Py_tp_clear, state_clear},
        {Py_tp_methods, methods},
        {Py_tp_getset, getset},
        {Py_tp_members, members},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway._busway.State", sizeof(bwpy_state), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                               slots};
    bwpy_state_type = bwpy_type(module, &spec, NULL, "State");
    return bwpy_state_type ? txn_init(module) : -1;
}
