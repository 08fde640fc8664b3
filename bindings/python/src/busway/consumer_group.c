/* consumer_group.c: where a consumer reads, and what its group knows of it.
 *
 * What may ask the daemon goes through a helper when it is the main thread that waits, so that Ctrl-C ends it; callbacks that run inside a
 * commit are then called in the helper's thread, while the main thread waits. unsubscribe, bounded by two seconds, stays where it is. */
#include "_busway.h"

#include <stdlib.h>
#include <string.h>

/* ---- callbacks of the library: in a thread that polls, closes, … (c->saved is its state), or in the one that commits for it ---- */

typedef struct back {
    bool in_callback;
    PyGILState_STATE gil;
    unsigned long thread;
    bool helper;
} back;

static back to_python(bwpy_consumer *c)
{
    back b = {false, PyGILState_UNLOCKED, 0, c->saved == NULL};
    if (b.helper) b.gil = PyGILState_Ensure();
    else PyEval_RestoreThread(bwpy_saved(c));
    b.in_callback = c->in_callback;
    b.thread = c->base.thread;
    c->in_callback = true;
    c->base.thread = PyThread_get_thread_ident();
    return b;
}

static void from_python(bwpy_consumer *c, back b)
{
    c->in_callback = b.in_callback;
    c->base.thread = b.thread;
    if (b.helper) PyGILState_Release(b.gil);
    else c->saved = PyEval_SaveThread();
}

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
    back b = to_python(c);
    if (c->on_rebalance) call_python(c, c->on_rebalance, Py_BuildValue("(iN)", (int)event, bwpy_parts_list(parts, count)));
    from_python(c, b);
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
    back b = to_python(c);
    PyObject *failed = error ? bwpy_make_error(error, NULL) : (Py_INCREF(Py_None), Py_None);
    call_python(c, note->callback, failed ? Py_BuildValue("(NN)", failed, bwpy_parts_list(parts, count)) : NULL);
    Py_DECREF(note->callback);
    free(note);
    from_python(c, b);
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

typedef struct parts_job {
    bwpy_job job;
    parts_call call;
    bw_consumer *consumer;
    bw_topic_partition *parts;
    size_t count;
    int32_t timeout_ms;
} parts_job;

static void run_parts(bwpy_job *job)
{
    parts_job *j = (parts_job *)job;
    bwpy_note(job, j->call(j->consumer, j->parts, j->count, j->timeout_ms));
}

/* The list with each one's outcome; *error and message: the whole call's. parts is None for all that is assigned. */
static PyObject *call_parts(bwpy_consumer *c, bw_consumer *handle, PyObject *list, int64_t deadline, parts_call call, bw_err *error,
                            char message[512])
{
    bw_topic_partition *parts;
    size_t count;
    PyObject *keep_parts;
    if (bwpy_get_parts(list, &parts, &count, &keep_parts) < 0) return NULL;
    PyObject *room = PyBytes_FromStringAndSize((char *)parts, (Py_ssize_t)(count * sizeof *parts));
    PyObject *keep = room ? PyTuple_Pack(2, keep_parts ? keep_parts : Py_None, room) : NULL, *result = NULL;
    parts_job *j = keep ? bwpy_job_new(sizeof *j, run_parts, keep, c->base.core) : NULL;
    if (j) {
        j->call = call;
        j->consumer = handle;
        j->parts = parts ? (bw_topic_partition *)(void *)PyBytes_AsString(room) : NULL;
        j->count = count;
        j->timeout_ms = bwpy_left(deadline);
        int r = 0;
        if (c->in_callback) { /* the library is in this thread already */
            BWPY_CONSUMER_BEGIN(c);
            run_parts(&j->job);
            BWPY_CONSUMER_END(c);
        } else {
            r = bwpy_run(&j->job);
        }
        if (r == 0) {
            *error = j->job.error;
            strncpy(message, j->job.message, 511);
            result = bwpy_callback_error(c) < 0 ? NULL : bwpy_parts_list(j->parts, count);
            bwpy_job_free(&j->job);
        }
    }
    PyMem_Free(parts);
    Py_XDECREF(keep_parts);
    Py_XDECREF(room);
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
    char message[512] = "";
    if (what) result = call_parts(c, handle, what, deadline, bw_consumer_commit, &e, message);
    Py_XDECREF(what);
    bwpy_leave(&c->base);
    if (!result || !e) return result;
    PyObject *exception = bwpy_make_error(e, message);
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
    char message[512] = "";
    result = call_parts(c, handle, parts, deadline, bw_consumer_committed, &e, message);
    bwpy_leave(&c->base);
    if (!result || !e) return result;
    bool each = false; /* an error of one partition is in the list; one of the whole call is raised */
    for (Py_ssize_t i = 0; i < PyList_Size(result); i++)
        if (PyLong_AsLong(PyTuple_GetItem(PyList_GetItem(result, i), 5)) == (long)e) each = true;
    if (each) return result;
    Py_DECREF(result);
    return bwpy_raise(e, message);
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
