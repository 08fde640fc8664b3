/* broker/replica.h: peers that hold a copy of a partition: what they have acknowledged, and the watermark that follows from it; comparing,
 * mending, promoting and fencing (replica_ranges.c, replica_lead.c). Broker thread, unless a function says otherwise. */
#ifndef BW_BROKER_REPLICA_H
#define BW_BROKER_REPLICA_H

#include "broker/core.h"

#include <msgpack/pack.h>

#define BW_REPLICA_PEERS_MAX 64

/* What one peer has of one partition. Kept until the daemon ends: what was acknowledged stays acknowledged. */
typedef struct bw_replica {
    struct bw_replica *next;
    char peer[65]; /* its data directory's id, hexadecimal */
    int64_t visible, durable;
    int64_t seen_ms; /* monotonic */
} bw_replica;

void bw_handle_replica_ack(bw_broker *b, bw_op *op);
void bw_handle_epochs(bw_broker *b, bw_op *op);
/* replica_state.c: a mirror's link asks what is here. serve: answers who waited long enough; end: everybody. */
void bw_handle_replica_state(bw_broker *b, bw_op *op);
void bw_replica_answer_when(bw_broker *b, bw_part *p, bw_op *op, int64_t durable);
void bw_replica_serve_waits(bw_broker *b, bw_part *p);
void bw_replica_end_waits(bw_part *p);
/* replica_lead.c: PROMOTE, FENCE, TAILS */
struct bw_lead {
    int32_t epoch;
    bw_uuid origin; /* whose mirror it was */
    char link[65];
};
typedef struct bw_lead bw_lead;
void bw_handle_promote(bw_broker *b, bw_op *op);
void bw_handle_fence(bw_broker *b, bw_op *op);
void bw_handle_tails(bw_broker *b, bw_op *op);
/* bw_lead_load: at the start, of a topic that was read from the store: t->lead. forget: it is being deleted. */
bw_err bw_lead_load(bw_broker *b, bw_topic *t);
void bw_lead_forget(bw_broker *b, bw_topic *t);
/* bw_lead_refuse_link: ORIGIN_FENCED: a link's requests for a topic that has t->lead. */
bw_err bw_lead_refuse_link(const bw_topic *t);
/* bw_lead_doc: two members of the topic's description: role, promoted_epoch. */
int bw_lead_doc(msgpack_packer *pk, const bw_topic *t);
/* replica_ranges.c: RANGE_HASHES, RANGE_BATCHES, MEND */
void bw_handle_ranges(bw_broker *b, bw_op *op);
/* bw_replica_wants_disk: replicas.acks = durable: it must be on the disk here, too. */
bool bw_replica_wants_disk(const bw_part *p);
/* bw_replica_settle: raise the watermark to what follows from the acknowledgements and the disk. */
void bw_replica_settle(bw_broker *b, bw_part *p);
/* bw_replica_waiting: peers have more than the watermark says: it waits for the disk here. */
bool bw_replica_waiting(const bw_part *p);
void bw_replica_free(bw_part *p);
/* bw_replica_put: "replicas" of the partition's description. */
int bw_replica_put(msgpack_packer *pk, const bw_part *p, const bw_partition_info *info);

#endif
