/* batch.c: a batch as a sequence of views into the log, its columns, its values gathered.
 *
 * A View is a buffer: memoryview(view) leads into the log. Each memoryview is counted in batch.exports, and nothing ends the batch while
 * there are any. After the batch's end (batch.consumer NULL) views raise ReleasedError; columns and gathered values are copies and stay. */
#include "_busway.h"

#include <string.h>

static PyTypeObject *batch_type, *view_type;

typedef struct view {
    PyObject_HEAD
    bwpy_batch *batch; /* strong */
    const bw_record_view *record;
    bool key; /* the buffer is the key's */
} view;

enum { COPY_MUCH = 64 << 10 };

/* ---- views ---- */

bool bwpy_batch_ok(bwpy_batch *b)
{
    if (b->consumer && b->generation == bwpy_generation) return true;
    if (b->consumer) PyErr_SetString(bwpy_forked, "the batch belongs to the parent process");
    else PyErr_SetString(bwpy_released, "the batch has ended (poll, seek, close, release): copy what is to live longer");
    return false;
}

static PyObject *view_make(bwpy_batch *b, const bw_record_view *record, bool key)
{
    view *v = PyObject_New(view, view_type);
    if (!v) return NULL;
    Py_INCREF(b);
    v->batch = b;
    v->record = record;
    v->key = key;
    return (PyObject *)v;
}

static void view_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(((view *)self)->batch);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int view_getbuffer(PyObject *self, Py_buffer *out, int flags)
{
    view *v = (view *)self;
    out->obj = NULL;
    if (!bwpy_batch_ok(v->batch)) return -1;
    const uint8_t *data = v->key ? v->record->key : v->record->value;
    uint32_t len = v->key ? v->record->key_len : v->record->value_len;
    if (PyBuffer_FillInfo(out, self, (void *)(uintptr_t)(data ? data : (const uint8_t *)""), (Py_ssize_t)len, 1, flags) < 0) return -1;
    v->batch->exports++;
    return 0;
}

static void view_releasebuffer(PyObject *self, Py_buffer *out)
{
    (void)out;
    ((view *)self)->batch->exports--;
}

static Py_ssize_t view_length(PyObject *self)
{
    view *v = (view *)self;
    if (!bwpy_batch_ok(v->batch)) return -1;
    return (Py_ssize_t)(v->key ? v->record->key_len : v->record->value_len);
}

static PyObject *view_bytes(PyObject *self, PyObject *unused)
{
    (void)unused;
    view *v = (view *)self;
    if (!bwpy_batch_ok(v->batch)) return NULL;
    return v->key ? PyBytes_FromStringAndSize((const char *)v->record->key, (Py_ssize_t)v->record->key_len)
                  : PyBytes_FromStringAndSize((const char *)v->record->value, (Py_ssize_t)v->record->value_len);
}

static PyObject *record_of(bwpy_batch *b, const bw_record_view *record)
{
    return bwpy_record_make(bwpy_record_type, b->topic, b->info.partition, b->info.leader_epoch, (int)b->info.timestamp_type, record,
                            b->consumer->value_deserializer, b->consumer->key_deserializer);
}

static PyObject *view_record(PyObject *self, PyObject *unused)
{
    (void)unused;
    view *v = (view *)self;
    return bwpy_batch_ok(v->batch) ? record_of(v->batch, v->record) : NULL;
}

enum { OFFSET, TIMESTAMP, TOPIC, PARTITION, HEADERS, KEY, VALUE };

static PyObject *view_get(PyObject *self, void *which)
{
    view *v = (view *)self;
    const bw_record_view *r = v->record;
    if (!bwpy_batch_ok(v->batch)) return NULL;
    switch ((intptr_t)which) {
    case OFFSET: return PyLong_FromLongLong(r->offset);
    case TIMESTAMP: return PyLong_FromLongLong(r->timestamp_ms);
    case PARTITION: return PyLong_FromLong(v->batch->info.partition);
    case TOPIC: Py_INCREF(v->batch->topic); return v->batch->topic;
    case HEADERS: return bwpy_headers_list(r);
    default: break;
    }
    bool key = (intptr_t)which == KEY;
    if (!(key ? r->key : r->value)) Py_RETURN_NONE;
    PyObject *exporter = key == v->key ? (Py_INCREF(self), self) : view_make(v->batch, r, key);
    PyObject *memory = exporter ? PyMemoryView_FromObject(exporter) : NULL;
    Py_XDECREF(exporter);
    return memory;
}

static PyObject *view_repr(PyObject *self)
{
    view *v = (view *)self;
    if (!v->batch->consumer) return PyUnicode_FromString("<View, released>");
    return PyUnicode_FromFormat("<View of %U [%d] offset %lld, %zd bytes>", v->batch->topic, (int)v->batch->info.partition,
                                (long long)v->record->offset, (Py_ssize_t)v->record->value_len);
}

/* ---- the batch ---- */

PyObject *bwpy_batch_make(bwpy_consumer *c)
{
    PyObject *topic = bwpy_topic(c);
    bwpy_batch *b = topic ? PyObject_New(bwpy_batch, batch_type) : NULL;
    if (!b) return NULL;
    Py_INCREF(topic);
    Py_INCREF(c);
    b->topic = topic;
    b->consumer = c;
    b->info = c->info;
    b->records = c->records + c->at;
    b->count = c->count - c->at;
    b->exports = 0;
    b->generation = bwpy_generation;
    for (int i = 0; i < 4; i++) b->columns[i] = NULL;
    c->at = c->count;
    c->batch = b;
    return (PyObject *)b;
}

static void batch_dealloc(PyObject *self)
{
    bwpy_batch *b = (bwpy_batch *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (b->consumer) {
        b->consumer->batch = NULL;
        Py_DECREF(b->consumer);
    }
    Py_XDECREF(b->topic);
    for (int i = 0; i < 4; i++) Py_XDECREF(b->columns[i]);
    PyObject_Free(self);
    Py_DECREF(type);
}

static Py_ssize_t batch_length(PyObject *self) { return ((bwpy_batch *)self)->count; }

static PyObject *batch_item(PyObject *self, Py_ssize_t i)
{
    bwpy_batch *b = (bwpy_batch *)self;
    if (!bwpy_batch_ok(b)) return NULL;
    if (i < 0 || i >= b->count) {
        PyErr_SetString(PyExc_IndexError, "the batch has no such record");
        return NULL;
    }
    return view_make(b, &b->records[i], false);
}

/* Columns: memoryviews of memory of their own, kept by the batch. */
static PyObject *column(PyObject *self, void *which)
{
    bwpy_batch *b = (bwpy_batch *)self;
    intptr_t w = (intptr_t)which;
    if (b->columns[w]) {
        Py_INCREF(b->columns[w]);
        return b->columns[w];
    }
    if (!bwpy_batch_ok(b)) return NULL;
    bool wide = w < 2;
    PyObject *memory = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)b->count * (wide ? 8 : 4));
    if (!memory) return NULL;
    char *at = PyBytes_AsString(memory);
    for (int32_t i = 0; i < b->count; i++) {
        const bw_record_view *r = &b->records[i];
        int64_t n = w == 0 ? r->offset : r->timestamp_ms;
        int32_t len = w == 2 ? (r->value ? (int32_t)r->value_len : -1) : (r->key ? (int32_t)r->key_len : -1);
        if (wide) memcpy(at + 8 * (size_t)i, &n, 8);
        else memcpy(at + 4 * (size_t)i, &len, 4);
    }
    PyObject *bytes = PyMemoryView_FromObject(memory);
    Py_DECREF(memory);
    b->columns[w] = bytes ? PyObject_CallMethod(bytes, "cast", "s", wide ? "q" : "i") : NULL;
    Py_XDECREF(bytes);
    Py_XINCREF(b->columns[w]);
    return b->columns[w];
}

static PyObject *batch_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_batch *b = (bwpy_batch *)self;
    if (!b->consumer) Py_RETURN_NONE;
    if (b->exports > 0) {
        PyErr_Format(PyExc_BufferError, "%d views into the batch are alive", b->exports);
        return NULL;
    }
    bwpy_consumer *c = b->consumer;
    b->consumer = NULL;
    c->batch = NULL;
    Py_DECREF(c);
    Py_RETURN_NONE;
}

static PyObject *batch_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!bwpy_batch_ok((bwpy_batch *)self)) return NULL;
    Py_INCREF(self);
    return self;
}

static PyObject *batch_exit(PyObject *self, PyObject *unused)
{
    (void)unused;
    return batch_release(self, NULL);
}

static PyObject *batch_records(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_batch *b = (bwpy_batch *)self;
    if (!bwpy_batch_ok(b)) return NULL;
    PyObject *list = PyList_New(b->count);
    for (int32_t i = 0; list && i < b->count; i++) {
        PyObject *record = bwpy_batch_ok(b) ? record_of(b, &b->records[i]) : NULL; /* a deserializer may have ended it */
        if (!record || PyList_SetItem(list, i, record) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *batch_values(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_batch *b = (bwpy_batch *)self;
    if (!bwpy_batch_ok(b)) return NULL;
    PyObject *list = PyList_New(b->count);
    for (int32_t i = 0; list && i < b->count; i++) {
        PyObject *value = bwpy_bytes_or_none(b->records[i].value, b->records[i].value_len);
        if (!value || PyList_SetItem(list, i, value) < 0) Py_CLEAR(list);
    }
    return list;
}

/* The values, one after the other, to `to`. */
static void copy_values(const bwpy_batch *b, uint8_t *to)
{
    for (int32_t i = 0; i < b->count; i++) {
        if (b->records[i].value_len) memcpy(to, b->records[i].value, b->records[i].value_len);
        to += b->records[i].value_len;
    }
}

/* out None: a new bytearray; else a writable buffer, and how many bytes were written. */
static PyObject *batch_gather_into(PyObject *self, PyObject *out)
{
    bwpy_batch *b = (bwpy_batch *)self;
    Py_buffer to;
    size_t total = 0;
    if (!bwpy_batch_ok(b)) return NULL;
    for (int32_t i = 0; i < b->count; i++) total += b->records[i].value_len;
    PyObject *made = out == Py_None ? PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)total) : NULL;
    if ((out == Py_None && !made) || PyObject_GetBuffer(made ? made : out, &to, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    if ((size_t)to.len < total) {
        PyErr_Format(PyExc_ValueError, "the values are %zu bytes, the buffer has %zd", total, to.len);
        PyBuffer_Release(&to);
        return NULL;
    }
    if (total < COPY_MUCH) {
        copy_values(b, to.buf);
    } else {
        b->exports++; /* so that nobody ends the batch meanwhile */
        Py_BEGIN_ALLOW_THREADS
        copy_values(b, to.buf);
        Py_END_ALLOW_THREADS
        b->exports--;
    }
    PyBuffer_Release(&to);
    return made ? made : PyLong_FromSize_t(total);
}

static PyObject *batch_gather(PyObject *self, PyObject *unused) { return (void)unused, batch_gather_into(self, Py_None); }

/* to_numpy(dtype=None): see _numpy.py */
static PyObject *batch_to_numpy(PyObject *self, PyObject *args)
{
    PyObject *dtype = Py_None;
    if (!PyArg_ParseTuple(args, "|O:to_numpy", &dtype)) return NULL;
    PyObject *module = PyImport_ImportModule("busway._numpy");
    PyObject *array = module ? PyObject_CallMethod(module, "to_numpy", "OO", self, dtype) : NULL;
    Py_XDECREF(module);
    return array;
}

static PyObject *batch_repr(PyObject *self)
{
    bwpy_batch *b = (bwpy_batch *)self;
    if (!b->consumer) return PyUnicode_FromString("<Batch, released>");
    return PyUnicode_FromFormat("<Batch of %U [%d]: %d records from offset %lld>", b->topic, (int)b->info.partition, (int)b->count,
                                (long long)(b->count ? b->records[0].offset : -1));
}

/* ---- many batches into one array ---- */

/* _gather_into(out, row_bytes, timeout): how many records. Values are copied into rows of row_bytes, batch after batch as long as there are
 * some, without the GIL. A value of another length ends it; when it is the first, it is an error. */
PyObject *bwpy_gather_into(PyObject *self, PyObject *args)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    PyObject *out, *timeout;
    Py_ssize_t row;
    int64_t deadline;
    Py_buffer to;
    if (!PyArg_ParseTuple(args, "OnO", &out, &row, &timeout) || bwpy_deadline(timeout, &deadline) < 0) return NULL;
    if (row <= 0) {
        PyErr_SetString(PyExc_ValueError, "a row has at least one byte");
        return NULL;
    }
    if (PyObject_GetBuffer(out, &to, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0) return NULL;
    Py_ssize_t rows = to.len / row, done = 0;
    bw_consumer *handle = bwpy_enter(&c->base);
    int r = handle ? 1 : -1;
    if (r > 0 && c->has_state) {
        bwpy_raise(BW_ERR_INVALID_ARGUMENT, "the consumer's records go to its state");
        r = -1;
    }
    const bw_record_view *odd = NULL;
    while (r == 1 && done < rows && !odd) {
        if (c->at >= c->count && (r = bwpy_fetch(c, handle, done ? 0 : deadline)) != 1) break;
        bool more = true;
        bw_batch batch;
        bw_err e = BW_OK;
        BWPY_CONSUMER_BEGIN(c);
        while (more) {
            while (c->at < c->count && done < rows) {
                const bw_record_view *v = &c->records[c->at];
                if (v->value_len != (uint32_t)row) {
                    odd = v;
                    break;
                }
                memcpy((char *)to.buf + done++ * row, v->value, (size_t)row);
                c->at++;
            }
            if (odd || done >= rows || c->corrupt || c->raised_type) break;
            batch.topic = NULL;
            e = bw_consumer_poll(handle, 0, &batch);
            more = !e && bwpy_take(c, &batch);
        }
        BWPY_CONSUMER_END(c);
        if (e && e != BW_ERR_TIMED_OUT && !c->raised_type) {
            bwpy_raise_poll(c, e, &batch);
            PyErr_Fetch(&c->raised_type, &c->raised, &c->raised_trace);
        }
        if (c->raised_type) break;
    }
    if (r >= 0 && done == 0 && bwpy_callback_error(c) < 0) r = -1;
    if (r >= 0 && odd && done == 0) {
        PyErr_Format(PyExc_ValueError, "the value at %s [%d] offset %lld has %u bytes, not %zd", c->topic_name, (int)c->info.partition,
                     (long long)odd->offset, odd->value_len, row);
        r = -1;
    }
    if (r < 0 && done > 0 && PyErr_ExceptionMatches(PyExc_Exception)) { /* what was read is told first; the next call raises it */
        PyErr_Fetch(&c->raised_type, &c->raised, &c->raised_trace);
        r = 0;
    }
    if (handle) bwpy_leave(&c->base);
    PyBuffer_Release(&to);
    return r < 0 ? NULL : PyLong_FromSsize_t(done);
}

/* ---- types ---- */

enum { FIRST, LAST, EPOCH, TYPE, BATCH_TOPIC, BATCH_PARTITION, RELEASED };

static PyObject *batch_get(PyObject *self, void *which)
{
    bwpy_batch *b = (bwpy_batch *)self;
    switch ((intptr_t)which) {
    case FIRST: return PyLong_FromLongLong(b->info.base_offset);
    case LAST: return PyLong_FromLongLong(b->info.last_offset);
    case EPOCH: return PyLong_FromLong(b->info.leader_epoch);
    case TYPE: return PyLong_FromLong((long)b->info.timestamp_type);
    case BATCH_PARTITION: return PyLong_FromLong(b->info.partition);
    case RELEASED: return PyBool_FromLong(!b->consumer);
    default: Py_INCREF(b->topic); return b->topic;
    }
}

#define AS(n) ((void *)(intptr_t)(n))

static PyGetSetDef batch_getset[] = {
    {"topic", batch_get, NULL, "The topic's name.", AS(BATCH_TOPIC)},
    {"partition", batch_get, NULL, "The partition's number.", AS(BATCH_PARTITION)},
    {"base_offset", batch_get, NULL, "The first offset of the batch in the log; the first given may be behind it.", AS(FIRST)},
    {"last_offset", batch_get, NULL, "The last offset of the batch in the log.", AS(LAST)},
    {"leader_epoch", batch_get, NULL, "The epoch of the log when it was written.", AS(EPOCH)},
    {"timestamp_type", batch_get, NULL, "0: set by the producer; 1: by the log; -1: none.", AS(TYPE)},
    {"released", batch_get, NULL, "True when its views are gone.", AS(RELEASED)},
    {"offsets", column, NULL, "The records' offsets: memoryview of int64.", AS(0)},
    {"timestamps", column, NULL, "The records' timestamps, ms since 1970: memoryview of int64.", AS(1)},
    {"value_lengths", column, NULL, "Bytes of each value, -1: null; memoryview of int32.", AS(2)},
    {"key_lengths", column, NULL, "Bytes of each key, -1: null; memoryview of int32.", AS(3)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef batch_methods[] = {
    {"release", batch_release, METH_NOARGS, "Its views are gone from here on; BufferError while memoryviews of them live."},
    {"records", batch_records, METH_NOARGS, "All of it as a list of Record: copies."},
    {"values", batch_values, METH_NOARGS, "All values as a list of bytes (None: null): copies."},
    {"gather", batch_gather, METH_NOARGS, "All values, one after the other, as a new bytearray."},
    {"gather_into", batch_gather_into, METH_O, "All values, one after the other, into a writable buffer: how many bytes."},
    {"to_numpy", batch_to_numpy, METH_VARARGS, "to_numpy(dtype=None): the values as one array, gathered in C: a copy."},
    {"__enter__", batch_enter, METH_NOARGS, NULL},
    {"__exit__", batch_exit, METH_VARARGS, NULL},
    {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef view_getset[] = {
    {"offset", view_get, NULL, "The record's place in the partition.", AS(OFFSET)},
    {"timestamp_ms", view_get, NULL, "Milliseconds since 1970.", AS(TIMESTAMP)},
    {"topic", view_get, NULL, "The topic's name.", AS(TOPIC)},
    {"partition", view_get, NULL, "The partition's number.", AS(PARTITION)},
    {"headers", view_get, NULL, "A list of (name: str, value: bytes or None): copies.", AS(HEADERS)},
    {"key", view_get, NULL, "The key as a memoryview into the log, or None.", AS(KEY)},
    {"value", view_get, NULL, "The value as a memoryview into the log, or None.", AS(VALUE)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef view_methods[] = {
    {"tobytes", view_bytes, METH_NOARGS, "The value as bytes: a copy."},
    {"__bytes__", view_bytes, METH_NOARGS, NULL},
    {"record", view_record, METH_NOARGS, "A Record: a copy of all of it."},
    {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int bwpy_batch_init(PyObject *module)
{
    static PyType_Slot batch_slots[] = {
        {Py_tp_new, bwpy_no_new},        {Py_tp_dealloc, batch_dealloc}, {Py_tp_methods, batch_methods}, {Py_tp_getset, batch_getset},
        {Py_sq_length, batch_length},    {Py_sq_item, batch_item},       {Py_tp_repr, batch_repr},
        {Py_tp_doc, "Records of one partition, as a sequence of View; good until the consumer's next poll."},
        {0, NULL},
    };
    static PyType_Slot view_slots[] = {
        {Py_tp_new, bwpy_no_new},     {Py_tp_dealloc, view_dealloc},         {Py_tp_methods, view_methods},
        {Py_tp_getset, view_getset},  {Py_bf_getbuffer, view_getbuffer},     {Py_bf_releasebuffer, view_releasebuffer},
        {Py_sq_length, view_length},  {Py_tp_repr, view_repr},
        {Py_tp_doc, "A record in the log, not copied: memoryview(view) and bytes(view) are its value."},
        {0, NULL},
    };
    static PyType_Spec batch_spec = {"busway.Batch", sizeof(bwpy_batch), 0, Py_TPFLAGS_DEFAULT, batch_slots};
    static PyType_Spec view_spec = {"busway.View", sizeof(view), 0, Py_TPFLAGS_DEFAULT, view_slots};
    batch_type = bwpy_type(module, &batch_spec, NULL, "Batch");
    view_type = batch_type ? bwpy_type(module, &view_spec, NULL, "View") : NULL;
    return view_type ? 0 : -1;
}
