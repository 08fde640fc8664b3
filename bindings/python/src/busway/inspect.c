/* inspect.c: looking into folders and files without a bus. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

enum { FINDINGS_MAX = 10000 };

typedef struct finding {
    struct finding *next;
    uint64_t position;
    int64_t offset;
    bool is_error;
    char *path, *message;
} finding;

typedef struct verify_job {
    bwpy_job job;
    const char *path;
    finding *first, **last;
    size_t count;
    bw_verify_totals totals;
} verify_job;

static void on_finding(void *opaque, const bw_finding *f)
{
    verify_job *j = opaque;
    if (j->count >= FINDINGS_MAX) return; /* the totals count on */
    finding *kept = calloc(1, sizeof *kept);
    if (!kept) return;
    kept->position = f->position;
    kept->offset = f->offset;
    kept->is_error = f->is_error;
    kept->path = strdup(f->path ? f->path : "");
    kept->message = strdup(f->message ? f->message : "");
    *j->last = kept;
    j->last = &kept->next;
    j->count++;
}

static void run_verify(bwpy_job *job)
{
    verify_job *j = (verify_job *)job;
    bwpy_note(job, bw_verify(j->path, on_finding, NULL, j, &j->totals));
}

static void drop_verify(bwpy_job *job)
{
    verify_job *j = (verify_job *)job;
    while (j->first) {
        finding *f = j->first;
        j->first = f->next;
        free(f->path);
        free(f->message);
        free(f);
    }
}

static PyObject *findings_list(const verify_job *j)
{
    PyObject *list = PyList_New(0);
    for (const finding *f = j->first; list && f; f = f->next) {
        PyObject *one = f->path && f->message ? Py_BuildValue("(sKLNs)", f->path, (unsigned long long)f->position, (long long)f->offset,
                                                              PyBool_FromLong(f->is_error), f->message) : PyErr_NoMemory();
        if (!one || PyList_Append(list, one) < 0) Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list;
}

/* _verify(path): (topics, partitions, segments, batches, records, bytes, errors, notes, findings) */
PyObject *bwpy_verify(PyObject *self, PyObject *args)
{
    (void)self;
    const char *path;
    if (!PyArg_ParseTuple(args, "s", &path)) return NULL;
    verify_job *j = bwpy_job_new(sizeof *j, run_verify, args, NULL);
    if (!j) return NULL;
    j->path = path;
    j->last = &j->first;
    j->job.drop = drop_verify;
    if (bwpy_run(&j->job) < 0) return NULL;
    PyObject *result = NULL, *list;
    const bw_verify_totals *t = &j->totals;
    if (j->job.error && !(j->job.error == BW_ERR_CORRUPT && t->errors > 0)) bwpy_raise(j->job.error, j->job.message);
    else if ((list = findings_list(j)))
        result = Py_BuildValue("(KKKKKKKKN)", (unsigned long long)t->topics, (unsigned long long)t->partitions,
                               (unsigned long long)t->segments, (unsigned long long)t->batches, (unsigned long long)t->records,
                               (unsigned long long)t->bytes, (unsigned long long)t->errors, (unsigned long long)t->notes, list);
    drop_verify(&j->job);
    bwpy_job_free(&j->job);
    return result;
}

typedef struct dumping {
    PyThreadState *saved;
    PyObject *callback;
    bool failed;
} dumping;

static PyObject *batch_dict(const bw_dump_batch *b)
{
    return Py_BuildValue("{s:K,s:I,s:L,s:L,s:i,s:i,s:i,s:i,s:i,s:L,s:L,s:L,s:i,s:i,s:I,s:N,s:N,s:N,s:i}", "position",
                         (unsigned long long)b->position, "size", (unsigned)b->size, "base_offset", (long long)b->base_offset,
                         "last_offset", (long long)b->last_offset, "count", (int)b->count, "leader_epoch", (int)b->leader_epoch,
                         "attributes", (int)b->attributes, "codec", (int)b->codec, "timestamp_type", (int)b->timestamp_type,
                         "base_timestamp_ms", (long long)b->base_timestamp_ms, "max_timestamp_ms", (long long)b->max_timestamp_ms,
                         "producer_id", (long long)b->producer_id, "producer_epoch", (int)b->producer_epoch, "base_sequence",
                         (int)b->base_sequence, "crc", (unsigned)b->crc, "crc_ok", PyBool_FromLong(b->crc_ok), "is_transactional",
                         PyBool_FromLong(b->is_transactional), "is_control", PyBool_FromLong(b->is_control), "marker", (int)b->marker);
}

static bool on_dump(void *opaque, const bw_dump_batch *batch, const bw_record_view *record)
{
    dumping *d = opaque;
    PyEval_RestoreThread(d->saved);
    PyObject *what = batch_dict(batch), *topic = PyUnicode_FromString(""), *r = Py_None, *answer = NULL;
    Py_INCREF(Py_None);
    if (what && topic && record) {
        Py_DECREF(Py_None);
        r = bwpy_record_make(bwpy_record_type, topic, -1, batch->leader_epoch, (int)batch->timestamp_type, record, NULL, NULL);
    }
    if (what && topic && r) answer = PyObject_CallFunctionObjArgs(d->callback, what, r, NULL);
    bool go_on = answer && (answer == Py_None || PyObject_IsTrue(answer) == 1);
    Py_XDECREF(answer);
    Py_XDECREF(what);
    Py_XDECREF(topic);
    Py_XDECREF(r);
    if (PyErr_Occurred() || PyErr_CheckSignals() < 0) {
        d->failed = true;
        go_on = false;
    }
    d->saved = PyEval_SaveThread();
    return go_on;
}

/* _dump(path, records, callback): callback(batch: dict, record or None); False ends it. */
PyObject *bwpy_dump(PyObject *self, PyObject *args)
{
    (void)self;
    const char *path;
    int records;
    dumping d = {NULL, NULL, false};
    if (!PyArg_ParseTuple(args, "spO", &path, &records, &d.callback)) return NULL;
    d.saved = PyEval_SaveThread();
    bw_err e = bw_dump(path, records, on_dump, &d);
    PyEval_RestoreThread(d.saved);
    if (d.failed) return NULL;
    if (e) return bwpy_raise(e, NULL);
    Py_RETURN_NONE;
}
