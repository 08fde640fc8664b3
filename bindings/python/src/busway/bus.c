/* bus.c: the connection. */
#include "_busway.h"

#include <stdlib.h>

PyTypeObject *bwpy_bus_type;

typedef struct open_job {
    bwpy_job job;
    const char *url;
    bw_bus_options options;
    bw_bus *bus;
} open_job;

static void run_open(bwpy_job *job)
{
    open_job *j = (open_job *)job;
    bwpy_note(job, bw_bus_open(j->url, &j->options, &j->bus));
}

static void drop_open(bwpy_job *job)
{
    open_job *j = (open_job *)job;
    if (!job->error) bw_bus_close(j->bus);
}

/* Bus(url, transport, connect_timeout_ms, request_timeout_ms, client_id, daemon_path) */
static PyObject *bus_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    open_job *j = bwpy_job_new(sizeof *j, run_open, args, NULL);
    if (!j) return NULL;
    int transport, connect_ms, request_ms;
    bw_bus_options defaults = BW_BUS_OPTIONS_INIT;
    j->options = defaults;
    j->job.drop = drop_open;
    if (!PyArg_ParseTuple(args, "ziiizz", &j->url, &transport, &connect_ms, &request_ms, &j->options.client_id, &j->options.daemon_path)) {
        bwpy_job_free(&j->job);
        return NULL;
    }
    j->options.transport = (bw_transport)transport;
    j->options.connect_timeout_ms = connect_ms;
    j->options.request_timeout_ms = request_ms;
    j->options.log = bwpy_log;
    if (bwpy_run(&j->job) < 0) return NULL;
    PyObject *self = NULL;
    if (j->job.error) bwpy_raise(j->job.error, j->job.message);
    else if (!(self = (PyObject *)bwpy_handle_new(type, BWPY_BUS, NULL, j->bus))) bw_bus_close(j->bus);
    bwpy_job_free(&j->job);
    return self;
}

static void bus_finalize(PyObject *self) { bwpy_finish((bwpy_handle *)self); }

static void bus_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (((bwpy_handle *)self)->weak) PyObject_ClearWeakRefs(self);
    bwpy_free(self);
}

static int bus_clear(PyObject *self)
{
    (void)self;
    return 0;
}

/* close(timeout): what belongs to it first. */
static PyObject *bus_close(PyObject *self, PyObject *timeout)
{
    int64_t deadline;
    if (bwpy_deadline(timeout, &deadline) < 0) return NULL;
    if (bwpy_close((bwpy_handle *)self, deadline) < 0) return NULL;
    bwpy_drain_log();
    Py_RETURN_NONE;
}

static PyObject *bus_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    bw_bus *bus = bwpy_enter((bwpy_handle *)self);
    if (!bus) return NULL;
    char *json;
    Py_BEGIN_ALLOW_THREADS
    json = bw_bus_stats(bus);
    Py_END_ALLOW_THREADS
    bwpy_leave((bwpy_handle *)self);
    PyObject *text = json ? PyUnicode_FromString(json) : PyErr_NoMemory();
    bw_free(json);
    return text;
}

static PyMethodDef bus_methods[] = {
    {"_close", bus_close, METH_O, NULL},
    {"_stats", bus_stats, METH_NOARGS, NULL},
    {"_admin", bwpy_admin, METH_VARARGS, NULL},
    {"_redrive", bwpy_redrive, METH_VARARGS, NULL},
    {"__reduce__", bwpy_no_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef bus_getset[] = {
    {"closed", bwpy_get_closed, NULL, "True after close().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef bus_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bwpy_handle, weak), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

int bwpy_bus_init(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_new, bus_new},
        {Py_tp_finalize, bus_finalize},
        {Py_tp_dealloc, bus_dealloc},
        {Py_tp_traverse, bwpy_handle_traverse},
        {Py_tp_clear, bus_clear},
        {Py_tp_methods, bus_methods},
        {Py_tp_getset, bus_getset},
        {Py_tp_members, bus_members},
        {0, NULL},
    };
    static PyType_Spec spec = {"busway._busway.Bus", sizeof(bwpy_handle), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    bwpy_bus_type = bwpy_type(module, &spec, NULL, "Bus");
    return bwpy_bus_type ? 0 : -1;
}
