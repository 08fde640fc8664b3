/* module.c: the module: is the library that was found the one that was meant? Then types and functions. */
#include "_busway.h"

#include <stdlib.h>

/* A library of another major version has another ABI; an older minor one lacks functions. */
static int check_version(void)
{
    int major = -1, minor = -1;
    const char *version = bw_version();
    char *end;
    major = (int)strtol(version, &end, 10);
    if (*end == '.') minor = (int)strtol(end + 1, NULL, 10);
    if (major == BW_VERSION_MAJOR && minor >= BW_VERSION_MINOR) return 0;
    PyErr_Format(PyExc_ImportError, "the package busway was built for libbusway %d.%d (or a later %d.x), but the one that was found is %s: "
                 "install the package again, or set LD_LIBRARY_PATH to the right one", BW_VERSION_MAJOR, BW_VERSION_MINOR, BW_VERSION_MAJOR,
                 version);
    return -1;
}

/* _deliver_at(ms): the value of the header that delays a record in queues. */
static PyObject *deliver_at(PyObject *self, PyObject *ms)
{
    (void)self;
    int64_t at;
    uint8_t room[8];
    bw_header header;
    if (bwpy_get_int64(ms, "the time in ms", &at) < 0) return NULL;
    bw_header_deliver_at(at, room, &header);
    return Py_BuildValue("(s#y#)", header.name, (Py_ssize_t)header.name_len, (const char *)header.value, (Py_ssize_t)header.value_len);
}

static PyMethodDef functions[] = {
    {"_set_errors", bwpy_set_errors, METH_VARARGS, NULL},
    {"_set_log", bwpy_set_log, METH_O, NULL},
    {"_verify", bwpy_verify, METH_VARARGS, NULL},
    {"_dump", bwpy_dump, METH_VARARGS, NULL},
    {"_deliver_at", deliver_at, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

PyMODINIT_FUNC PyInit__busway(void);
PyMODINIT_FUNC PyInit__busway(void)
{
    static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "busway._busway", NULL, -1, functions, NULL, NULL, NULL, NULL};
    if (check_version() < 0) return NULL;
    PyObject *module = PyModule_Create(&def);
    if (!module) return NULL;
    if (bwpy_work_init() < 0 || bwpy_error_init(module) < 0 || bwpy_record_init(module) < 0 || bwpy_bus_init(module) < 0 ||
        bwpy_producer_init(module) < 0 || bwpy_reserve_init(module) < 0 || bwpy_consumer_init(module) < 0 ||
        bwpy_batch_init(module) < 0 || bwpy_queue_init(module) < 0 || bwpy_state_init(module) < 0 ||
        PyModule_AddStringConstant(module, "VERSION", bw_version()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
