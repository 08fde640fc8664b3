/* admin.c: the administrative calls of a bus, all through one job: an operation's name, up to three texts, four numbers and a list of pairs
 * or partitions go in; JSON, up to three numbers and the partitions' outcomes come out. What they mean is in _admin.py. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

typedef struct admin_job admin_job;
typedef bw_err (*admin_fn)(admin_job *job);

struct admin_job {
    bwpy_job job;
    admin_fn call;
    bw_bus *bus;
    const char *a, *b, *c;
    long long n[4];
    bw_config_entry *pairs;
    bw_group_offset *offsets;
    size_t count;
    char *json;
    int64_t out[3];
};

static bw_err topic_create(admin_job *j) { return bw_topic_create(j->bus, j->a, (int32_t)j->n[0], j->pairs, j->count); }
static bw_err topic_delete(admin_job *j) { return bw_topic_delete(j->bus, j->a); }
static bw_err topic_alter(admin_job *j) { return bw_topic_alter(j->bus, j->a, (int32_t)j->n[0], j->pairs, j->count); }
static bw_err topics_describe(admin_job *j) { return bw_topics_describe(j->bus, j->a, &j->json); }
static bw_err delete_records(admin_job *j) { return bw_delete_records(j->bus, j->a, (int32_t)j->n[0], j->n[1], &j->out[0]); }
static bw_err quota_set(admin_job *j) { return bw_quota_set(j->bus, j->a, j->b, j->c, j->pairs, j->count); }
static bw_err quotas_list(admin_job *j) { return bw_quotas_list(j->bus, j->a, j->b, j->c, &j->json); }
static bw_err status(admin_job *j) { return bw_status(j->bus, &j->json); }
static bw_err groups_list(admin_job *j) { return bw_groups_list(j->bus, &j->json); }
static bw_err group_describe(admin_job *j) { return bw_group_describe(j->bus, j->a, &j->json); }
static bw_err group_delete(admin_job *j) { return bw_group_delete(j->bus, j->a); }
static bw_err offsets_alter(admin_job *j) { return bw_group_offsets_alter(j->bus, j->a, j->offsets, j->count); }
static bw_err offsets_delete(admin_job *j) { return bw_group_offsets_delete(j->bus, j->a, j->offsets, j->count); }
static bw_err transactions_list(admin_job *j) { return bw_transactions_list(j->bus, &j->json); }
static bw_err transaction_describe(admin_job *j) { return bw_transaction_describe(j->bus, j->a, &j->json); }
static bw_err transaction_abort(admin_job *j) { return bw_transaction_abort_admin(j->bus, j->a); }
static bw_err producers_describe(admin_job *j) { return bw_producers_describe(j->bus, j->a, (int32_t)j->n[0], &j->json); }
static bw_err queue_describe(admin_job *j) { return bw_queue_describe(j->bus, j->a, &j->json); }
static bw_err queue_delete(admin_job *j) { return bw_queue_delete(j->bus, j->a); }

static bw_err topic_partitions(admin_job *j)
{
    int32_t n = 0;
    bw_err e = bw_topic_partitions(j->bus, j->a, &n);
    j->out[0] = n;
    return e;
}

static bw_err offsets_range(admin_job *j)
{
    bw_offset_range range = {0, 0, 0};
    bw_err e = bw_offsets_range(j->bus, j->a, (int32_t)j->n[0], &range);
    j->out[0] = range.log_start;
    j->out[1] = range.end;
    j->out[2] = range.durable;
    return e;
}

static bw_err offset_for_time(admin_job *j)
{
    return bw_offset_for_time(j->bus, j->a, (int32_t)j->n[0], j->n[1], &j->out[0], &j->out[1]);
}

static bw_err queue_peek(admin_job *j)
{
    return bw_queue_peek(j->bus, j->a, j->b, (int32_t)j->n[0], (int32_t)j->n[1], &j->json);
}

static bw_err queue_settle(admin_job *j)
{
    return bw_queue_settle(j->bus, j->a, j->b, (int32_t)j->n[0], j->n[1], j->n[2], (bw_queue_outcome)j->n[3], &j->out[0]);
}

static bw_err offset_end(admin_job *j)
{
    return bw_offset_end(j->bus, j->a, (int32_t)j->n[0], (bw_read_limit)j->n[1], &j->out[0]);
}

static bw_err link_add(admin_job *j) { return bw_link_add(j->bus, j->a, j->pairs, j->count); }
static bw_err link_alter(admin_job *j) { return bw_link_alter(j->bus, j->a, j->pairs, j->count); }
static bw_err link_remove(admin_job *j) { return bw_link_remove(j->bus, j->a); }
static bw_err links_list(admin_job *j) { return bw_links_list(j->bus, &j->json); }
static bw_err link_describe(admin_job *j) { return bw_link_describe(j->bus, j->a, &j->json); }

static const struct {
    const char *name;
    admin_fn call;
} operations[] = {
    {"topic_create", topic_create}, {"topic_delete", topic_delete}, {"topic_alter", topic_alter}, {"topic_partitions", topic_partitions},
    {"topics_describe", topics_describe}, {"delete_records", delete_records}, {"offsets_range", offsets_range},
    {"offset_for_time", offset_for_time}, {"quota_set", quota_set}, {"quotas_list", quotas_list}, {"status", status},
    {"groups_list", groups_list}, {"group_describe", group_describe}, {"group_delete", group_delete},
    {"group_offsets_alter", offsets_alter}, {"group_offsets_delete", offsets_delete}, {"transactions_list", transactions_list},
    {"transaction_describe", transaction_describe}, {"transaction_abort", transaction_abort}, {"producers_describe", producers_describe},
    {"queue_describe", queue_describe}, {"queue_peek", queue_peek}, {"queue_settle", queue_settle}, {"queue_delete", queue_delete},
    {"offset_end", offset_end}, {"link_add", link_add}, {"link_alter", link_alter}, {"link_remove", link_remove}, {"links_list", links_list},
    {"link_describe", link_describe},
};

static void run_admin(bwpy_job *job)
{
    admin_job *j = (admin_job *)job;
    bwpy_note(job, j->call(j));
}

static void drop_admin(bwpy_job *job) { bw_free(((admin_job *)job)->json); }

/* Pairs (name, value or None) as configuration, or parts (topic, partition, offset, epoch, metadata) as offsets, in memory that `keep`
 * holds with what they point into. */
static int get_list(PyObject *list, admin_job *j, PyObject **keep)
{
    PyObject *tuple = PySequence_Tuple(list);
    if (!tuple) return -1;
    Py_ssize_t n = PyTuple_Size(tuple);
    size_t size = sizeof(bw_group_offset) > sizeof(bw_config_entry) ? sizeof(bw_group_offset) : sizeof(bw_config_entry);
    PyObject *room = PyBytes_FromStringAndSize(NULL, (n + 1) * (Py_ssize_t)size);
    int r = room ? 0 : -1;
    char *memory = room ? PyBytes_AsString(room) : NULL;
    for (Py_ssize_t i = 0; i < n && r == 0; i++) {
        PyObject *one = PyTuple_GetItem(tuple, i);
        bool parts = PyTuple_Check(one) && PyTuple_Size(one) == 5;
        if (parts) {
            bw_group_offset *o = &((bw_group_offset *)(void *)memory)[i];
            long long offset;
            int partition, epoch;
            if (!PyArg_ParseTuple(one, "siLiz", &o->topic, &partition, &offset, &epoch, &o->metadata)) r = -1;
            else o->partition = partition, o->offset = offset, o->error = BW_OK, j->offsets = (bw_group_offset *)(void *)memory;
        } else {
            bw_config_entry *pair = &((bw_config_entry *)(void *)memory)[i];
            if (!PyTuple_Check(one) || !PyArg_ParseTuple(one, "sz", &pair->name, &pair->value)) r = -1;
            else j->pairs = (bw_config_entry *)(void *)memory;
        }
    }
    j->count = (size_t)n;
    if (r == 0 && !(*keep = PyTuple_Pack(2, tuple, room))) r = -1;
    if (r < 0 && !PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "pairs or partitions are wanted");
    Py_DECREF(tuple);
    Py_XDECREF(room);
    return r;
}

static PyObject *outcomes(const admin_job *j)
{
    size_t n = j->offsets ? j->count : 0;
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *error = PyLong_FromLong((long)j->offsets[i].error);
        if (!error || PyList_SetItem(list, (Py_ssize_t)i, error) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *result_of(admin_job *j)
{
    PyObject *errors = outcomes(j);
    if (!errors) return NULL;
    if (!j->job.error)
        return Py_BuildValue("(zLLLN)", j->json, (long long)j->out[0], (long long)j->out[1], (long long)j->out[2], errors);
    PyObject *exception = bwpy_make_error(j->job.error, j->job.message);
    if (exception && (!j->offsets || PyObject_SetAttrString(exception, "outcomes", errors) == 0))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    Py_DECREF(errors);
    return NULL;
}

/* _admin(operation, a, b, c, n0, n1, n2, n3, list): (json, out0, out1, out2, outcomes) */
PyObject *bwpy_admin(PyObject *self, PyObject *args)
{
    admin_job in;
    const char *operation;
    PyObject *list, *keep_list = NULL, *result = NULL;
    memset(&in, 0, sizeof in);
    if (!PyArg_ParseTuple(args, "szzzLLLLO", &operation, &in.a, &in.b, &in.c, &in.n[0], &in.n[1], &in.n[2], &in.n[3], &list)) return NULL;
    if (in.n[0] < INT32_MIN || in.n[0] > INT32_MAX) { /* the other numbers are offsets, or checked where they are made */
        PyErr_Format(PyExc_OverflowError, "out of range: %lld", in.n[0]);
        return NULL;
    }
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (strcmp(operation, operations[i].name) == 0) in.call = operations[i].call;
    if (!in.call) {
        PyErr_Format(PyExc_ValueError, "no operation %s", operation);
        return NULL;
    }
    if (get_list(list, &in, &keep_list) < 0) return NULL;
    bwpy_handle *h = (bwpy_handle *)self;
    in.bus = bwpy_enter(h);
    PyObject *keep = in.bus ? PyTuple_Pack(2, args, keep_list) : NULL;
    Py_DECREF(keep_list);
    admin_job *j = keep ? bwpy_job_new(sizeof *j, run_admin, keep, h->core) : NULL;
    Py_XDECREF(keep);
    if (j) {
        bwpy_job job = j->job;
        *j = in;
        j->job = job;
        j->job.drop = drop_admin;
        if (bwpy_run(&j->job) == 0) {
            result = result_of(j);
            bw_free(j->json);
            bwpy_job_free(&j->job);
        }
    }
    if (in.bus) bwpy_leave(h);
    return result;
}

/* ---- dead letters ---- */

typedef struct redriving {
    PyThreadState *saved;
    PyObject *progress;
    bool failed;
} redriving;

static bool on_moved(void *opaque, int64_t moved, int64_t skipped)
{
    redriving *r = opaque;
    bool go_on = true;
    PyEval_RestoreThread(r->saved);
    if (r->progress != Py_None) {
        PyObject *answer = PyObject_CallFunction(r->progress, "LL", (long long)moved, (long long)skipped);
        go_on = answer && (answer == Py_None || PyObject_IsTrue(answer) == 1);
        Py_XDECREF(answer);
    }
    if (PyErr_Occurred() || PyErr_CheckSignals() < 0) {
        r->failed = true; /* the exception stays with this thread */
        go_on = false;
    }
    r->saved = PyEval_SaveThread();
    return go_on;
}

/* _redrive(topic, max, progress): (moved, skipped) */
PyObject *bwpy_redrive(PyObject *self, PyObject *args)
{
    const char *topic;
    long long max;
    redriving r = {NULL, NULL, false};
    if (!PyArg_ParseTuple(args, "sLO", &topic, &max, &r.progress)) return NULL;
    bwpy_handle *h = (bwpy_handle *)self;
    bw_bus *bus = bwpy_enter(h);
    if (!bus) return NULL;
    int64_t moved = 0, skipped = 0;
    r.saved = PyEval_SaveThread();
    bw_err e = bw_queue_redrive(bus, topic, max, on_moved, &r, &moved, &skipped);
    PyEval_RestoreThread(r.saved);
    bwpy_leave(h);
    if (r.failed) return NULL;
    if (e) return bwpy_raise(e, NULL);
    return Py_BuildValue("(LL)", (long long)moved, (long long)skipped);
}
