/* bench/peers/redis/redis.c: Redis Streams over its UNIX socket with hiredis. XADD, BATCH of them in one pipeline; XREAD BLOCK
 * COUNT 1000 on the other side; the stream is removed afterwards. Round trip: one stream each way, XADD then XREAD BLOCK. */
#include "../peer.h"

#include <hiredis/hiredis.h>

static redisContext *c;

static redisReply *answer(void)
{
    redisReply *r = NULL;
    if (redisGetReply(c, (void **)&r) != REDIS_OK || !r) peer_die("redis", c->errstr);
    if (r->type == REDIS_REPLY_ERROR) peer_die("redis", r->str);
    return r;
}

static void add(const char *stream, const uint8_t *records, uint64_t count, uint64_t len)
{
    for (uint64_t i = 0; i < count; i++) redisAppendCommand(c, "XADD %s * v %b", stream, records + i * len, (size_t)len);
    for (uint64_t i = 0; i < count; i++) freeReplyObject(answer());
}

/* Take what comes after *last on the stream; waits for it. How many. */
static uint64_t take(peer *p, const char *stream, char last[64])
{
    uint64_t n = 0;
    redisAppendCommand(c, "XREAD COUNT 1000 BLOCK 0 STREAMS %s %s", stream, last);
    redisReply *r = answer();
    redisReply *entries = r->type == REDIS_REPLY_ARRAY && r->elements ? r->element[0]->element[1] : NULL;
    for (size_t i = 0; entries && i < entries->elements; i++, n++) {
        redisReply *id = entries->element[i]->element[0], *value = entries->element[i]->element[1]->element[1];
        peer_take(p, (const uint8_t *)value->str, value->len);
        if (i + 1 == entries->elements) snprintf(last, 64, "%.*s", (int)id->len, id->str);
    }
    freeReplyObject(r);
    return n;
}

typedef struct turns {
    uint8_t *records;
    char last[64];
} turns;

static void turn(peer *p, void *of)
{
    turns *t = of;
    add("ping", t->records, 1, p->record_bytes);
    while (!take(p, "pong", t->last)) {
    }
}

int main(int argc, char **argv)
{
    peer p;
    char path[200];
    turns t = {.last = "0-0"};
    peer_init(&p, argc, argv);
    snprintf(path, sizeof path, "%s/redis.sock", p.where);
    c = redisConnectUnix(path);
    if (!c || c->err) peer_die("connect", c ? c->errstr : "out of memory");
    t.records = peer_records(&p, p.batch);
    if (peer_is(&p, "read") || peer_is(&p, "pong")) {
        redisAppendCommand(c, "DEL s ping pong");
        freeReplyObject(answer());
        peer_ready();
    }
    if (peer_is(&p, "write")) {
        for (uint64_t sent = 0; sent < p.warm + p.records; sent += p.batch) add("s", t.records, p.batch, p.record_bytes);
    } else if (peer_is(&p, "read")) {
        while (peer_wants(&p)) take(&p, "s", t.last);
        peer_report_rate(&p);
    } else if (peer_is(&p, "pong")) {
        while (peer_wants(&p)) add("pong", t.records, take(&p, "ping", t.last), p.record_bytes);
    } else {
        peer_ping(&p, turn, &t);
    }
    redisFree(c);
    return 0;
}
