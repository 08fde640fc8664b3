/* work.c: waiting with an ear for signals, helper threads for calls that can't be cut into slices, the library's log, fork.
 *
 * Helper threads know nothing of Python: they run jobs, which are plain C memory. The main thread hands one over and waits for it in
 * slices; an interrupt abandons the job, whose `end` then runs in the helper. At most IDLE_MAX of them stay when there is nothing to do.
 *
 * The log callback may come from any thread at any time, also while the interpreter ends: it writes to a ring under a mutex of its own and
 * asks for a pending call; the ring is emptied with the GIL. What does not fit is counted and told. */
#include "_busway.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { IDLE_MAX = 4, RING = 128, TEXT = 400, STACK_BYTES = 512 << 10 };
enum { QUEUED = 0, RUNNING, DONE, ABANDONED };

unsigned bwpy_generation = 1;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_came = PTHREAD_COND_INITIALIZER, work_done; /* work_done: monotonic clock */
static bwpy_job *queue, *queue_tail;
static int idle, queued;
static unsigned long main_thread;

static struct { int level; char text[TEXT]; } ring[RING];
static unsigned ring_from, ring_count, ring_lost;
static bool ring_pending;
static pthread_mutex_t ring_mutex = PTHREAD_MUTEX_INITIALIZER;
static PyObject *log_handler;

/* ---- helper threads ---- */

void bwpy_note(bwpy_job *job, bw_err e)
{
    job->error = e;
    if (e) snprintf(job->message, sizeof job->message, "%s", bw_error_message());
}

static void *helper(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&mutex);
    for (;;) {
        while (!queue) {
            if (idle >= IDLE_MAX) {
                pthread_mutex_unlock(&mutex);
                return NULL;
            }
            idle++;
            pthread_cond_wait(&work_came, &mutex);
            idle--;
        }
        bwpy_job *job = queue;
        queue = job->next;
        queued--;
        job->state = RUNNING;
        pthread_mutex_unlock(&mutex);
        job->run(job);
        pthread_mutex_lock(&mutex);
        bool abandoned = job->state == ABANDONED;
        job->state = DONE;
        if (!abandoned) {
            pthread_cond_broadcast(&work_done);
            continue;
        }
        pthread_mutex_unlock(&mutex);
        job->end(job, true);
        pthread_mutex_lock(&mutex);
    }
}

/* Under the mutex. */
static int start_helper(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int r = pthread_create(&thread, &attributes, helper, NULL);
    pthread_attr_destroy(&attributes);
    return r;
}

bool bwpy_is_main(void) { return PyThread_get_thread_ident() == main_thread; }

/* false: no thread could be had. */
static bool hand_over(bwpy_job *job)
{
    job->state = QUEUED;
    job->next = NULL;
    pthread_mutex_lock(&mutex);
    if (queued >= idle && start_helper() != 0) {
        pthread_mutex_unlock(&mutex);
        return false;
    }
    if (queue) queue_tail->next = job;
    else queue = job;
    queue_tail = job;
    queued++;
    pthread_cond_signal(&work_came);
    pthread_mutex_unlock(&mutex);
    return true;
}

static void wait_slice(bwpy_job *job)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += BWPY_SLICE_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&mutex);
    while (job->state != DONE && pthread_cond_timedwait(&work_done, &mutex, &until) != ETIMEDOUT) {}
    pthread_mutex_unlock(&mutex);
}

/* true: it had been done. */
static bool abandon(bwpy_job *job)
{
    pthread_mutex_lock(&mutex);
    bool done = job->state == DONE;
    if (!done && job->state == QUEUED) { /* nobody has begun: take it out */
        bwpy_job **at = &queue;
        bwpy_job *before = NULL;
        while (*at && *at != job) {
            before = *at;
            at = &(*at)->next;
        }
        if (*at) {
            *at = job->next;
            if (queue_tail == job) queue_tail = before;
            queued--;
        }
        done = true;
    } else if (!done) {
        job->state = ABANDONED;
    }
    pthread_mutex_unlock(&mutex);
    return done;
}

int bwpy_run(bwpy_job *job)
{
    if (!bwpy_is_main() || !hand_over(job)) {
        Py_BEGIN_ALLOW_THREADS
        job->run(job);
        Py_END_ALLOW_THREADS
        return 0;
    }
    for (;;) {
        int state;
        Py_BEGIN_ALLOW_THREADS
        wait_slice(job);
        pthread_mutex_lock(&mutex);
        state = job->state;
        pthread_mutex_unlock(&mutex);
        Py_END_ALLOW_THREADS
        if (state == DONE) {
            bwpy_drain_log();
            return 0;
        }
        if (PyErr_CheckSignals() < 0) {
            if (abandon(job)) job->end(job, true);
            return -1;
        }
    }
}

/* ---- time ---- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int bwpy_deadline(PyObject *seconds, int64_t *deadline)
{
    *deadline = BWPY_FOREVER;
    if (!seconds || seconds == Py_None) return 0;
    double s = PyFloat_AsDouble(seconds);
    if (s == -1.0 && PyErr_Occurred()) return -1;
    if (s != s || s < 0) {
        PyErr_SetString(PyExc_ValueError, "a timeout is a number of seconds from 0, or None: for ever");
        return -1;
    }
    *deadline = s == 0 ? 0 : s > 1e9 ? BWPY_FOREVER : now_ms() + (int64_t)(s * 1000 + 0.999);
    return 0;
}

int32_t bwpy_slice(int64_t deadline)
{
    if (deadline == BWPY_FOREVER) return BWPY_SLICE_MS;
    if (deadline == 0) return 0;
    int64_t left = deadline - now_ms();
    return left <= 0 ? 0 : left > BWPY_SLICE_MS ? BWPY_SLICE_MS : (int32_t)left;
}

bool bwpy_over(int64_t deadline) { return deadline != BWPY_FOREVER && (deadline == 0 || now_ms() >= deadline); }

int32_t bwpy_left(int64_t deadline)
{
    if (deadline == BWPY_FOREVER) return -1;
    int64_t left = deadline ? deadline - now_ms() : 0;
    return left <= 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int32_t)left;
}

/* ---- the log ---- */

static int drain_later(void *unused)
{
    (void)unused;
    bwpy_drain_log();
    return 0;
}

void bwpy_log(void *opaque, bw_log_level level, const char *message)
{
    (void)opaque;
    pthread_mutex_lock(&ring_mutex);
    bool ask = !ring_pending && Py_IsInitialized();
    if (ring_count < RING) {
        unsigned at = (ring_from + ring_count++) % RING;
        ring[at].level = (int)level;
        snprintf(ring[at].text, TEXT, "%s", message);
    } else {
        ring_lost++;
    }
    if (ask) ring_pending = true;
    pthread_mutex_unlock(&ring_mutex);
    if (ask && Py_AddPendingCall(drain_later, NULL) != 0) { /* their queue is full: the next message, or call, tries again */
        pthread_mutex_lock(&ring_mutex);
        ring_pending = false;
        pthread_mutex_unlock(&ring_mutex);
    }
}

void bwpy_drain_log(void)
{
    static bool draining; /* guarded by the GIL */
    if (draining || (!ring_count && !ring_lost)) return;
    draining = true;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    for (;;) {
        char text[TEXT];
        int level = BW_LOG_WARN;
        pthread_mutex_lock(&ring_mutex);
        ring_pending = false;
        bool have = ring_count > 0 || ring_lost > 0;
        if (ring_count > 0) {
            level = ring[ring_from].level;
            memcpy(text, ring[ring_from].text, TEXT);
            ring_from = (ring_from + 1) % RING;
            ring_count--;
        } else if (ring_lost > 0) {
            snprintf(text, TEXT, "%u messages came too fast and are lost", ring_lost);
            ring_lost = 0;
        }
        pthread_mutex_unlock(&ring_mutex);
        if (!have) break;
        if (!log_handler) continue;
        PyObject *line = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
        PyObject *r = line ? PyObject_CallFunction(log_handler, "iO", level, line) : NULL;
        Py_XDECREF(line);
        if (r) Py_DECREF(r);
        else PyErr_WriteUnraisable(log_handler);
    }
    PyErr_Restore(type, value, trace);
    draining = false;
}

PyObject *bwpy_set_log(PyObject *self, PyObject *handler)
{
    (void)self;
    PyObject *old = log_handler;
    log_handler = handler == Py_None ? NULL : handler;
    Py_XINCREF(log_handler);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

/* ---- fork ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
    pthread_mutex_lock(&ring_mutex);
}

static void after_in_parent(void)
{
    pthread_mutex_unlock(&ring_mutex);
    pthread_mutex_unlock(&mutex);
}

/* The helpers are gone, and with them whatever they were at. */
static void after_in_child(void)
{
    pthread_condattr_t attributes;
    pthread_mutex_init(&mutex, NULL);
    pthread_mutex_init(&ring_mutex, NULL);
    pthread_cond_init(&work_came, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&work_done, &attributes);
    pthread_condattr_destroy(&attributes);
    queue = queue_tail = NULL;
    idle = queued = 0;
    ring_count = ring_lost = 0;
    ring_pending = false;
    bwpy_generation++;
    main_thread = PyThread_get_thread_ident();
}

int bwpy_work_init(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&work_done, &attributes);
    pthread_condattr_destroy(&attributes);
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *thread = threading ? PyObject_CallMethod(threading, "main_thread", NULL) : NULL;
    PyObject *ident = thread ? PyObject_GetAttrString(thread, "ident") : NULL;
    if (ident && ident != Py_None) main_thread = PyLong_AsUnsignedLong(ident);
    Py_XDECREF(ident);
    Py_XDECREF(thread);
    Py_XDECREF(threading);
    if (PyErr_Occurred()) return -1;
    if (pthread_atfork(before_fork, after_in_parent, after_in_child) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}
