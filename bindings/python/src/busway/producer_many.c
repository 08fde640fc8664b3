/* producer_many.c: many records in one crossing.
 *
 * The iterable is read in chunks; a chunk's records are described in C and appended by one call without the GIL. What a chunk points
 * into is kept by a list of its own, so that nobody who changes the caller's list meanwhile can do harm: bytes are kept, other
 * buffers copied. An item is a value, or a tuple (key, value), (key, value, timestamp_ms) or (key, value, timestamp_ms, headers). */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = 8192, CHUNK_BYTES = 4 << 20 };

typedef struct many_job {
    bwpy_job job;
    bw_producer *producer;
    char topic[BW_TOPIC_NAME_MAX + 2];
    int32_t partition, timeout_ms;
    bool one_batch;
    size_t count, bytes;
    bw_delivery delivery;
    bw_record *records; /* CHUNK of them, or as many as there are for one batch: behind this struct or in `more` */
    bw_placed *placed;
} many_job;

static void run_many(bwpy_job *job)
{
    many_job *j = (many_job *)job;
    bwpy_note(job, j->one_batch
                       ? bw_producer_send_batch(j->producer, j->topic, j->partition, j->records, j->count, j->timeout_ms, &j->delivery)
                       : bw_producer_send_many(j->producer, j->topic, j->partition, j->records, j->count, j->timeout_ms, j->placed));
}

static many_job *job_new(bwpy_producer *p, bw_producer *handle, const char *topic, int32_t partition, size_t room, bool one_batch)
{
    PyObject *keep = PyList_New(0);
    if (!keep) return NULL;
    size_t size = sizeof(many_job) + room * (sizeof(bw_record) + sizeof(bw_placed));
    many_job *j = bwpy_job_new(size, run_many, keep, p->base.core);
    Py_DECREF(keep);
    if (!j) return NULL;
    j->records = (bw_record *)(void *)(j + 1);
    j->placed = (bw_placed *)(void *)(j->records + room);
    j->producer = handle;
    j->partition = partition;
    j->one_batch = one_batch;
    strncpy(j->topic, topic, sizeof j->topic - 1);
    return j;
}

static int keep_object(PyObject *list, PyObject *o) { return PyList_Append(list, o); }

/* The bytes of o, kept by the list unless `owned`: something that is kept already owns it. */
static int keep_bytes(PyObject *list, PyObject *serializer, PyObject *o, bool owned, const char *what, const void **data, size_t *len)
{
    *data = NULL;
    *len = 0;
    if (!o || o == Py_None) return 0;
    if (!serializer && PyBytes_Check(o)) { /* the usual case, without any counting */
        char *at;
        Py_ssize_t n;
        if (PyBytes_AsStringAndSize(o, &at, &n) < 0) return -1;
        *data = at;
        *len = (size_t)n;
        return owned ? 0 : keep_object(list, o);
    }
    PyObject *s = bwpy_serialize(serializer, o);
    if (!s) return -1;
    bwpy_bytes b;
    int r = bwpy_get_bytes(s, what, &b);
    if (r == 0 && b.held) {
        PyObject *copy = PyBytes_FromStringAndSize(b.data, (Py_ssize_t)b.len);
        bwpy_put_bytes(&b);
        Py_DECREF(s);
        if (!(s = copy)) return -1;
        b.data = PyBytes_AsString(s);
    }
    if (r == 0) r = keep_object(list, s);
    Py_DECREF(s);
    *data = b.data;
    *len = b.len;
    return r;
}

static int add(bwpy_producer *p, many_job *j, PyObject *item)
{
    bw_record *r = &j->records[j->count];
    PyObject *keep = j->job.keep;
    r->headers = NULL;
    r->header_count = 0;
    r->key = NULL;
    r->key_len = 0;
    r->timestamp_ms = BW_NO_TIMESTAMP;
    if (!PyTuple_Check(item)) {
        if (keep_bytes(keep, p->value_serializer, item, false, "value", &r->value, &r->value_len) < 0) return -1;
    } else {
        Py_ssize_t n = PyTuple_Size(item);
        if (n < 2 || n > 4) {
            PyErr_Format(PyExc_ValueError, "a record is a value or (key, value[, timestamp_ms[, headers]]), not a tuple of %zd", n);
            return -1;
        }
        if (keep_object(keep, item) < 0 ||
            keep_bytes(keep, p->key_serializer, PyTuple_GetItem(item, 0), true, "key", &r->key, &r->key_len) < 0 ||
            keep_bytes(keep, p->value_serializer, PyTuple_GetItem(item, 1), true, "value", &r->value, &r->value_len) < 0)
            return -1;
        PyObject *at = n > 2 ? PyTuple_GetItem(item, 2) : Py_None;
        if (at != Py_None && bwpy_get_int64(at, "timestamp_ms", &r->timestamp_ms) < 0) return -1;
        if (n > 3) {
            bwpy_headers h;
            if (bwpy_get_headers(PyTuple_GetItem(item, 3), &h) < 0) return -1;
            r->headers = h.items;
            r->header_count = h.count;
            int kept = h.keep ? keep_object(keep, h.keep) : 0;
            if (h.keep) bwpy_put_headers(&h);
            if (kept < 0) return -1;
        }
    }
    j->bytes += r->key_len + r->value_len;
    j->count++;
    return 0;
}

/* Sends the chunk. The number that were appended goes onto *sent. */
static int send_chunk(many_job *j, int64_t deadline, long long *sent, bw_delivery *out)
{
    j->timeout_ms = bwpy_left(deadline);
    if (bwpy_run(&j->job) < 0) return -1;
    bw_err e = j->job.error;
    if (!e) *sent += (long long)j->count;
    else if (!j->one_batch)
        for (size_t i = 0; i < j->count; i++) *sent += j->placed[i].partition >= 0;
    if (out) *out = j->delivery;
    if (e) bwpy_raise(e, j->job.message);
    bwpy_job_free(&j->job);
    return e ? -1 : 0;
}

/* The exception gets an attribute `sent`. */
static void tell_sent(long long sent)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *n = PyLong_FromLongLong(sent);
    if (!n || !value || PyObject_SetAttrString(value, "sent", n) < 0) PyErr_Clear();
    Py_XDECREF(n);
    PyErr_Restore(type, value, trace);
}

/* -1: an exception; 0: not one more; 1: *item, a new reference. */
static int next_item(PyObject *it, PyObject *list, Py_ssize_t *at, PyObject **item)
{
    if (list) {
        if (*at >= PyList_Size(list)) return 0;
        *item = PyList_GetItem(list, (*at)++);
        if (*item) Py_INCREF(*item);
        return *item ? 1 : -1;
    }
    *item = PyIter_Next(it);
    return *item ? 1 : PyErr_Occurred() ? -1 : 0;
}

static int send_all(bwpy_producer *p, bw_producer *handle, const char *topic, int32_t partition, PyObject *records, int64_t deadline,
                    long long *sent)
{
    PyObject *list = PyList_CheckExact(records) ? records : NULL;
    PyObject *it = list ? NULL : PyObject_GetIter(records);
    if (!list && !it) return -1;
    Py_ssize_t at = 0;
    many_job *j = NULL;
    PyObject *item;
    int r;
    while ((r = next_item(it, list, &at, &item)) == 1) {
        if (!j && !(j = job_new(p, handle, topic, partition, CHUNK, false))) r = -1;
        else r = add(p, j, item);
        Py_DECREF(item);
        if (r < 0) break;
        if (j->count < CHUNK && j->bytes < CHUNK_BYTES) continue;
        r = send_chunk(j, deadline, sent, NULL);
        j = NULL;
        if (r < 0) break;
    }
    if (r < 0 && j) { /* what came before the broken item is sent: the iterable was used up so far */
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        if (j->count && send_chunk(j, deadline, sent, NULL) < 0) PyErr_Clear();
        else if (!j->count) bwpy_job_free(&j->job);
        PyErr_Restore(type, value, trace);
    } else if (j) {
        r = send_chunk(j, deadline, sent, NULL);
    }
    Py_XDECREF(it);
    return r < 0 ? -1 : 0;
}

static int send_one_batch(bwpy_producer *p, bw_producer *handle, const char *topic, int32_t partition, PyObject *records, int64_t deadline,
                          bw_delivery *out)
{
    PyObject *tuple = PySequence_Tuple(records);
    if (!tuple) return -1;
    Py_ssize_t n = PyTuple_Size(tuple);
    many_job *j = job_new(p, handle, topic, partition, (size_t)n, true);
    int r = j ? 0 : -1;
    for (Py_ssize_t i = 0; i < n && r == 0; i++) r = add(p, j, PyTuple_GetItem(tuple, i));
    Py_DECREF(tuple);
    long long sent = 0;
    if (r == 0) return send_chunk(j, deadline, &sent, out);
    if (j) bwpy_job_free(&j->job);
    return -1;
}

/* _send_many(topic, records, partition, timeout, one_batch): how many; with one_batch the delivery. */
PyObject *bwpy_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"topic", "records", "partition", "timeout", "one_batch"};
    bwpy_producer *p = (bwpy_producer *)self;
    PyObject *a[5], *result = NULL;
    int32_t partition;
    int64_t deadline;
    long long sent = 0;
    bw_delivery d;
    if (bwpy_parse("send_many", args, nargs, kwnames, names, 5, 5, 5, a) < 0) return NULL;
    const char *topic = bwpy_text(a[0], "topic");
    if (!topic || bwpy_get_partition(a[2], &partition) < 0 || bwpy_deadline(a[3], &deadline) < 0) return NULL;
    if (PyUnicode_Check(a[1]) || PyObject_CheckBuffer(a[1])) {
        PyErr_Format(PyExc_TypeError, "records is an iterable of records, not %R", (PyObject *)Py_TYPE(a[1]));
        return NULL;
    }
    bw_producer *handle = bwpy_enter(&p->base);
    if (!handle) return NULL;
    if (atomic_load(&p->outbox->outstanding) == 0 || bwpy_flush(handle, deadline) == 0) {
        if (a[4] == Py_True) {
            if (send_one_batch(p, handle, topic, partition, a[1], deadline, &d) == 0) result = bwpy_delivery_make(topic, &d, NULL);
        } else if (send_all(p, handle, topic, partition, a[1], deadline, &sent) == 0) {
            result = PyLong_FromLongLong(sent);
        } else {
            tell_sent(sent);
        }
    }
    bwpy_leave(&p->base);
    return result;
}
