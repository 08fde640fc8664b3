/* broker/worker.c: a thread for the long file work of single requests, made when it is first needed. Jobs run in their order;
 * their outcome goes back to the broker thread as an event. */
#include "broker/core.h"

#include <stdio.h>

static bw_job *take(bw_broker *b)
{
    pthread_mutex_lock(&b->job_lock);
    while (!b->jobs && !b->worker_stop) pthread_cond_wait(&b->job_cond, &b->job_lock);
    bw_job *job = b->jobs;
    if (job) {
        b->jobs = job->next;
        if (!b->jobs) b->jobs_last = NULL;
    }
    pthread_mutex_unlock(&b->job_lock);
    return job;
}

static void *worker_main(void *broker)
{
    bw_broker *b = broker;
    bw_job *job;
    while ((job = take(b))) {
        job->run(b, job);
        job->event.kind = BW_EVENT_JOB_DONE;
        job->event.job = job;
        bw_broker_push(b, &job->event);
    }
    return NULL;
}

bw_err bw_worker_submit(bw_broker *b, bw_job *job)
{
    if (!b->worker_running) {
        bw_err e = bw_broker_start_thread(&b->worker_thread, worker_main, b);
        if (e) return e;
        b->worker_running = true;
    }
    job->next = NULL;
    pthread_mutex_lock(&b->job_lock);
    if (b->jobs_last) b->jobs_last->next = job;
    else b->jobs = job;
    b->jobs_last = job;
    pthread_cond_signal(&b->job_cond);
    pthread_mutex_unlock(&b->job_lock);
    return BW_OK;
}

/* Runs what is queued, then ends the thread. The outcomes are in the event queue. */
void bw_worker_stop(bw_broker *b)
{
    if (!b->worker_running) return;
    pthread_mutex_lock(&b->job_lock);
    b->worker_stop = true;
    pthread_cond_signal(&b->job_cond);
    pthread_mutex_unlock(&b->job_lock);
    pthread_join(b->worker_thread, NULL);
    b->worker_running = false;
}

void bw_job_set_error(bw_job *job, bw_err e)
{
    job->error = e;
    snprintf(job->message, sizeof job->message, "%s", e ? bw_error_message() : "");
}
