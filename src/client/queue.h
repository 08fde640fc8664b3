/* client/queue.h: a worker of a queue group inside: a connection of its own, one fetch under way, acknowledgements that gather.
 *
 * One thread at a time; it pumps the connection, so that everything but `woken` is its own. A fetched batch lies in the receive buffer
 * that it came in. A lost connection ends the membership: the daemon has released what was held, what was fetched and not
 * polled is dropped, and the next poll joins anew. */
#ifndef BW_CLIENT_QUEUE_H
#define BW_CLIENT_QUEUE_H

#include "client/bus.h"

#include <busway/queue.h>

typedef struct bw_queue_fetched {
    bw_rx *rx;         /* NULL: none */
    bw_answer answer;  /* its runs */
    const uint8_t *at, *end;
    size_t run;        /* the one that the next record is of */
    int64_t next;      /* and its offset */
    bw_deadline until; /* the lease's end, by our clock */
} bw_queue_fetched;

typedef struct bw_queue_sending bw_queue_sending;

struct bw_queue {
    bw_bus *bus;
    bw_conn conn;
    bw_queue_options options; /* its pointers are ours */
    char *group, *dead_letter;
    char **topics;
    uint32_t member;     /* 0: not joined */
    uint32_t epoch;      /* of the connection that it joined over */
    int32_t lease_ms;
    bw_queue_fetched now;
    bw_queue_fetched come; /* arrived, behind `now` */
    bw_pending fetch;
    bool fetching;
    bw_deadline asked_at;
    bw_err fetch_error;
    char fetch_message[512];
    bw_queue_item *items; /* to be sent */
    size_t item_count, item_cap;
    int64_t item_records;
    bw_queue_sending *spare;
    uint32_t under_way;  /* acknowledgements without their answer */
    int64_t refused, lost;
    bw_err ack_error;
    char ack_message[512];
    bw_buf frame;
    _Atomic uint32_t woken;
};

/* queue_ack.c */
/* bw_queue_say: one more item; sent with the others. */
bw_err bw_queue_say(bw_queue *q, const char *topic, int32_t partition, int64_t first, int64_t last, bw_queue_verb verb);
/* bw_queue_send: what has gathered. */
bw_err bw_queue_send(bw_queue *q);
void bw_queue_sendings_free(bw_queue *q);
/* bw_queue_return_rest: what of `now` was not polled goes back uncounted. */
void bw_queue_return_rest(bw_queue *q);

#endif
