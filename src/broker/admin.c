/* broker/admin.c: who may do what, and which function answers which request. */
#include "broker/groups.h"
#include "broker/links.h"
#include "broker/offsets.h"
#include "broker/txn.h"
#include "broker/quota_admit.h"
#include "broker/users.h"
#include "broker/replica.h"

#include "base/os.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Is gid among the supplementary groups of the peer's process? The kernel's list, not the name service, which may block. */
static bool process_has_group(pid_t pid, int64_t gid)
{
    char path[64], text[16384];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    int fd = pid > 0 ? bw_os_open(AT_FDCWD, path, O_RDONLY, 0) : -1;
    if (fd < 0) return false;
    ssize_t n = bw_os_pread(fd, text, sizeof text - 1, 0);
    bw_os_close(fd);
    if (n <= 0) return false;
    text[n] = 0;
    char *at = strstr(text, "\nGroups:");
    if (!at) return false;
    at += 8;
    char *line_end = strchr(at, '\n');
    if (line_end) *line_end = 0;
    while (*at) {
        char *end;
        long long g = strtoll(at, &end, 10);
        if (end == at) break;
        if (g == gid) return true;
        at = end;
    }
    return false;
}

static const char *const role_names[] = {"none", "reader", "client", "admin"};

const char *bw_role_name(bw_role role) { return role_names[role]; }

int bw_role_of_name(const char *name, size_t len)
{
    for (int i = 0; i < 4; i++)
        if (strlen(role_names[i]) == len && !memcmp(role_names[i], name, len)) return i;
    return -1;
}

bw_role bw_broker_role_of(bw_broker *b, const bw_peer *peer)
{
    const bw_user *user = peer->remote && *peer->subject ? bw_users_find(b, peer->subject, strlen(peer->subject)) : NULL;
    if (user && user->kind == BW_USER_CERTIFICATE) return user->role;
    if (peer->remote) return (bw_role)bw_role_of_name(b->config.anonymous_role, strlen(b->config.anonymous_role));
    if (peer->uid < 0) return BW_ROLE_NONE;
    if (peer->uid == 0 || (uint64_t)peer->uid == b->uid) return BW_ROLE_ADMIN;
    if (b->socket_gid < 0) return BW_ROLE_NONE;
    return peer->gid == b->socket_gid || process_has_group(peer->pid, b->socket_gid) ? BW_ROLE_CLIENT : BW_ROLE_NONE;
}

/* ---- small requests ---- */

static void handle_hello(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_session *s = op->session;
    bw_answer a;
    bw_answer_init(&a, r);
    a.version_min = BW_PROTOCOL_VERSION_MIN;
    a.version_max = BW_PROTOCOL_VERSION;
    if (r->version_min > BW_PROTOCOL_VERSION || r->version_max < BW_PROTOCOL_VERSION_MIN) {
        a.error = bw_fail(BW_ERR_UNSUPPORTED_VERSION, "the client speaks protocol versions %d to %d, this daemon %d to %d; update the older one",
                          r->version_min, r->version_max, BW_PROTOCOL_VERSION_MIN, BW_PROTOCOL_VERSION);
        a.message = bw_str_of(bw_error_message());
        bw_op_finish(op, &a);
        return;
    }
    size_t n = r->client_id.len < sizeof s->client_id ? r->client_id.len : sizeof s->client_id - 1;
    if (n) memcpy(s->client_id, r->client_id.data, n);
    s->client_id[n] = 0;
    bw_quota_introduced(s);
    a.version = r->version_max < BW_PROTOCOL_VERSION ? r->version_max : BW_PROTOCOL_VERSION;
    a.server_version = bw_str_of(BW_VERSION_STRING);
    if (!s->peer.remote) { /* where files lie is nobody's business elsewhere */
        a.data_dir = bw_str_of(b->dir->path);
        a.arena_dir = b->ready && !b->no_direct[0] ? bw_str_of(b->arena_path) : bw_str_of("");
    }
    memcpy(a.generation, b->dir->generation, 16);
    a.server_pid = getpid();
    a.server_uid = b->uid;
    a.frame_max = b->config.socket_request_max_bytes;
    bw_op_finish(op, &a);
}

static void copy_text(char *out, size_t size, bw_str text)
{
    size_t n = text.len < size ? text.len : size - 1;
    if (n) memcpy(out, text.data, n);
    out[n] = 0;
}

static void handle_report(bw_broker *b, bw_op *op)
{
    (void)b;
    bw_session *s = op->session;
    copy_text(s->transport, sizeof s->transport, op->request.transport);
    copy_text(s->reason, sizeof s->reason, op->request.reason);
    bw_op_finish(op, NULL);
}

static void handle_ping(bw_broker *b, bw_op *op)
{
    (void)b;
    bw_op_ok(op);
}

/* The answer goes out before anything ends: the listener lets what is under way finish. */
static void handle_handover(bw_broker *b, bw_op *op)
{
    if (!b->config.is_private || !b->config.handover) {
        bw_op_fail(op, bw_fail(BW_ERR_ALREADY_RUNNING, "data directory %s is served by the daemon with pid %d, which was started by itself; stop it "
                               "first", b->dir->path, (int)getpid()));
        return;
    }
    bw_broker_event(b, BW_LOG_INFO, "handover", "to=\"%s\"", op->session->peer.address);
    bw_op_ok(op);
    b->config.handover(b->config.handover_opaque);
}

/* ---- dispatch ---- */

typedef struct api {
    void (*handle)(bw_broker *b, bw_op *op);
    bw_role role;
    bool needs_data; /* refused while the control data cannot be made */
} api;

static const api apis[BW_API_KEY_COUNT] = {
    [BW_API_HELLO] = {handle_hello, BW_ROLE_CLIENT, false},
    [BW_API_METADATA] = {bw_handle_metadata, BW_ROLE_READER, false},
    [BW_API_CREATE_TOPIC] = {bw_handle_create_topic, BW_ROLE_ADMIN, true},
    [BW_API_DELETE_TOPIC] = {bw_handle_delete_topic, BW_ROLE_ADMIN, true},
    [BW_API_ALTER_TOPIC] = {bw_handle_alter_topic, BW_ROLE_ADMIN, true},
    [BW_API_DESCRIBE_TOPICS] = {bw_handle_describe, BW_ROLE_READER, true},
    [BW_API_PRODUCE] = {bw_handle_produce, BW_ROLE_CLIENT, true},
    [BW_API_FETCH] = {bw_handle_fetch, BW_ROLE_READER, true},
    [BW_API_SUBSCRIBE] = {bw_handle_subscribe, BW_ROLE_READER, true},
    [BW_API_CREDIT] = {bw_handle_credit, BW_ROLE_READER, true},
    [BW_API_UNSUBSCRIBE] = {bw_handle_unsubscribe, BW_ROLE_READER, true},
    [BW_API_LIST_OFFSETS] = {bw_handle_list_offsets, BW_ROLE_READER, true},
    [BW_API_DELETE_RECORDS] = {bw_handle_delete_records, BW_ROLE_ADMIN, true},
    [BW_API_INIT_PRODUCER_ID] = {bw_handle_init_producer, BW_ROLE_CLIENT, false},
    [BW_API_ATTACH] = {bw_handle_attach, BW_ROLE_READER, true},
    [BW_API_DETACH] = {bw_handle_detach, BW_ROLE_READER, true},
    [BW_API_MAILBOX] = {bw_handle_mailbox, BW_ROLE_READER, true},
    [BW_API_RELEASE_MAILBOX] = {bw_handle_release_mailbox, BW_ROLE_READER, true},
    [BW_API_REPORT] = {handle_report, BW_ROLE_READER, false},
    [BW_API_TXN_OFFSET_COMMIT] = {bw_handle_txn_offset_commit, BW_ROLE_CLIENT, true},
    [BW_API_END_TXN] = {bw_handle_end_txn, BW_ROLE_CLIENT, true},
    [BW_API_LIST_TRANSACTIONS] = {bw_handle_list_transactions, BW_ROLE_READER, true},
    [BW_API_DESCRIBE_TRANSACTION] = {bw_handle_describe_transaction, BW_ROLE_READER, true},
    [BW_API_ABORT_TRANSACTION] = {bw_handle_abort_transaction, BW_ROLE_ADMIN, true},
    [BW_API_DESCRIBE_PRODUCERS] = {bw_handle_describe_producers, BW_ROLE_READER, true},
    [BW_API_PRODUCER_LAST] = {bw_handle_producer_last, BW_ROLE_READER, true},
    [BW_API_STATUS] = {bw_handle_status, BW_ROLE_READER, false},
    [BW_API_OFFSET_COMMIT] = {bw_handle_offset_commit, BW_ROLE_READER, true},
    [BW_API_OFFSET_FETCH] = {bw_handle_offset_fetch, BW_ROLE_READER, true},
    [BW_API_OFFSET_DELETE] = {bw_handle_offset_delete, BW_ROLE_CLIENT, true},
    [BW_API_GROUP_JOIN] = {bw_handle_group_join, BW_ROLE_READER, true},
    [BW_API_GROUP_HEARTBEAT] = {bw_handle_group_heartbeat, BW_ROLE_READER, true},
    [BW_API_GROUP_LEAVE] = {bw_handle_group_leave, BW_ROLE_READER, true},
    [BW_API_JOIN_GROUP] = {bw_handle_join_group, BW_ROLE_READER, true},
    [BW_API_SYNC_GROUP] = {bw_handle_sync_group, BW_ROLE_READER, true},
    [BW_API_HEARTBEAT] = {bw_handle_heartbeat, BW_ROLE_READER, true},
    [BW_API_LEAVE_GROUP] = {bw_handle_group_leave, BW_ROLE_READER, true},
    [BW_API_LIST_GROUPS] = {bw_handle_list_groups, BW_ROLE_READER, true},
    [BW_API_DESCRIBE_GROUP] = {bw_handle_describe_group, BW_ROLE_READER, true},
    [BW_API_DELETE_GROUP] = {bw_handle_delete_group, BW_ROLE_CLIENT, true},
    [BW_API_QUEUE_JOIN] = {bw_handle_queue_join, BW_ROLE_CLIENT, true},
    [BW_API_QUEUE_FETCH] = {bw_handle_queue_fetch, BW_ROLE_CLIENT, true},
    [BW_API_QUEUE_ACK] = {bw_handle_queue_ack, BW_ROLE_CLIENT, true},
    [BW_API_QUEUE_LEAVE] = {bw_handle_queue_leave, BW_ROLE_CLIENT, true},
    [BW_API_QUEUE_DESCRIBE] = {bw_handle_queue_describe, BW_ROLE_READER, true},
    [BW_API_QUEUE_PEEK] = {bw_handle_queue_peek, BW_ROLE_READER, true},
    [BW_API_QUEUE_SETTLE] = {bw_handle_queue_settle, BW_ROLE_ADMIN, true},
    [BW_API_QUEUE_DELETE] = {bw_handle_queue_delete, BW_ROLE_ADMIN, true},
    [BW_API_SET_QUOTA] = {bw_handle_set_quota, BW_ROLE_ADMIN, false},
    [BW_API_AUTHENTICATE] = {bw_handle_authenticate, BW_ROLE_NONE, false},
    [BW_API_SET_USER] = {bw_handle_set_user, BW_ROLE_ADMIN, false},
    [BW_API_REMOVE_USER] = {bw_handle_remove_user, BW_ROLE_ADMIN, false},
    [BW_API_LIST_USERS] = {bw_handle_list_users, BW_ROLE_ADMIN, false},
    [BW_API_HANDOVER] = {handle_handover, BW_ROLE_ADMIN, false},
    [BW_API_PING] = {handle_ping, BW_ROLE_READER, false},
    [BW_API_LIST_QUOTAS] = {bw_handle_list_quotas, BW_ROLE_READER, false},
    [BW_API_REPLICA_ACK] = {bw_handle_replica_ack, BW_ROLE_ADMIN, true},
    [BW_API_EPOCHS] = {bw_handle_epochs, BW_ROLE_READER, true},
    [BW_API_LINK_ADD] = {bw_handle_link_admin, BW_ROLE_ADMIN, false},
    [BW_API_LINK_LIST] = {bw_handle_link_admin, BW_ROLE_READER, false},
    [BW_API_LINK_DESCRIBE] = {bw_handle_link_admin, BW_ROLE_READER, false},
    [BW_API_LINK_ALTER] = {bw_handle_link_admin, BW_ROLE_ADMIN, false},
    [BW_API_LINK_REMOVE] = {bw_handle_link_admin, BW_ROLE_ADMIN, false},
    [BW_API_LINK_HELLO] = {bw_handle_link_hello, BW_ROLE_READER, false},
    [BW_API_LINK_TOPIC] = {bw_handle_link_topic, BW_ROLE_ADMIN, true},
    [BW_API_LINK_APPEND] = {bw_handle_link_append, BW_ROLE_ADMIN, true},
    [BW_API_LINK_FETCH] = {bw_handle_link_fetch, BW_ROLE_READER, true},
    [BW_API_LINK_POSITION] = {bw_handle_link_position, BW_ROLE_READER, true},
    [BW_API_RANGE_HASHES] = {bw_handle_ranges, BW_ROLE_READER, true},
    [BW_API_RANGE_BATCHES] = {bw_handle_ranges, BW_ROLE_READER, true},
    [BW_API_FENCE] = {bw_handle_fence, BW_ROLE_ADMIN, true},
    [BW_API_PROMOTE] = {bw_handle_promote, BW_ROLE_ADMIN, true},
    [BW_API_TAILS] = {bw_handle_tails, BW_ROLE_READER, false},
    [BW_API_REPLICA_STATE] = {bw_handle_replica_state, BW_ROLE_ADMIN, true},
    [BW_API_MEND] = {bw_handle_ranges, BW_ROLE_ADMIN, true},
};

static bool is_local_only(uint16_t type)
{
    return type == BW_API_ATTACH || type == BW_API_DETACH || type == BW_API_MAILBOX || type == BW_API_RELEASE_MAILBOX ||
           type == BW_API_HANDOVER;
}

static bw_err refuse_remote(const bw_session *s, uint16_t type)
{
    static const char *const needs[] = {"nothing", "to be let in", "the right to produce", "an administrator"};
    if (type == BW_API_HELLO) return BW_OK;
    return bw_fail(BW_ERR_NOT_PERMITTED, "%s needs %s; this is %s, whose role is %s", bw_api_name(type), needs[apis[type].role],
                   *s->user ? s->user : s->peer.address, bw_role_name(s->role));
}

static bw_err refuse(const bw_broker *b, const bw_op *op)
{
    const bw_session *s = op->session;
    uint16_t type = op->request.type;
    const char *name = bw_api_name(type);
    if (type >= BW_API_KEY_COUNT || !apis[type].handle)
        return bw_fail(BW_ERR_UNSUPPORTED, "request type %u is not known to this daemon (version %s)", type, BW_VERSION_STRING);
    if (s->peer.remote && s->role < apis[type].role) return refuse_remote(s, type);
    if (s->peer.remote && is_local_only(type))
        return bw_fail(BW_ERR_UNSUPPORTED, "%s is for processes of the daemon's own host: shared memory does not reach over a network", name);
    if (s->role < apis[type].role)
        return bw_fail(BW_ERR_NOT_PERMITTED, "%s needs %s; this is uid %lld, gid %lld: run as root or uid %llu%s", name,
                       apis[type].role == BW_ROLE_ADMIN ? "an administrator" : "a member of the socket's group", (long long)s->peer.uid,
                       (long long)s->peer.gid, (unsigned long long)b->uid, apis[type].role == BW_ROLE_ADMIN ? "" : ", or join the group");
    if (apis[type].needs_data && !b->ready) return bw_fail(BW_ERR_BUSY, "%s", b->not_ready);
    return bw_txn_check_request(op);
}

static bool is_one_way(const bw_request *r)
{
    return r->type == BW_API_CREDIT || r->type == BW_API_REPORT || (r->type == BW_API_PRODUCE && r->acks == 0);
}

static void refuse_connection(bw_broker *b, bw_op *op)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.error = bw_fail(BW_ERR_LIMIT_REACHED, "there are %llu connections; max.connections = %d, max.connections.per.uid = %d",
                      (unsigned long long)b->session_count, b->config.max_connections, b->config.max_connections_per_uid);
    a.message = bw_str_of(bw_error_message());
    a.flags |= BW_FRAME_CLOSING;
    bw_op_finish(op, &a);
}

void bw_broker_handle_admitted(bw_broker *b, bw_op *op)
{
    if (!bw_opener_park(b, op)) apis[op->request.type].handle(b, op);
}

void bw_broker_handle(bw_broker *b, bw_op *op)
{
    if (op->session->over_limit) {
        refuse_connection(b, op);
        return;
    }
    bw_err e = refuse(b, op);
    if (op->session->role == BW_ROLE_READER) op->request.allow_auto_create = false;
    if (!e && bw_quotas_count(b->quotas) && bw_quota_hold(b, op)) return;
    if (!e) bw_broker_handle_admitted(b, op);
    else if (is_one_way(&op->request)) bw_op_finish(op, NULL);
    else bw_op_fail(op, e);
}
