/* record.c: records as objects: copies that own what they have. Message is a record of a queue. Delivery is a named tuple. */
#include "_busway.h"

#include <stdlib.h>

PyTypeObject *bwpy_record_type, *bwpy_message_type, *bwpy_delivery_type;

static int decode(PyObject *deserializer, PyObject **field)
{
    if (!deserializer) return 0;
    PyObject *o = PyObject_CallFunctionObjArgs(deserializer, *field, NULL);
    if (!o) return -1;
    Py_DECREF(*field);
    *field = o;
    return 0;
}

/* For the two types of this file: what tp_alloc does, without its zeroing. */
static bwpy_record *record_alloc(PyTypeObject *type)
{
    bwpy_record *r = PyObject_New(bwpy_record, type);
    if (!r) return NULL;
    r->topic = r->key = r->value = r->headers = r->queue = NULL;
    r->deliveries = 0;
    r->c_topic = NULL;
    return r;
}

PyObject *bwpy_record_make(PyTypeObject *type, PyObject *topic, int32_t partition, int32_t leader_epoch, int timestamp_type,
                           const bw_record_view *v, PyObject *value_deserializer, PyObject *key_deserializer)
{
    bwpy_record *r = record_alloc(type);
    if (!r) return NULL;
    Py_INCREF(topic);
    r->topic = topic;
    r->partition = partition;
    r->leader_epoch = leader_epoch;
    r->timestamp_type = timestamp_type;
    r->offset = v->offset;
    r->timestamp_ms = v->timestamp_ms;
    r->value = bwpy_bytes_or_none(v->value, v->value_len);
    r->key = bwpy_bytes_or_none(v->key, v->key_len);
    uint32_t headers = v->header_count;
    if (headers) r->headers = bwpy_headers_list(v);
    /* From here on the batch may go: a deserializer can do what it likes. */
    if (!r->value || !r->key || (headers && !r->headers) || decode(value_deserializer, &r->value) < 0 ||
        decode(key_deserializer, &r->key) < 0) {
        Py_DECREF(r);
        return NULL;
    }
    return (PyObject *)r;
}

static void record_dealloc(PyObject *self)
{
    bwpy_record *r = (bwpy_record *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(r->topic);
    Py_XDECREF(r->key);
    Py_XDECREF(r->value);
    Py_XDECREF(r->headers);
    Py_XDECREF(r->queue);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Record(topic, partition, offset, timestamp_ms, timestamp_type, key, value, headers, leader_epoch) */
static PyObject *record_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"topic", "partition", "offset", "timestamp_ms", "timestamp_type", "key", "value", "headers", "leader_epoch",
                            "deliveries", NULL};
    PyObject *topic, *key = Py_None, *value = Py_None, *headers = NULL;
    int partition = 0, timestamp_type = 0, leader_epoch = -1, deliveries = 0;
    long long offset = -1, timestamp_ms = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|iLLiOOOii", names, &topic, &partition, &offset, &timestamp_ms, &timestamp_type, &key,
                                     &value, &headers, &leader_epoch, &deliveries))
        return NULL;
    PyObject *list = NULL;
    if (headers && headers != Py_None && !(list = PySequence_List(headers))) return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    bwpy_record *r = (bwpy_record *)alloc(type, 0);
    if (!r) {
        Py_XDECREF(list);
        return NULL;
    }
    Py_INCREF(topic);
    Py_INCREF(key);
    Py_INCREF(value);
    r->topic = topic;
    r->key = key;
    r->value = value;
    r->headers = list;
    r->partition = partition;
    r->offset = offset;
    r->timestamp_ms = timestamp_ms;
    r->timestamp_type = timestamp_type;
    r->leader_epoch = leader_epoch;
    r->deliveries = deliveries;
    return (PyObject *)r;
}

static PyObject *get_headers(PyObject *self, void *unused)
{
    (void)unused;
    bwpy_record *r = (bwpy_record *)self;
    if (!r->headers && !(r->headers = PyList_New(0))) return NULL;
    Py_INCREF(r->headers);
    return r->headers;
}

static PyObject *record_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_record *r = (bwpy_record *)self;
    PyObject *headers = get_headers(self, NULL);
    if (!headers) return NULL;
    return Py_BuildValue("O(OiLLiOONii)", Py_TYPE(self), r->topic, r->partition, r->offset, r->timestamp_ms, r->timestamp_type, r->key,
                         r->value, headers, r->leader_epoch, r->deliveries);
}

static PyObject *record_repr(PyObject *self)
{
    bwpy_record *r = (bwpy_record *)self;
    if (r->deliveries > 0)
        return PyUnicode_FromFormat("Message(topic=%R, partition=%d, offset=%lld, key=%R, value=%R, deliveries=%d)", r->topic, r->partition,
                                    r->offset, r->key, r->value, r->deliveries);
    return PyUnicode_FromFormat("Record(topic=%R, partition=%d, offset=%lld, key=%R, value=%R)", r->topic, r->partition, r->offset, r->key,
                                r->value);
}

static PyObject *record_compare(PyObject *self, PyObject *other, int op)
{
    if (!PyObject_TypeCheck(other, bwpy_record_type) || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
    bwpy_record *a = (bwpy_record *)self, *b = (bwpy_record *)other;
    int same = a->offset == b->offset && a->partition == b->partition && a->timestamp_ms == b->timestamp_ms;
    if (same) same = PyObject_RichCompareBool(a->topic, b->topic, Py_EQ);
    if (same > 0) same = PyObject_RichCompareBool(a->key, b->key, Py_EQ);
    if (same > 0) same = PyObject_RichCompareBool(a->value, b->value, Py_EQ);
    if (same < 0) return NULL;
    return PyBool_FromLong(op == Py_EQ ? same : !same);
}

static PyMemberDef record_members[] = {
    {"topic", T_OBJECT, offsetof(bwpy_record, topic), READONLY, "The topic's name."},
    {"partition", T_INT, offsetof(bwpy_record, partition), READONLY, "The partition's number."},
    {"offset", T_LONGLONG, offsetof(bwpy_record, offset), READONLY, "The place in the partition."},
    {"timestamp_ms", T_LONGLONG, offsetof(bwpy_record, timestamp_ms), READONLY, "Milliseconds since 1970."},
    {"timestamp", T_LONGLONG, offsetof(bwpy_record, timestamp_ms), READONLY, "Kafka's name for timestamp_ms."},
    {"timestamp_type", T_INT, offsetof(bwpy_record, timestamp_type), READONLY, "0: set by the producer; 1: by the log; -1: none."},
    {"key", T_OBJECT, offsetof(bwpy_record, key), READONLY, "bytes or None; what key_deserializer made of it."},
    {"value", T_OBJECT, offsetof(bwpy_record, value), READONLY, "bytes or None; what value_deserializer made of it."},
    {"leader_epoch", T_INT, offsetof(bwpy_record, leader_epoch), READONLY, "The epoch of the log when it was written."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef record_getset[] = {
    {"headers", get_headers, NULL, "A list of (name: str, value: bytes or None).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef record_methods[] = {
    {"__reduce__", record_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *settle(PyObject *self, const char *how)
{
    bwpy_record *r = (bwpy_record *)self;
    if (r->queue) return PyObject_CallMethod(r->queue, how, "O", self);
    PyErr_SetString(PyExc_ValueError, "this message is a copy: it was not polled from a queue of this process");
    return NULL;
}

static PyObject *message_ack(PyObject *self, PyObject *unused) { return (void)unused, settle(self, "ack"); }
static PyObject *message_release(PyObject *self, PyObject *unused) { return (void)unused, settle(self, "release"); }
static PyObject *message_reject(PyObject *self, PyObject *unused) { return (void)unused, settle(self, "reject"); }
static PyObject *message_renew(PyObject *self, PyObject *unused) { return (void)unused, settle(self, "renew"); }

static PyMethodDef message_methods[] = {
    {"ack", message_ack, METH_NOARGS, "Done: never to be delivered again, once the queue was flushed."},
    {"release", message_release, METH_NOARGS, "Give it back: somebody else may have it now."},
    {"reject", message_reject, METH_NOARGS, "To the dead-letter topic."},
    {"renew", message_renew, METH_NOARGS, "The lease begins anew."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef message_members[] = {
    {"deliveries", T_INT, offsetof(bwpy_record, deliveries), READONLY, "How often it was handed out, this time included."},
    {"_queue", T_OBJECT, offsetof(bwpy_record, queue), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyStructSequence_Field delivery_fields[] = {
    {"topic", "The topic's name."},
    {"partition", "The partition that was chosen; -1 when none was."},
    {"offset", "The record's place; -1 with acks=\"none\" or on error."},
    {"timestamp_ms", "Milliseconds since 1970, as stored."},
    {"count", "Records; offset is the first one's."},
    {"error", "None, or the BuswayError that kept it from being appended."},
    {NULL, NULL},
};

PyObject *bwpy_delivery_make(const char *topic, const bw_delivery *d, PyObject *error)
{
    PyObject *t = PyStructSequence_New(bwpy_delivery_type);
    if (!t) return NULL;
    PyStructSequence_SetItem(t, 0, PyUnicode_FromString(topic));
    PyStructSequence_SetItem(t, 1, PyLong_FromLong(d->partition));
    PyStructSequence_SetItem(t, 2, PyLong_FromLongLong(d->offset));
    PyStructSequence_SetItem(t, 3, PyLong_FromLongLong(d->timestamp_ms));
    PyStructSequence_SetItem(t, 4, PyLong_FromLong(d->count));
    if (!error) error = Py_None;
    Py_INCREF(error);
    PyStructSequence_SetItem(t, 5, error);
    if (PyErr_Occurred()) Py_CLEAR(t);
    return t;
}

int bwpy_record_init(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_new, record_new},         {Py_tp_dealloc, record_dealloc}, {Py_tp_repr, record_repr},       {Py_tp_richcompare, record_compare},
        {Py_tp_members, record_members}, {Py_tp_getset, record_getset},   {Py_tp_methods, record_methods}, {Py_tp_hash, PyObject_HashNotImplemented},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway.Record", sizeof(bwpy_record), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
    static PyType_Slot message_slots[] = {
        {Py_tp_members, message_members}, {Py_tp_methods, message_methods}, {Py_tp_dealloc, record_dealloc}, {0, NULL}};
    static PyType_Spec message_spec = {"busway.Message", sizeof(bwpy_record), 0, Py_TPFLAGS_DEFAULT, message_slots};
    static PyStructSequence_Desc delivery = {"busway.Delivery", "What became of a record, or of a batch.", delivery_fields, 6};
    bwpy_record_type = bwpy_type(module, &spec, NULL, "Record");
    if (!bwpy_record_type) return -1;
    bwpy_message_type = bwpy_type(module, &message_spec, bwpy_record_type, "Message");
    if (!bwpy_message_type) return -1;
    bwpy_delivery_type = PyStructSequence_NewType(&delivery);
    if (!bwpy_delivery_type) return -1;
    Py_INCREF(bwpy_delivery_type);
    return PyModule_AddObject(module, "Delivery", (PyObject *)bwpy_delivery_type);
}
