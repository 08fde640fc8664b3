/* producer_send.c: one record at a time.
 *
 * send() appends at once when nothing has to be waited for (bw_producer_send_now, with the GIL, some 100 ns) and nothing that was sent
 * before is still queued, so that order holds. Otherwise it either waits for this one record without the GIL (the first of a topic, a
 * lock that another writer holds) or, when that is the rule (through the socket, durable, in transactions), queues it. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

enum { NOW_BYTES = 64 << 10, POLL_EVERY = 64, TOLD_MAX = 100000, BUSY_MAX = 2 };

PyObject *bwpy_serialize(PyObject *serializer, PyObject *o)
{
    if (serializer && o && o != Py_None) return PyObject_CallFunctionObjArgs(serializer, o, NULL);
    if (!o) o = Py_None;
    Py_INCREF(o);
    return o;
}

int bwpy_get_partition(PyObject *o, int32_t *out)
{
    *out = BW_PARTITION_ANY;
    if (!o || o == Py_None) return 0;
    if (bwpy_get_int32(o, "partition", out) < 0) return -1;
    if (*out >= 0) return 0;
    PyErr_SetString(PyExc_ValueError, "partition is a number from 0, or None: by the key");
    return -1;
}

void bwpy_outgoing_put(bwpy_outgoing *o)
{
    bwpy_put_bytes(&o->value_bytes);
    bwpy_put_bytes(&o->key_bytes);
    if (o->headers.keep) bwpy_put_headers(&o->headers);
    Py_XDECREF(o->value);
    Py_XDECREF(o->key);
}

int bwpy_outgoing_get(bwpy_producer *p, PyObject *topic, PyObject *value, PyObject *key, PyObject *partition, PyObject *timestamp_ms,
                      PyObject *headers, bwpy_outgoing *o)
{
    o->value_bytes.held = o->key_bytes.held = false;
    o->headers.keep = NULL;
    o->headers.items = NULL;
    o->headers.count = 0;
    o->key = o->value = NULL;
    o->record.timestamp_ms = BW_NO_TIMESTAMP;
    int64_t at = BW_NO_TIMESTAMP;
    if (!(o->topic = bwpy_text(topic, "topic")) || bwpy_get_partition(partition, &o->partition) < 0 ||
        (timestamp_ms && timestamp_ms != Py_None && bwpy_get_int64(timestamp_ms, "timestamp_ms", &at) < 0) ||
        !(o->value = bwpy_serialize(p->value_serializer, value)) || !(o->key = bwpy_serialize(p->key_serializer, key)) ||
        bwpy_get_bytes(o->value, "value", &o->value_bytes) < 0 || bwpy_get_bytes(o->key, "key", &o->key_bytes) < 0 ||
        bwpy_get_headers(headers, &o->headers) < 0) {
        bwpy_outgoing_put(o);
        return -1;
    }
    o->record.key = o->key_bytes.data;
    o->record.key_len = o->key_bytes.len;
    o->record.value = o->value_bytes.data;
    o->record.value_len = o->value_bytes.len;
    o->record.headers = o->headers.items;
    o->record.header_count = o->headers.count;
    o->record.timestamp_ms = at;
    return 0;
}

/* ---- callbacks of the library: without the GIL ---- */

static void on_plain(void *opaque, const bw_delivery *d)
{
    bwpy_outbox *box = opaque;
    if (d->error) {
        pthread_mutex_lock(&box->mutex);
        if (box->failed++ == 0) {
            box->first = d->error;
            const char *text = d->message ? d->message : bw_err_text(d->error);
            box->message[0] = 0;
            strncat(box->message, text, sizeof box->message - 1);
        }
        pthread_mutex_unlock(&box->mutex);
    }
    atomic_fetch_sub(&box->outstanding, 1);
}

static void tell(bwpy_told *t, const char *topic, const bw_delivery *d)
{
    bwpy_outbox *box = t->outbox;
    t->delivery = *d;
    strncpy(t->topic, topic ? topic : "", sizeof t->topic - 1);
    t->message = d->message ? strdup(d->message) : NULL;
    t->next = NULL;
    pthread_mutex_lock(&box->mutex);
    if (box->tail) box->tail->next = t;
    else box->head = t;
    box->tail = t;
    pthread_mutex_unlock(&box->mutex);
    atomic_fetch_add(&box->waiting, 1);
}

static void on_told(void *opaque, const bw_delivery *d)
{
    bwpy_told *t = opaque;
    bwpy_outbox *box = t->outbox;
    tell(t, d->topic, d);
    atomic_fetch_sub(&box->outstanding, 1);
}

static int told_room(bwpy_producer *p)
{
    if (atomic_load_explicit(&p->outbox->waiting, memory_order_relaxed) < TOLD_MAX) return 0;
    bwpy_raise(BW_ERR_QUEUE_FULL, "100000 deliveries wait to be told: call poll() or flush()");
    return -1;
}

static bwpy_told *told_new(bwpy_producer *p, PyObject *callback)
{
    bwpy_told *t = calloc(1, sizeof *t);
    if (!t) return (bwpy_told *)PyErr_NoMemory();
    t->outbox = p->outbox;
    Py_INCREF(callback);
    t->callback = callback;
    return t;
}

static void told_free(bwpy_told *t)
{
    if (!t) return;
    Py_DECREF(t->callback);
    free(t);
}

/* ---- one record that is waited for ---- */

typedef struct send_job {
    bwpy_job job;
    bw_producer *producer;
    char topic[BW_TOPIC_NAME_MAX + 2];
    int32_t partition, timeout_ms;
    bw_record record;
    bw_delivery delivery;
} send_job;

static void run_send(bwpy_job *job)
{
    send_job *j = (send_job *)job;
    bwpy_note(job, bw_producer_send_sync(j->producer, j->topic, j->partition, &j->record, j->timeout_ms, &j->delivery));
}

/* What the record points into, as an object of its own: bytes and headers are immutable, other buffers are copied. */
static PyObject *keep_record(const bwpy_outgoing *o, bw_record *record)
{
    PyObject *keep = PyList_New(0);
    const bwpy_bytes *of[2] = {&o->value_bytes, &o->key_bytes};
    PyObject *objects[2] = {o->value, o->key};
    for (int i = 0; keep && i < 2; i++) {
        PyObject *kept = objects[i];
        if (of[i]->held) {
            kept = PyBytes_FromStringAndSize(of[i]->data, (Py_ssize_t)of[i]->len);
            if (kept) *(i ? &record->key : &record->value) = PyBytes_AsString(kept);
        } else {
            Py_INCREF(kept);
        }
        if (!kept || PyList_Append(keep, kept) < 0) Py_CLEAR(keep);
        Py_XDECREF(kept);
    }
    if (keep && o->headers.keep && PyList_Append(keep, o->headers.keep) < 0) Py_CLEAR(keep);
    return keep;
}

/* 0 and *out; -1 and an exception. */
static int send_waiting(bwpy_producer *p, bw_producer *handle, const bwpy_outgoing *o, int32_t timeout_ms, bw_delivery *out)
{
    bw_record record = o->record;
    PyObject *keep = keep_record(o, &record);
    send_job *j = keep ? bwpy_job_new(sizeof *j, run_send, keep, p->base.core) : NULL;
    Py_XDECREF(keep);
    if (!j) return -1;
    j->producer = handle;
    strncpy(j->topic, o->topic, sizeof j->topic - 1);
    j->partition = o->partition;
    j->timeout_ms = timeout_ms;
    j->record = record;
    if (bwpy_run(&j->job) < 0) return -1;
    bw_err e = j->job.error;
    *out = j->delivery;
    if (e) bwpy_raise(e, j->job.message);
    bwpy_job_free(&j->job);
    return e ? -1 : 0;
}

/* ---- queued ---- */

/* polls: now and then the outcomes of earlier ones are fetched; a loop that waits for the descriptor does that itself. */
static int send_queued(bwpy_producer *p, bw_producer *handle, const bwpy_outgoing *o, PyObject *callback, int64_t deadline, bool polls)
{
    bwpy_told *told = NULL;
    if (callback && !(told = told_new(p, callback))) return -1;
    atomic_fetch_add(&p->outbox->outstanding, 1);
    bw_err e;
    for (;;) {
        int32_t slice = bwpy_slice(deadline);
        bool wait = false, due = polls && ++p->sends % POLL_EVERY == 0;
        Py_BEGIN_ALLOW_THREADS
        e = bw_producer_send(handle, o->topic, o->partition, &o->record, told ? on_told : on_plain, told ? (void *)told : p->outbox, 0);
        if (e == BW_ERR_QUEUE_FULL && slice > 0) {
            wait = true;
            bw_producer_poll(handle, slice);
        } else if (due) {
            bw_producer_poll(handle, 0);
        }
        Py_END_ALLOW_THREADS
        if (!wait || PyErr_CheckSignals() < 0) break;
    }
    if (!e) return 0;
    atomic_fetch_sub(&p->outbox->outstanding, 1);
    if (!PyErr_Occurred()) bwpy_raise(e, NULL);
    told_free(told);
    return -1;
}

/* ---- the methods ---- */

static const char *const send_names[] = {"topic", "value", "key", "partition", "timestamp_ms", "headers", "on_delivery", "timeout"};
enum { TOPIC, VALUE, KEY, PARTITION, TIMESTAMP, HEADERS, ON_DELIVERY, TIMEOUT, SEND_NAMES };

/* Tried at once: the delivery's error, BUSY when it can't be. */
static bw_err send_now(bwpy_producer *p, bw_producer *handle, const bwpy_outgoing *o, bw_delivery *d)
{
    if (p->queued || o->record.value_len > NOW_BYTES || o->record.key_len > NOW_BYTES) return BW_ERR_BUSY;
    if (atomic_load_explicit(&p->outbox->outstanding, memory_order_relaxed) > 0) return BW_ERR_BUSY;
    bw_err e = bw_producer_send_now(handle, o->topic, o->partition, &o->record, 1, d);
    if (e != BW_ERR_BUSY) p->busy = 0;
    return e;
}

static PyObject *send_record(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool queue)
{
    bwpy_producer *p = (bwpy_producer *)self;
    PyObject *a[SEND_NAMES];
    bwpy_outgoing o;
    bw_delivery d;
    int64_t deadline = BWPY_FOREVER;
    if (bwpy_parse("send", args, nargs, kwnames, send_names, SEND_NAMES, 1, 3, a) < 0) return NULL;
    PyObject *callback = a[ON_DELIVERY] == Py_None ? NULL : a[ON_DELIVERY];
    if ((a[TIMEOUT] && bwpy_deadline(a[TIMEOUT], &deadline) < 0) || (callback && told_room(p) < 0)) return NULL;
    if (bwpy_outgoing_get(p, a[TOPIC], a[VALUE], a[KEY], a[PARTITION], a[TIMESTAMP], a[HEADERS], &o) < 0) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    if (!handle) {
        bwpy_outgoing_put(&o);
        return NULL;
    }
    int r = 0;
    bw_err e = queue ? BW_ERR_BUSY : send_now(p, handle, &o, &d);
    if (e && e != BW_ERR_BUSY) {
        bwpy_raise(e, NULL);
        r = -1;
    } else if (e && (queue || p->queued || p->busy >= BUSY_MAX || atomic_load(&p->outbox->outstanding) > 0)) {
        r = send_queued(p, handle, &o, callback, deadline, !queue);
        callback = NULL;
    } else if (e) {
        p->busy++;
        int32_t most = bwpy_left(deadline);
        r = send_waiting(p, handle, &o, most < 0 || most > p->delivery_timeout_ms ? p->delivery_timeout_ms : most, &d);
    }
    if (r == 0 && callback) {
        bwpy_told *told = told_new(p, callback);
        if (told) tell(told, o.topic, &d);
        else r = -1;
    }
    bwpy_outgoing_put(&o);
    bwpy_leave(&p->base);
    if (r < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *bwpy_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return send_record(self, args, nargs, kwnames, false);
}

PyObject *bwpy_queue_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return send_record(self, args, nargs, kwnames, true);
}

/* _try_send(topic, value, key, partition, timestamp_ms, headers): the delivery when it could be sent at once, else None. */
PyObject *bwpy_try_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    bwpy_producer *p = (bwpy_producer *)self;
    PyObject *a[SEND_NAMES], *result = NULL;
    bwpy_outgoing o;
    bw_delivery d;
    if (bwpy_parse("send", args, nargs, kwnames, send_names, ON_DELIVERY, 1, 6, a) < 0) return NULL;
    if (bwpy_outgoing_get(p, a[TOPIC], a[VALUE], a[KEY], a[PARTITION], a[TIMESTAMP], a[HEADERS], &o) < 0) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    if (handle) {
        bw_err e = send_now(p, handle, &o, &d);
        if (!e) result = bwpy_delivery_make(o.topic, &d, NULL);
        else if (e != BW_ERR_BUSY) bwpy_raise(e, NULL);
        else Py_INCREF(result = Py_None);
        bwpy_leave(&p->base);
    }
    bwpy_outgoing_put(&o);
    return result;
}

/* send_sync(topic, value=None, key=None, *, partition, timestamp_ms, headers, timeout): the delivery. */
PyObject *bwpy_send_sync(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"topic", "value", "key", "partition", "timestamp_ms", "headers", "timeout"};
    bwpy_producer *p = (bwpy_producer *)self;
    PyObject *a[7], *result = NULL;
    bwpy_outgoing o;
    bw_delivery d;
    int64_t deadline = BWPY_FOREVER;
    if (bwpy_parse("send_sync", args, nargs, kwnames, names, 7, 1, 3, a) < 0) return NULL;
    if (a[6] && bwpy_deadline(a[6], &deadline) < 0) return NULL;
    if (bwpy_outgoing_get(p, a[0], a[1], a[2], a[3], a[4], a[5], &o) < 0) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    if (handle) {
        bw_err e = send_now(p, handle, &o, &d);
        int r = 0;
        if (e && e != BW_ERR_BUSY) bwpy_raise(e, NULL);
        if (e == BW_ERR_BUSY && atomic_load(&p->outbox->outstanding) > 0) r = bwpy_flush(handle, deadline);
        if (e == BW_ERR_BUSY && r == 0) r = send_waiting(p, handle, &o, bwpy_left(deadline), &d);
        if (!PyErr_Occurred()) result = bwpy_delivery_make(o.topic, &d, NULL);
        bwpy_leave(&p->base);
    }
    bwpy_outgoing_put(&o);
    return result;
}
