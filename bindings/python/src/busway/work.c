/* work.c: waiting with an ear for signals: time-outs in slices, helper threads for calls that can't be cut into slices; fork.
 *
 * Helper threads know nothing of Python: they run jobs, which are plain C memory but for `keep`. The main thread hands one over and waits
 * for it in slices; an interrupt abandons the job, whose `drop` then runs in the helper; it and what it keeps are freed by the next
 * one that holds the GIL (the grave). At most IDLE_MAX helpers stay when there is nothing to do. */
#include "_busway.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { IDLE_MAX = 4, STACK_BYTES = 512 << 10 };
enum { QUEUED = 0, RUNNING, DONE, ABANDONED };

unsigned bwpy_generation = 1;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the next three lines and the jobs' states */
static pthread_cond_t work_came = PTHREAD_COND_INITIALIZER, work_done; /* work_done: monotonic clock */
static bwpy_job *queue, *queue_tail, *grave;
static int idle, queued;
static unsigned long main_thread;

void bwpy_note(bwpy_job *job, bw_err e)
{
    job->error = e;
    if (e) snprintf(job->message, sizeof job->message, "%s", bw_error_message());
}

void *bwpy_job_new(size_t size, void (*run)(bwpy_job *), PyObject *keep, bwpy_core *core)
{
    bwpy_job *job = calloc(1, size);
    if (!job) return PyErr_NoMemory();
    job->run = run;
    job->keep = keep;
    Py_XINCREF(keep);
    job->core = core;
    if (core) {
        atomic_fetch_add(&core->refs, 1);
        atomic_fetch_add(&core->inside, 1);
    }
    return job;
}

void bwpy_core_unref(bwpy_core *core)
{
    if (atomic_fetch_sub(&core->refs, 1) == 1) free(core);
}

static void out_of_core(bwpy_job *job)
{
    if (!job->core) return;
    atomic_fetch_sub(&job->core->inside, 1);
    bwpy_core_unref(job->core);
    job->core = NULL;
}

void bwpy_job_free(bwpy_job *job)
{
    out_of_core(job);
    Py_XDECREF(job->keep);
    free(job);
}

static void bury(void)
{
    if (!grave) return;
    pthread_mutex_lock(&mutex);
    bwpy_job *all = grave;
    grave = NULL;
    pthread_mutex_unlock(&mutex);
    while (all) {
        bwpy_job *job = all;
        all = job->next;
        bwpy_job_free(job);
    }
}

/* ---- helper threads ---- */

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
        if (job->drop) job->drop(job);
        out_of_core(job);
        pthread_mutex_lock(&mutex);
        job->next = grave;
        grave = job;
    }
}

/* Under the mutex. Signals are the main thread's. */
static int start_helper(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&thread, &attributes, helper, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
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

static bool wait_slice(bwpy_job *job)
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
    bool done = job->state == DONE;
    pthread_mutex_unlock(&mutex);
    return done;
}

/* true: it is the caller's again: it was done, or nobody had begun. */
static bool abandon(bwpy_job *job)
{
    pthread_mutex_lock(&mutex);
    bool mine = job->state == DONE;
    if (!mine && job->state == QUEUED) {
        bwpy_job **at = &queue, *before = NULL;
        while (*at && *at != job) {
            before = *at;
            at = &(*at)->next;
        }
        if (*at) {
            *at = job->next;
            if (queue_tail == job) queue_tail = before;
            queued--;
        }
        job->error = BW_ERR_WOKEN; /* it never ran: there is no result to drop */
        mine = true;
    } else if (!mine) {
        job->state = ABANDONED;
    }
    pthread_mutex_unlock(&mutex);
    return mine;
}

int bwpy_run(bwpy_job *job)
{
    bury();
    if (!bwpy_is_main() || !hand_over(job)) {
        Py_BEGIN_ALLOW_THREADS
        job->run(job);
        Py_END_ALLOW_THREADS
        bwpy_drain_log();
        return 0;
    }
    for (;;) {
        bool done;
        Py_BEGIN_ALLOW_THREADS
        done = wait_slice(job);
        Py_END_ALLOW_THREADS
        if (done) {
            bwpy_drain_log();
            return 0;
        }
        if (PyErr_CheckSignals() < 0) {
            if (abandon(job)) {
                if (job->state == DONE && job->drop) job->drop(job);
                bwpy_job_free(job);
            }
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

int64_t bwpy_deadline_after(int64_t ms) { return now_ms() + ms; }

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

void bwpy_pause(void)
{
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    Py_END_ALLOW_THREADS
}

/* ---- fork ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
    bwpy_log_fork_lock();
}

static void after_in_parent(void)
{
    bwpy_log_fork_unlock(false);
    pthread_mutex_unlock(&mutex);
}

static void init_conditions(void)
{
    pthread_condattr_t attributes;
    pthread_cond_init(&work_came, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&work_done, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* The helpers are gone, and with them whatever they were at. */
static void after_in_child(void)
{
    bwpy_log_fork_unlock(true);
    pthread_mutex_init(&mutex, NULL);
    init_conditions();
    queue = queue_tail = grave = NULL;
    idle = queued = 0;
    bwpy_generation++;
    main_thread = PyThread_get_thread_ident();
}

int bwpy_work_init(void)
{
    init_conditions();
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
