/* broker/auth.c: proving to be a user, and making users; see users.h.
 *
 * A password is compared, or hashed, by the thread here; the op is held meanwhile, and the outcome comes back as an event. Whoever fails is told
 * so and closed: a guess costs a connection. */
#include "broker/users.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>

enum { WAITING_MAX = 64 };

struct bw_auth {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bw_job *first, **last;
    size_t waiting;
    bool stop;
};

/* What a job of ours carries. */
typedef struct knock {
    bw_job job; /* first */
    bw_user user;
    bool same;
    char secret[BW_USER_SECRET_MAX + 1];
} knock;

static void *auth_main(void *broker)
{
    bw_broker *b = broker;
    struct bw_auth *a = b->auth;
    for (;;) {
        pthread_mutex_lock(&a->lock);
        while (!a->first && !a->stop) pthread_cond_wait(&a->changed, &a->lock);
        bw_job *job = a->first;
        if (job && !(a->first = job->next)) a->last = &a->first;
        if (job) a->waiting--;
        pthread_mutex_unlock(&a->lock);
        if (!job) return NULL;
        job->run(b, job);
        job->event.kind = BW_EVENT_JOB_DONE;
        job->event.job = job;
        bw_broker_push(b, &job->event);
    }
}

static bw_err make_thread(bw_broker *b)
{
    if (b->auth) return BW_OK;
    struct bw_auth *a = calloc(1, sizeof *a);
    if (!a) return bw_fail(BW_ERR_NO_MEMORY, "no memory to check passwords");
    a->last = &a->first;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    b->auth = a;
    bw_err e = bw_broker_start_thread(&a->thread, auth_main, b);
    if (!e) return BW_OK;
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
    b->auth = NULL;
    return e;
}

static bw_err submit(bw_broker *b, bw_job *job)
{
    bw_err e = make_thread(b);
    if (e) return e;
    struct bw_auth *a = b->auth;
    pthread_mutex_lock(&a->lock);
    bool full = a->waiting >= WAITING_MAX;
    if (!full) {
        job->next = NULL;
        *a->last = job;
        a->last = &job->next;
        a->waiting++;
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return full ? bw_fail(BW_ERR_LIMIT_REACHED, "too many are proving who they are; try again in a moment") : BW_OK;
}

void bw_auth_stop(bw_broker *b)
{
    struct bw_auth *a = b->auth;
    if (!a) return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
    b->auth = NULL;
}

static void knock_free(knock *k)
{
    explicit_bzero(k->secret, sizeof k->secret);
    free(k);
}

/* ---- AUTHENTICATE ---- */

static void answer(bw_broker *b, bw_op *op, const bw_user *u)
{
    bw_session *s = op->session;
    char peer[300], name[300];
    if (u) {
        s->role = u->role;
        snprintf(s->user, sizeof s->user, "%s", u->name);
        bw_broker_event(b, BW_LOG_DEBUG, "authenticated", "session=%llu user=%s", (unsigned long long)s->number, u->name);
        bw_op_ok(op);
        return;
    }
    bw_str given = op->request.user.name;
    snprintf(name, sizeof name, "%.*s", (int)(given.len < 64 ? given.len : 64), given.len ? given.data : "");
    char shown[400];
    bw_broker_event(b, BW_LOG_WARN, "authentication-failed", "peer=%s user=%s", bw_event_text(s->peer.address, peer, sizeof peer),
                    bw_event_text(*name ? name : "(token)", shown, sizeof shown));
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.error = BW_ERR_AUTHENTICATION_FAILED;
    a.message = bw_str_of(*name ? "the user is not known here, or the password is wrong"
                                : "the token is not known here; an administrator makes one by `busway token add`");
    a.flags |= BW_FRAME_CLOSING;
    bw_op_finish(op, &a);
}

static void compare(bw_broker *b, bw_job *job)
{
    knock *k = (knock *)job;
    (void)b;
    k->same = bw_secret_is_password(k->secret, k->user.hash);
}

static void compared(bw_broker *b, bw_job *job)
{
    knock *k = (knock *)job;
    job->op->session->proving = false;
    const bw_user *u = k->same ? bw_users_find(b, k->user.name, strlen(k->user.name)) : NULL;
    if (u && strcmp(u->hash, k->user.hash) != 0) u = NULL; /* changed meanwhile */
    answer(b, job->op, u);
    knock_free(k);
}

/* NAME.64 hex digits */
static const bw_user *token_user(const bw_broker *b, bw_str token)
{
    enum { DIGITS = 64 };
    if (token.len < DIGITS + 2 || token.len >= BW_TOKEN_MAX || token.data[token.len - DIGITS - 1] != '.') return NULL;
    char hash[BW_USER_HASH_MAX];
    const bw_user *u = bw_users_find(b, token.data, token.len - DIGITS - 1);
    bw_secret_hash_token(token.data, token.len, hash);
    return u && u->kind == BW_USER_TOKEN && bw_secret_equal(hash, u->hash) ? u : NULL;
}

static knock *knock_new(bw_op *op, bw_str secret)
{
    knock *k = calloc(1, sizeof *k);
    if (!k) {
        bw_fail(BW_ERR_NO_MEMORY, "no memory to check a password");
        return NULL;
    }
    k->job.op = op;
    memcpy(k->secret, secret.len ? secret.data : "", secret.len);
    return k;
}

void bw_handle_authenticate(bw_broker *b, bw_op *op)
{
    bw_user_request *r = &op->request.user;
    if (!op->session->peer.remote) { /* who that is the kernel says */
        bw_op_ok(op);
        return;
    }
    if (op->session->proving) {
        bw_op_fail(op, bw_fail(BW_ERR_PROTOCOL, "an AUTHENTICATE of this connection has not been answered yet"));
        return;
    }
    if (r->name.len == 0) {
        answer(b, op, token_user(b, r->secret));
        return;
    }
    if (r->secret.len > BW_USER_SECRET_MAX || r->name.len > BW_USER_NAME_MAX || memchr(r->secret.len ? r->secret.data : "x", 0, r->secret.len)) {
        answer(b, op, NULL);
        return;
    }
    knock *k = knock_new(op, r->secret);
    const bw_user *u = bw_users_find(b, r->name.data, r->name.len);
    if (k && u && u->kind == BW_USER_PASSWORD) k->user = *u;
    if (k) {
        k->job.run = compare;
        k->job.done = compared;
    }
    bw_err e = k ? submit(b, &k->job) : BW_ERR_NO_MEMORY;
    op->session->proving = !e;
    if (!e) return;
    if (k) knock_free(k);
    bw_op_fail(op, e);
}

/* ---- users ---- */

static bw_err read_user(const bw_user_request *r, bw_user *out)
{
    *out = (bw_user){.kind = (bw_user_kind)r->kind, .created_ms = bw_clock_wall_ms()};
    bool good = r->name.len > 0 && r->name.len <= BW_USER_NAME_MAX;
    for (size_t i = 0; good && i < r->name.len; i++) {
        char c = r->name.data[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-@", c);
        good = good && c;
    }
    if (!good) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a user's name has 1 to %d of: letters, digits, '.', '_', '-', '@'", BW_USER_NAME_MAX);
    memcpy(out->name, r->name.data, r->name.len);
    int role = bw_role_of_name(r->role.len ? r->role.data : "", r->role.len);
    if (role < 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a role is none, reader, client or admin");
    out->role = (bw_role)role;
    if (r->kind < BW_USER_PASSWORD || r->kind > BW_USER_CERTIFICATE) return bw_fail(BW_ERR_INVALID_ARGUMENT, "user kind %d is not known", r->kind);
    if (r->secret.len > BW_USER_SECRET_MAX || memchr(r->secret.len ? r->secret.data : "x", 0, r->secret.len))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a password is a text of at most %d bytes", BW_USER_SECRET_MAX);
    if (r->kind == BW_USER_PASSWORD && r->secret.len < 8) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a password has at least 8 bytes");
    if (r->kind == BW_USER_TOKEN && (r->secret.len < 66 || r->secret.len >= BW_TOKEN_MAX))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "this is no token");
    return BW_OK;
}

static void keep(bw_broker *b, bw_job *job)
{
    knock *k = (knock *)job;
    bw_err e = k->user.kind == BW_USER_PASSWORD ? bw_secret_hash_password(k->secret, k->user.hash) : BW_OK;
    if (k->user.kind == BW_USER_TOKEN) bw_secret_hash_token(k->secret, strlen(k->secret), k->user.hash);
    if (!e) e = bw_user_store(b, &k->user, job->in);
    bw_job_set_error(job, e);
}

static void kept(bw_broker *b, bw_job *job)
{
    knock *k = (knock *)job;
    bw_err e = job->error ? bw_error_set_message(job->error, job->message) : bw_users_apply(b, &k->user, job->in);
    if (!e) bw_broker_event(b, BW_LOG_INFO, job->in ? "user-removed" : "user-set", "user=%s role=%s", k->user.name, bw_role_name(k->user.role));
    if (e) bw_op_fail(job->op, e);
    else bw_op_ok(job->op);
    knock_free(k);
}

static void change(bw_broker *b, bw_op *op, const bw_user *u, bool remove)
{
    knock *k = knock_new(op, remove ? (bw_str){NULL, 0} : op->request.user.secret);
    bw_err e = k ? BW_OK : BW_ERR_NO_MEMORY;
    if (k) {
        k->user = *u;
        k->job.in = remove;
        k->job.run = keep;
        k->job.done = kept;
        e = submit(b, &k->job);
    }
    if (!e) return;
    if (k) knock_free(k);
    bw_op_fail(op, e);
}

void bw_handle_set_user(bw_broker *b, bw_op *op)
{
    bw_user u;
    bw_err e = read_user(&op->request.user, &u);
    if (!e && b->user_count >= BW_USERS_MAX && !bw_users_find(b, u.name, strlen(u.name)))
        e = bw_fail(BW_ERR_LIMIT_REACHED, "there are %u users; remove some first", BW_USERS_MAX);
    if (e) bw_op_fail(op, e);
    else change(b, op, &u, false);
}

void bw_handle_remove_user(bw_broker *b, bw_op *op)
{
    bw_str name = op->request.user.name;
    const bw_user *u = bw_users_find(b, name.len ? name.data : "", name.len);
    if (u) {
        bw_user gone = *u;
        gone.kind = BW_USER_CERTIFICATE; /* nothing is to be hashed */
        change(b, op, &gone, true);
    } else {
        bw_op_fail(op, bw_fail(BW_ERR_NOT_FOUND, "there is no user '%.*s'", (int)(name.len < 64 ? name.len : 64), name.len ? name.data : ""));
    }
}
