/* producer_txn.c: transactions, and what a named producer knows of its last run. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

typedef enum txn_op { INIT, BEGIN, COMMIT, ABORT } txn_op;

static bw_err call(txn_op op, bw_producer *handle, int32_t timeout_ms)
{
    switch (op) {
    case INIT: return bw_transactions_init(handle, timeout_ms);
    case BEGIN: return bw_transaction_begin(handle);
    case COMMIT: return bw_transaction_commit(handle, timeout_ms);
    default: return bw_transaction_abort(handle, timeout_ms);
    }
}

/* All of these may be called again after TIMED_OUT: so they are, in slices. */
static PyObject *run_op(bwpy_producer *p, bw_producer *handle, txn_op op, int64_t deadline)
{
    bw_err e;
    for (;;) {
        int32_t slice = bwpy_slice(deadline);
        Py_BEGIN_ALLOW_THREADS
        e = call(op, handle, slice);
        Py_END_ALLOW_THREADS
        if (e != BW_ERR_TIMED_OUT) break;
        if (PyErr_CheckSignals() < 0) return NULL;
        if (bwpy_over(deadline)) break;
    }
    if (!e && op == ABORT) { /* what was aborted gets its callback now */
        Py_BEGIN_ALLOW_THREADS
        bw_producer_poll(handle, 0);
        Py_END_ALLOW_THREADS
    }
    PyObject *failed = e ? bwpy_make_error(e, NULL) : NULL;
    if (e && !failed) return NULL;
    int told = bwpy_delivered(p); /* a callback's own exception goes first */
    if (told >= 0 && failed) PyErr_SetObject((PyObject *)Py_TYPE(failed), failed);
    Py_XDECREF(failed);
    if (told < 0 || e) return NULL;
    if (op == ABORT || op == COMMIT) { /* what failed in it has been told by now: abort was the answer */
        pthread_mutex_lock(&p->outbox->mutex);
        p->outbox->failed = 0;
        pthread_mutex_unlock(&p->outbox->mutex);
    }
    Py_RETURN_NONE;
}

typedef struct offsets_job {
    bwpy_job job;
    bw_producer *producer;
    bw_group_metadata group;
    bw_topic_partition *parts;
    size_t count;
    int32_t timeout_ms;
} offsets_job;

static void run_offsets(bwpy_job *job)
{
    offsets_job *j = (offsets_job *)job;
    bwpy_note(job, bw_transaction_send_offsets(j->producer, &j->group, j->parts, j->count, j->timeout_ms));
}

/* group: (group_id, member_id, group_instance_id, member_epoch), as Consumer.group_metadata gives it. */
static PyObject *send_offsets(bwpy_producer *p, bw_producer *handle, PyObject *group, PyObject *offsets, int64_t deadline)
{
    bw_group_metadata g;
    int epoch;
    if (!PyTuple_Check(group) || !PyArg_ParseTuple(group, "sszi", &g.group_id, &g.member_id, &g.group_instance_id, &epoch)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a group's metadata is wanted: consumer.group_metadata()");
        return NULL;
    }
    g.member_epoch = epoch;
    bw_topic_partition *parts;
    size_t count;
    PyObject *keep_parts;
    if (bwpy_get_parts(offsets, &parts, &count, &keep_parts) < 0) return NULL;
    PyObject *room = PyBytes_FromStringAndSize((char *)parts, (Py_ssize_t)(count * sizeof *parts));
    PyObject *keep = room && keep_parts ? Py_BuildValue("(OOO)", group, keep_parts, room) : NULL;
    offsets_job *j = keep ? bwpy_job_new(sizeof *j, run_offsets, keep, p->base.core) : NULL;
    if (j) {
        j->producer = handle;
        j->group = g;
        j->parts = (bw_topic_partition *)(void *)PyBytes_AsString(room);
        j->count = count;
        j->timeout_ms = bwpy_left(deadline);
    }
    PyMem_Free(parts);
    Py_XDECREF(room);
    Py_XDECREF(keep_parts);
    Py_XDECREF(keep);
    if (!j || bwpy_run(&j->job) < 0) return NULL;
    bw_err e = j->job.error;
    if (e) bwpy_raise(e, j->job.message);
    bwpy_job_free(&j->job);
    if (e) return NULL;
    Py_RETURN_NONE;
}

/* _transaction(op, timeout, group, offsets): op "init", "begin", "commit", "abort", "offsets" */
PyObject *bwpy_transaction(PyObject *self, PyObject *args)
{
    static const char *const names[] = {"init", "begin", "commit", "abort"};
    bwpy_producer *p = (bwpy_producer *)self;
    const char *op;
    PyObject *timeout, *group, *offsets, *result = NULL;
    int64_t deadline;
    if (!PyArg_ParseTuple(args, "sOOO", &op, &timeout, &group, &offsets) || bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    if (!handle) return NULL;
    if (strcmp(op, "offsets") == 0) result = send_offsets(p, handle, group, offsets, deadline);
    else
        for (int i = 0; i < 4; i++)
            if (strcmp(op, names[i]) == 0) result = run_op(p, handle, (txn_op)i, deadline);
    bwpy_leave(&p->base);
    return result;
}

typedef struct last_job {
    bwpy_job job;
    bw_producer *producer;
    const char *topic;
    int32_t partition, sequence;
    int64_t offset;
} last_job;

static void run_last(bwpy_job *job)
{
    last_job *j = (last_job *)job;
    bwpy_note(job, bw_producer_last_sequence(j->producer, j->topic, j->partition, &j->sequence, &j->offset));
}

/* _last_sequence(topic, partition): (sequence, offset) */
PyObject *bwpy_last_sequence(PyObject *self, PyObject *args)
{
    bwpy_producer *p = (bwpy_producer *)self;
    const char *topic;
    int partition;
    if (!PyArg_ParseTuple(args, "si", &topic, &partition)) return NULL;
    bw_producer *handle = bwpy_enter(&p->base);
    if (!handle) return NULL;
    PyObject *result = NULL;
    last_job *j = bwpy_job_new(sizeof *j, run_last, args, p->base.core);
    if (j) {
        j->producer = handle;
        j->topic = topic;
        j->partition = partition;
        if (bwpy_run(&j->job) == 0) {
            if (j->job.error) bwpy_raise(j->job.error, j->job.message);
            else result = Py_BuildValue("(iL)", (int)j->sequence, (long long)j->offset);
            bwpy_job_free(&j->job);
        }
    }
    bwpy_leave(&p->base);
    return result;
}
