/* consumer_group.c: where a consumer reads, and what its group knows of it.
 *
 * Calls that libbusway runs callbacks in (commit, committed, subscribe's poll) stay in the calling thread, in slices; those that may ask
 * the daemon without callbacks (assign, seek by time) go through a helper when it is the main thread that waits. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

enum { COMMIT_SLICE_MS = 500 };

/* ---- callbacks of the library, inside BWPY_CONSUMER_BEGIN and END ---- */

static void call_python(bwpy_consumer *c, PyObject *callback, PyObject *args)
{
    PyObject *r = callback && args ? PyObject_CallObject(callback, args) : NULL;
    Py_XDECREF(args);
    if (!r && PyErr_Occurred()) {
        if (c->raised_type) PyErr_WriteUnraisable(callback); /* the first one is raised */
        else PyErr_Fetch(&c->raised_type, &c->raised, &c->raised_trace);
    }
    Py_XDECREF(r);
}

void bwpy_on_rebalance(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)consumer;
    bwpy_consumer *c = opaque;
    PyEval_RestoreThread(c->saved);
    bool before = c->in_callback;
    c->in_callback = true;
    if (c->on_rebalance) call_python(c, c->on_rebalance, Py_BuildValue("(iN)", (int)event, bwpy_parts_list(parts, count)));
    c->in_callback = before;
    c->saved = PyEval_SaveThread();
}

typedef struct commit_note {
    bwpy_consumer *consumer;
    PyObject *callback;
} commit_note;

static void on_commit(bw_consumer *consumer, bw_err error, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)consumer;
    commit_note *note = opaque;
    bwpy_consumer *c = note->consumer;
    PyEval_RestoreThread(c->saved);
    bool before = c->in_callback;
    c->in_callback = true;
    PyObject *failed = error ? bwpy_make_error(error, NULL) : (Py_INCREF(Py_None), Py_None);
    call_python(c, note->callback, failed ? Py_BuildValue("(NN)", failed, bwpy_parts_list(parts, count)) : NULL);
    Py_DECREF(note->callback);
    free(note);
    c->in_callback = before;
    c->saved = PyEval_SaveThread();
}

/* ---- places ---- */

typedef enum place_op { ASSIGN, UNASSIGN, SEEK, SEEK_TIME, POSITION, PAUSE, RESUME } place_op;

typedef struct place_job {
    bwpy_job job;
    place_op op;
    bw_consumer *consumer;
    const char *topic;
    int32_t partition;
    int64_t number;
} place_job;

static void run_place(bwpy_job *job)
{
    place_job *j = (place_job *)job;
    bw_err e = BW_OK;
    switch (j->op) {
    case ASSIGN: e = bw_consumer_assign(j->consumer, j->topic, j->partition, j->number); break;
    case UNASSIGN: e = bw_consumer_unassign(j->consumer, j->topic, j->partition); break;
    case SEEK: e = bw_consumer_seek(j->consumer, j->topic, j->partition, j->number); break;
    case SEEK_TIME: e = bw_consumer_seek_time(j->consumer, j->topic, j->partition, j->number); break;
    case POSITION: e = bw_consumer_position(j->consumer, j->topic, j->partition, &j->number); break;
    case PAUSE: e = bw_consumer_pause(j->consumer, j->topic, j->partition); break;
    case RESUME: e = bw_consumer_resume(j->consumer, j->topic, j->partition); break;
    }
    bwpy_note(job, e);
}

/* _place(op, topic, partition, number): op of place_op; the position. */
PyObject *bwpy_place(PyObject *self, PyObject *args)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    int op, partition;
    const char *topic;
    long long number;
    if (!PyArg_ParseTuple(args, "isiL", &op, &topic, &partition, &number)) return NULL;
    bw_consumer *handle = bwpy_enter(&c->base);
    if (!handle) return NULL;
    PyObject *result = NULL;
    int64_t given = bwpy_given_offset(c, topic, partition);
    bool keeps = op == POSITION || op == RESUME || (op == PAUSE && given < 0);
    if (op == POSITION && given >= 0) {
        result = PyLong_FromLongLong(given);
    } else if (keeps || c->in_callback || bwpy_retire(c, handle) == 0) {
        place_job *j = bwpy_job_new(sizeof *j, run_place, args, c->base.core);
        if (j) {
            j->op = (place_op)op;
            j->consumer = handle;
            j->topic = topic;
            j->partition = partition;
            j->number = number;
            int r = 0;
            if (c->in_callback || op == PAUSE || op == RESUME || op == UNASSIGN) run_place(&j->job); /* never wait */
            else r = bwpy_run(&j->job);
            if (r == 0) {
                if (j->job.error) bwpy_raise(j->job.error, j->job.message);
                else result = PyLong_FromLongLong(j->number);
                bwpy_job_free(&j->job);
            }
        }
    }
    bwpy_leave(&c->base);
    return result;
}

static PyObject *assigned(bwpy_consumer *c, bw_consumer *handle)
{
    bw_topic_partition *parts = NULL;
    size_t count = 0;
    bw_err e;
    BWPY_CONSUMER_BEGIN(c);
    e = bw_consumer_assignment(handle, &parts, &count);
    BWPY_CONSUMER_END(c);
    if (e) return bwpy_raise(e, NULL);
    for (size_t i = 0; i < count; i++) {
        int64_t given = bwpy_given_offset(c, parts[i].topic, parts[i].partition);
        if (given >= 0) parts[i].offset = given;
    }
    PyObject *list = bwpy_parts_list(parts, count);
    bw_free(parts);
    return list;
}

PyObject *bwpy_assignment(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_consumer *c = (bwpy_consumer *)self;
    bw_consumer *handle = bwpy_enter(&c->base);
    if (!handle) return NULL;
    PyObject *list = assigned(c, handle);
    bwpy_leave(&c->base);
    return list;
}

/* ---- subscriptions ---- */

PyObject *bwpy_subscribe(PyObject *self, PyObject *topics)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    PyObject *tuple = PySequence_Tuple(topics);
    if (!tuple) return NULL;
    Py_ssize_t n = PyTuple_Size(tuple);
    const char **names = PyMem_Calloc((size_t)n + 1, sizeof *names);
    bw_consumer *handle = NULL;
    int r = names ? 0 : -1;
    if (!names) PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < n && r == 0; i++)
        if (!(names[i] = bwpy_text(PyTuple_GetItem(tuple, i), "a topic"))) r = -1;
    if (r == 0 && !(handle = bwpy_enter(&c->base))) r = -1;
    if (r == 0 && !c->in_callback) r = bwpy_retire(c, handle);
    if (r == 0) {
        bw_err e;
        BWPY_CONSUMER_BEGIN(c);
        e = bw_consumer_subscribe(handle, names, (size_t)n);
        BWPY_CONSUMER_END(c);
        r = bwpy_callback_error(c);
        if (r == 0 && e) {
            bwpy_raise(e, NULL);
            r = -1;
        }
    }
    if (handle) bwpy_leave(&c->base);
    PyMem_Free(names);
    Py_DECREF(tuple);
    if (r < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *bwpy_unsubscribe(PyObject *self, PyObject *unused)
{
    (void)unused;
    bwpy_consumer *c = (bwpy_consumer *)self;
    bw_consumer *handle = bwpy_enter(&c->base);
    if (!handle) return NULL;
    int r = c->in_callback ? 0 : bwpy_retire(c, handle);
    if (r == 0) {
        bw_err e;
        BWPY_CONSUMER_BEGIN(c);
        e = bw_consumer_unsubscribe(handle);
        BWPY_CONSUMER_END(c);
        r = bwpy_callback_error(c);
        if (r == 0 && e) {
            bwpy_raise(e, NULL);
            r = -1;
        }
    }
    bwpy_leave(&c->base);
    if (r < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *bwpy_subscription(PyObject *self, PyObject *unused)
{
    (void)unused;
    bw_consumer *handle = bwpy_enter((bwpy_handle *)self);
    if (!handle) return NULL;
    const char **topics = NULL;
    size_t count = 0;
    bw_err e = bw_consumer_subscription(handle, &topics, &count);
    bwpy_leave((bwpy_handle *)self);
    if (e) return bwpy_raise(e, NULL);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *text = PyUnicode_FromString(topics[i]);
        if (!text || PyList_SetItem(list, (Py_ssize_t)i, text) < 0) Py_CLEAR(list);
    }
    bw_free(topics);
    return list;
}

/* (group_id, member_id, group_instance_id or None, member_epoch) */
PyObject *bwpy_group_metadata(PyObject *self, PyObject *unused)
{
    (void)unused;
    bw_consumer *handle = bwpy_enter((bwpy_handle *)self);
    if (!handle) return NULL;
    bw_group_metadata g;
    bw_err e = bw_consumer_group_metadata(handle, &g);
    PyObject *result = e ? bwpy_raise(e, NULL) : Py_BuildValue("(sszi)", g.group_id, g.member_id, g.group_instance_id, (int)g.member_epoch);
    bwpy_leave((bwpy_handle *)self);
    return result;
}

/* ---- committing ---- */

/* What "the positions" means while a batch is being given record by record: an assignment with them. */
static PyObject *positions(bwpy_consumer *c, bw_consumer *handle, PyObject *offsets)
{
    Py_INCREF(offsets);
    if (offsets != Py_None || c->at >= c->count || c->state_txn) return offsets;
    Py_DECREF(offsets);
    PyObject *list = assigned(c, handle), *known = list ? PyList_New(0) : NULL;
    for (Py_ssize_t i = 0; known && i < PyList_Size(list); i++) {
        PyObject *one = PyList_GetItem(list, i), *five = PySequence_GetSlice(one, 0, 5);
        if (!five || (PyLong_AsLongLong(PyTuple_GetItem(five, 2)) >= 0 && PyList_Append(known, five) < 0)) Py_CLEAR(known);
        Py_XDECREF(five);
    }
    Py_XDECREF(list);
    return known;
}

typedef bw_err (*parts_call)(bw_consumer *consumer, bw_topic_partition *parts, size_t count, int32_t timeout_ms);

/* The call, again and again until it is not TIMED_OUT (to commit the same offsets twice does no harm). The list with each one's outcome;
 * the whole call's error goes to *error. */
static PyObject *in_slices(bwpy_consumer *c, bw_consumer *handle, PyObject *list, int64_t deadline, parts_call call, bw_err *error)
{
    bw_topic_partition *parts;
    size_t count;
    PyObject *keep;
    if (bwpy_get_parts(list, &parts, &count, &keep) < 0) return NULL;
    PyObject *result = NULL;
    for (;;) {
        int32_t left = bwpy_left(deadline);
        if (bwpy_is_main() && (left < 0 || left > COMMIT_SLICE_MS)) left = COMMIT_SLICE_MS;
        BWPY_CONSUMER_BEGIN(c);
        *error = call(handle, parts, count, left);
        BWPY_CONSUMER_END(c);
        if (bwpy_callback_error(c) < 0 || PyErr_CheckSignals() < 0) break;
        if (*error == BW_ERR_TIMED_OUT && !bwpy_over(deadline)) continue;
        result = bwpy_parts_list(parts, count);
        break;
    }
    PyMem_Free(parts);
    Py_XDECREF(keep);
    return result;
}

/* _commit(offsets or None, timeout): the list with the outcomes. When all failed as a whole the exception has it as `partitions`. */
PyObject *bwpy_commit(PyObject *self, PyObject *args)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    PyObject *offsets, *timeout, *result = NULL;
    int64_t deadline;
    if (!PyArg_ParseTuple(args, "OO", &offsets, &timeout) || bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_consumer *handle = bwpy_enter(&c->base);
    if (!handle) return NULL;
    PyObject *what = positions(c, handle, offsets);
    bw_err e = BW_OK;
    if (what) result = in_slices(c, handle, what, deadline, bw_consumer_commit, &e);
    Py_XDECREF(what);
    bwpy_leave(&c->base);
    if (!result || !e) return result;
    PyObject *exception = bwpy_make_error(e, NULL);
    if (exception && PyObject_SetAttrString(exception, "partitions", result) == 0) PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    Py_DECREF(result);
    return NULL;
}

/* _committed(partitions, timeout): the list with what is committed. */
PyObject *bwpy_committed(PyObject *self, PyObject *args)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    PyObject *parts, *timeout, *result;
    int64_t deadline;
    bw_err e = BW_OK;
    if (!PyArg_ParseTuple(args, "OO", &parts, &timeout) || bwpy_deadline(timeout, &deadline) < 0) return NULL;
    bw_consumer *handle = bwpy_enter(&c->base);
    if (!handle) return NULL;
    result = in_slices(c, handle, parts, deadline, bw_consumer_committed, &e);
    bwpy_leave(&c->base);
    if (!result || !e) return result;
    bool each = false; /* an error of one partition is in the list; one of the whole call is raised */
    for (Py_ssize_t i = 0; i < PyList_Size(result); i++)
        if (PyLong_AsLong(PyTuple_GetItem(PyList_GetItem(result, i), 5)) == (long)e) each = true;
    if (each) return result;
    Py_DECREF(result);
    return bwpy_raise(e, NULL);
}

/* _commit_async(offsets or None, callback or None) */
PyObject *bwpy_commit_async(PyObject *self, PyObject *args)
{
    bwpy_consumer *c = (bwpy_consumer *)self;
    PyObject *offsets, *callback, *keep, *what;
    if (!PyArg_ParseTuple(args, "OO", &offsets, &callback)) return NULL;
    bw_consumer *handle = bwpy_enter(&c->base);
    if (!handle) return NULL;
    bw_topic_partition *parts;
    size_t count;
    int r = -1;
    what = positions(c, handle, offsets);
    if (what && bwpy_get_parts(what, &parts, &count, &keep) == 0) {
        commit_note *note = callback != Py_None ? malloc(sizeof *note) : NULL;
        if (note) {
            note->consumer = c;
            note->callback = callback;
            Py_INCREF(callback);
        }
        bw_err e;
        BWPY_CONSUMER_BEGIN(c);
        e = bw_consumer_commit_async(handle, parts, count, note ? on_commit : NULL, note);
        BWPY_CONSUMER_END(c);
        if (e && note) {
            Py_DECREF(callback);
            free(note);
        }
        r = e ? -1 : 0;
        if (e) bwpy_raise(e, NULL);
        PyMem_Free(parts);
        Py_XDECREF(keep);
    }
    Py_XDECREF(what);
    bwpy_leave(&c->base);
    if (r < 0) return NULL;
    Py_RETURN_NONE;
}
