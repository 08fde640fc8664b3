/* args.c: what comes from Python: keyword arguments, bytes, numbers, headers. Nothing here keeps memory beyond its put function. */
#include "_busway.h"

#include <string.h>

/* Interned strings compare by pointer nearly always; the text decides otherwise. */
static int name_index(PyObject *given, const char *const *names, int count)
{
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(given, &len);
    if (!text) return -1;
    for (int i = 0; i < count; i++)
        if (names[i][0] == text[0] && strcmp(names[i], text) == 0) return i;
    return -1;
}

int bwpy_parse(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const char *const *names, int count,
               int required, int positional, PyObject **out)
{
    for (int i = 0; i < count; i++) out[i] = NULL;
    if (nargs > positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)", function, positional, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) out[i] = args[i];
    Py_ssize_t named = kwnames ? PyTuple_Size(kwnames) : 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(kwnames, i);
        int at = name_index(name, names, count);
        if (at < 0) {
            if (!PyErr_Occurred()) PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function, name);
            return -1;
        }
        if (out[at]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", function, names[at]);
            return -1;
        }
        out[at] = args[nargs + i];
    }
    for (int i = 0; i < required; i++) {
        if (out[i]) continue;
        PyErr_Format(PyExc_TypeError, "%s() is missing the argument '%s'", function, names[i]);
        return -1;
    }
    return 0;
}

int bwpy_get_bytes(PyObject *o, const char *what, bwpy_bytes *out)
{
    out->held = false;
    out->data = NULL;
    out->len = 0;
    if (!o || o == Py_None) return 0;
    if (PyBytes_Check(o)) {
        char *data;
        Py_ssize_t len;
        if (PyBytes_AsStringAndSize(o, &data, &len) < 0) return -1;
        out->data = data;
        out->len = (size_t)len;
        return 0;
    }
    if (PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "%s is bytes-like or None, not str: encode it, or give the producer a serializer", what);
        return -1;
    }
    if (!PyObject_CheckBuffer(o)) {
        PyErr_Format(PyExc_TypeError, "%s is bytes-like or None, not %R", what, (PyObject *)Py_TYPE(o));
        return -1;
    }
    if (PyObject_GetBuffer(o, &out->view, PyBUF_SIMPLE) < 0) return -1;
    out->held = true;
    out->data = out->view.buf ? out->view.buf : "";
    out->len = (size_t)out->view.len;
    return 0;
}

int bwpy_get_int64(PyObject *o, const char *what, int64_t *out)
{
    long long v = PyLong_AsLongLong(o);
    if (v == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) PyErr_Format(PyExc_TypeError, "%s is an integer, not %R", what, (PyObject *)Py_TYPE(o));
        return -1;
    }
    *out = v;
    return 0;
}

int bwpy_get_int32(PyObject *o, const char *what, int32_t *out)
{
    int64_t v;
    if (bwpy_get_int64(o, what, &v) < 0) return -1;
    if (v < INT32_MIN || v > INT32_MAX) {
        PyErr_Format(PyExc_OverflowError, "%s is out of range: %lld", what, (long long)v);
        return -1;
    }
    *out = (int32_t)v;
    return 0;
}

const char *bwpy_text(PyObject *o, const char *what)
{
    if (!PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "%s is a str, not %R", what, (PyObject *)Py_TYPE(o));
        return NULL;
    }
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(o, &len);
    if (text && strlen(text) != (size_t)len) {
        PyErr_Format(PyExc_ValueError, "%s has a NUL in it", what);
        return NULL;
    }
    return text;
}

PyObject *bwpy_bytes_or_none(const void *data, size_t len)
{
    if (!data) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
}

/* ---- headers ---- */

static int one_header(PyObject *pair, bwpy_headers *h, Py_ssize_t i)
{
    PyObject *two = PySequence_Tuple(pair);
    if (!two || PyTuple_Size(two) != 2) {
        Py_XDECREF(two);
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_SetString(PyExc_TypeError, "headers are a mapping or pairs of (name: str, value: bytes or None)");
        return -1;
    }
    PyObject *name = PyTuple_GetItem(two, 0), *value = PyTuple_GetItem(two, 1);
    PyObject *kept = NULL;
    if (!PyUnicode_Check(name)) PyErr_SetString(PyExc_TypeError, "a header's name is a str");
    else if (value == Py_None) kept = Py_BuildValue("(OO)", name, Py_None);
    else if (PyUnicode_Check(value)) PyErr_SetString(PyExc_TypeError, "a header's value is bytes-like or None, not str: encode it");
    else {
        PyObject *bytes = PyBytes_Check(value) ? (Py_INCREF(value), value) : PyBytes_FromObject(value);
        if (bytes) kept = Py_BuildValue("(ON)", name, bytes);
    }
    Py_DECREF(two);
    if (!kept || PyList_Append(h->keep, kept) < 0) {
        Py_XDECREF(kept);
        return -1;
    }
    Py_DECREF(kept); /* the list has it */
    bw_header *out = &h->items[i];
    Py_ssize_t len;
    out->name = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(kept, 0), &len);
    if (!out->name) return -1;
    out->name_len = (size_t)len;
    value = PyTuple_GetItem(kept, 1);
    out->value = NULL;
    out->value_len = 0;
    if (value != Py_None) {
        char *data;
        PyBytes_AsStringAndSize(value, &data, &len);
        out->value = data;
        out->value_len = (size_t)len;
    }
    return 0;
}

int bwpy_get_headers(PyObject *o, bwpy_headers *h)
{
    h->items = NULL;
    h->count = 0;
    h->keep = NULL;
    if (!o || o == Py_None) return 0;
    PyObject *items = PyDict_Check(o) ? PyDict_Items(o) : PyMapping_Check(o) && PyObject_HasAttrString(o, "items")
                                            ? PyMapping_Items(o) : PySequence_List(o);
    if (!items) return -1;
    Py_ssize_t n = PyList_Size(items);
    h->keep = PyList_New(0);
    int r = h->keep ? 0 : -1;
    if (r == 0 && n) {
        PyObject *room = PyBytes_FromStringAndSize(NULL, n * (Py_ssize_t)sizeof *h->items);
        if (!room || PyList_Append(h->keep, room) < 0) r = -1;
        else h->items = (bw_header *)(void *)PyBytes_AsString(room);
        Py_XDECREF(room); /* the list has it */
    }
    for (Py_ssize_t i = 0; i < n && r == 0; i++) r = one_header(PyList_GetItem(items, i), h, i);
    Py_DECREF(items);
    h->count = (size_t)n;
    if (r < 0) bwpy_put_headers(h);
    return r;
}

void bwpy_put_headers(bwpy_headers *h)
{
    Py_XDECREF(h->keep);
    h->items = NULL;
    h->keep = NULL;
    h->count = 0;
}

PyObject *bwpy_headers_list(const bw_record_view *record)
{
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    bw_header_iter it;
    bw_header header;
    int r;
    bw_header_iter_init(&it, record);
    while ((r = bw_header_iter_next(&it, &header)) == 1) {
        PyObject *name = PyUnicode_DecodeUTF8(header.name, (Py_ssize_t)header.name_len, "surrogateescape");
        PyObject *value = bwpy_bytes_or_none(header.value, header.value_len);
        PyObject *pair = name && value ? PyTuple_Pack(2, name, value) : NULL;
        Py_XDECREF(name);
        Py_XDECREF(value);
        if (!pair || PyList_Append(list, pair) < 0) {
            Py_XDECREF(pair);
            Py_DECREF(list);
            return NULL;
        }
        Py_DECREF(pair);
    }
    if (r < 0) {
        Py_DECREF(list);
        return bwpy_raise(BW_ERR_CORRUPT, NULL);
    }
    return list;
}

/* ---- partitions ---- */

PyObject *bwpy_parts_list(const bw_topic_partition *parts, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        const bw_topic_partition *p = &parts[i];
        PyObject *one = Py_BuildValue("(siLizi)", p->topic, (int)p->partition, (long long)p->offset, (int)p->leader_epoch, p->metadata,
                                      (int)p->error);
        if (!one || PyList_SetItem(list, (Py_ssize_t)i, one) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

int bwpy_get_parts(PyObject *list, bw_topic_partition **parts, size_t *count, PyObject **keep)
{
    *parts = NULL;
    *count = 0;
    *keep = NULL;
    if (list == Py_None) return 0;
    PyObject *tuple = PySequence_Tuple(list);
    if (!tuple) return -1;
    Py_ssize_t n = PyTuple_Size(tuple);
    *parts = PyMem_Calloc((size_t)n + 1, sizeof **parts); /* never NULL when a list was given */
    if (!*parts) {
        Py_DECREF(tuple);
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        long long offset;
        int partition, epoch;
        bw_topic_partition *p = &(*parts)[i];
        PyObject *one = PyTuple_GetItem(tuple, i);
        if (!PyTuple_Check(one) || !PyArg_ParseTuple(one, "siLiz", &p->topic, &partition, &offset, &epoch, &p->metadata)) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "tuples are wanted");
            Py_DECREF(tuple);
            PyMem_Free(*parts);
            *parts = NULL;
            return -1;
        }
        p->partition = partition;
        p->offset = offset;
        p->leader_epoch = epoch;
    }
    *count = (size_t)n;
    *keep = tuple;
    return 0;
}
