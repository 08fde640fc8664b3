/* error.c: libbusway's outcomes as exceptions. The classes are Python's (exceptions.py); the table from code to class comes from there. A
 * code that the table does not know (a newer library) becomes RetriableError, FatalError or FinalError by what the library says of it. */
#include "_busway.h"

#include <string.h>

PyObject *bwpy_closed, *bwpy_concurrent, *bwpy_released, *bwpy_forked;
static PyObject *by_code;  /* dict: int to class */
static PyObject *retriable, *final, *fatal; /* classes */

static PyObject *class_of(bw_err e)
{
    PyObject *code = PyLong_FromLong(e);
    PyObject *found = code && by_code ? PyDict_GetItemWithError(by_code, code) : NULL;
    Py_XDECREF(code);
    if (found || PyErr_Occurred()) return found;
    return bw_err_is_fatal(e) ? fatal : bw_err_is_retriable(e) ? retriable : final;
}

PyObject *bwpy_make_error(bw_err e, const char *message)
{
    if (!message) message = bw_error_message();
    if (!*message) message = bw_err_text(e);
    PyObject *class = class_of(e);
    if (!class) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_RuntimeError, "%s: %s", bw_err_name(e), message);
        return NULL;
    }
    PyObject *text = PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "replace");
    PyObject *exception = text ? PyObject_CallFunction(class, "Oi", text, (int)e) : NULL;
    Py_XDECREF(text);
    return exception;
}

PyObject *bwpy_raise(bw_err e, const char *message)
{
    if (e == BW_ERR_NO_MEMORY && !message) return PyErr_NoMemory();
    PyObject *exception = bwpy_make_error(e, message);
    if (exception) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}

/* _set_errors(table, retriable, final, fatal, closed, concurrent, released, forked) */
PyObject *bwpy_set_errors(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[8];
    if (!PyArg_ParseTuple(args, "O!OOOOOOO", &PyDict_Type, &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &o[7])) return NULL;
    PyObject **to[8] = {&by_code, &retriable, &final, &fatal, &bwpy_closed, &bwpy_concurrent, &bwpy_released, &bwpy_forked};
    for (int i = 0; i < 8; i++) {
        PyObject *old = *to[i];
        Py_INCREF(o[i]);
        *to[i] = o[i];
        Py_XDECREF(old);
    }
    Py_RETURN_NONE;
}

/* ERRORS: {number: (name, text, retriable, fatal)}, of the library that is loaded. */
int bwpy_error_init(PyObject *module)
{
    static const struct { int code; const char *name; } known[] = {
#define KNOWN(name, number, text, class) {number, #name},
        BW_ERR_MAP(KNOWN)
#undef KNOWN
    };
    PyObject *table = PyDict_New();
    if (!table) return -1;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        bw_err e = (bw_err)known[i].code;
        PyObject *key = PyLong_FromLong(known[i].code);
        PyObject *value = Py_BuildValue("(ssNN)", known[i].name, bw_err_text(e), PyBool_FromLong(bw_err_is_retriable(e)),
                                        PyBool_FromLong(bw_err_is_fatal(e)));
        int r = key && value ? PyDict_SetItem(table, key, value) : -1;
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (r < 0) {
            Py_DECREF(table);
            return -1;
        }
    }
    if (PyModule_AddObject(module, "ERRORS", table) < 0) {
        Py_DECREF(table);
        return -1;
    }
    return 0;
}
