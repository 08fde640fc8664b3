/* proto/message_groups.h: what the requests of groups and their answers carry; a part of bw_request and bw_answer (message.h).
 *
 * Two kinds of members. Those of the *classic* protocol (JOIN_GROUP, SYNC_GROUP, HEARTBEAT, LEAVE_GROUP) are Kafka's: the client that
 * leads assigns. Busway's own (GROUP_JOIN, GROUP_HEARTBEAT, GROUP_LEAVE) are assigned by the server, which pushes GROUP_ASSIGNMENT
 * whenever what the member should own has changed; the answers of GROUP_JOIN and GROUP_HEARTBEAT carry it too (has_parts), for those
 * to whom nothing can be pushed.
 *
 * The server-assigned protocol. `epoch` is the member's epoch: that of the newest assignment it was given. GROUP_ASSIGNMENT says the
 * whole list of what it may read from now on. What it had and is not in the list it stops reading, commits, and says so with
 * GROUP_HEARTBEAT {owned: what it still has, has_owned}; only then does anybody else get it. What is new in the list it owns at once
 * and starts at `offset` (the committed one; -1: none). A member that was fenced (its lease ended, its instance id was taken over, it
 * was removed) gets GROUP_ASSIGNMENT with an error, or that error from any request, has lost everything, and joins anew without an id. */
#ifndef BW_PROTO_MESSAGE_GROUPS_H
#define BW_PROTO_MESSAGE_GROUPS_H

#include "base/uuid.h"

/* An offset of one partition: committed, to be committed, or just the partition's name (owned lists). */
typedef struct bw_offset_part {
    bw_str topic;
    int32_t partition;
    int64_t offset;       /* -1: none */
    int32_t leader_epoch; /* of the last record before it; -1: not known */
    bw_str metadata;
    bw_uuid topic_id;     /* the life of the topic that is meant; all zero: whichever there is */
    int64_t timestamp;    /* answers: when it was committed, ms; -1 */
    int32_t error;        /* answers: bw_err, for this partition */
    bw_str message;
} bw_offset_part;

typedef struct bw_subscription { bw_str topic; bool pattern; /* topic is a POSIX extended regular expression, matched whole */ } bw_subscription;
typedef struct bw_group_protocol { bw_str name; bw_str metadata; } bw_group_protocol;
typedef struct bw_group_member { bw_str member; bw_str instance; bw_str metadata; /* or its assignment */ } bw_group_member;

typedef enum bw_group_kind { BW_GROUP_CONSUMER = 0, BW_GROUP_QUEUE = 1, BW_GROUP_CLASSIC = 2 } bw_group_kind;

typedef struct bw_group_request {
    bw_str id;              /* all: the group; LIST_GROUPS: empty */
    bw_str member;          /* empty: none yet, or (commits) nobody's. GROUP_JOIN with epoch -1: an id that the client chose, at random:
                             * a join whose answer was lost is found by it, and does not leave a member behind that nobody is */
    bw_str instance;        /* group.instance.id; empty: dynamic */
    int32_t epoch;          /* member epoch, or generation; -1: none */
    int8_t kind;            /* GROUP_JOIN: bw_group_kind */
    bw_str assignor;        /* GROUP_JOIN: range, roundrobin, sticky, cooperative-sticky; empty: the group's, or cooperative-sticky */
    int32_t session_timeout_ms, rebalance_timeout_ms, max_poll_interval_ms; /* joins; 0: the daemon's default */
    bw_subscription *topics; /* GROUP_JOIN, and GROUP_HEARTBEAT with has_topics */
    size_t topic_count;
    bool has_topics;
    bw_offset_part *parts;  /* OFFSET_COMMIT, _FETCH (none: all), _DELETE; GROUP_JOIN, GROUP_HEARTBEAT: owned */
    size_t part_count;
    bool has_owned;         /* GROUP_HEARTBEAT: parts is what the member owns; without it, only the lease is renewed */
    bool durable;           /* OFFSET_COMMIT: wait until the log is on the disk up to the offset, then until the commit is */
    uint32_t mailbox;       /* GROUP_JOIN, GROUP_HEARTBEAT: poked after a push, so that who sleeps on it looks at the socket; 0: none */
    bw_str protocol_type;   /* JOIN_GROUP, SYNC_GROUP */
    bw_str protocol;        /* SYNC_GROUP */
    bw_group_protocol *protocols; /* JOIN_GROUP, in the order of preference */
    size_t protocol_count;
    bw_group_member *assignments; /* SYNC_GROUP by the leader: member and its assignment */
    size_t assignment_count;
    bw_str reason;          /* leaves: why */
    bool needs_member_id;   /* JOIN_GROUP: a first join gets MEMBER_ID_REQUIRED and an id */
} bw_group_request;

typedef struct bw_group_answer {
    bw_str id;              /* GROUP_ASSIGNMENT */
    bw_str member;
    int32_t epoch;
    int32_t lease_ms;       /* GROUP_JOIN, GROUP_HEARTBEAT: be heard of at least so often */
    bw_offset_part *parts;  /* OFFSET_*: one each; GROUP_*: the assignment, when has_parts */
    size_t part_count;
    bool has_parts;
    bw_str protocol_type, protocol, leader; /* JOIN_GROUP, SYNC_GROUP */
    bw_group_member *members; /* JOIN_GROUP, for the leader */
    size_t member_count;
    bw_str assignment;      /* SYNC_GROUP */
} bw_group_answer;

#endif
