package busway

/*
#include "shim.h"
*/
import "C"

import "time"

// ReadLimit is what of the log a consumer may see (read.limit).
type ReadLimit int

// Read limits.
const (
	ReadVisible    ReadLimit = C.BW_READ_VISIBLE    // what is written
	ReadDurable    ReadLimit = C.BW_READ_DURABLE    // what is on the disk
	ReadReplicated ReadLimit = C.BW_READ_REPLICATED // what as many linked peers have as the topic asks for
)

// OffsetReset is where reading goes on when the position is not in the log (auto.offset.reset).
type OffsetReset int

// Resets.
const (
	ResetError    OffsetReset = C.BW_RESET_ERROR
	ResetEarliest OffsetReset = C.BW_RESET_EARLIEST
	ResetLatest   OffsetReset = C.BW_RESET_LATEST
)

// Isolation is what of transactions may be seen (isolation.level).
type Isolation int

// Isolation levels.
const (
	ReadUncommitted Isolation = C.BW_READ_UNCOMMITTED
	ReadCommitted   Isolation = C.BW_READ_COMMITTED
)

type consumerConfig struct {
	c                         C.bw_consumer_options
	group, instance, assignor *string
	rebalance                 func(*Consumer, Rebalance, []TopicPartition)
	poller                    bool
	spin                      time.Duration
	timeout                   time.Duration
}

// A ConsumerOption is one of Bus.Consumer's, under Kafka's names where the thing is Kafka's.
type ConsumerOption func(*consumerConfig)

// WithReadLimit (read.limit); default: ReadVisible.
func WithReadLimit(l ReadLimit) ConsumerOption {
	return func(c *consumerConfig) { c.c.read_limit = C.bw_read_limit(l) }
}

// WithOffsetReset (auto.offset.reset); default: ResetError, that is ErrOffsetOutOfRange or ErrNoOffset.
func WithOffsetReset(r OffsetReset) ConsumerOption {
	return func(c *consumerConfig) { c.c.auto_offset_reset = C.bw_offset_reset(r) }
}

// WithCheckCRCs (check.crcs); default: true.
func WithCheckCRCs(on bool) ConsumerOption {
	return func(c *consumerConfig) { c.c.check_crcs = C.bool(on) }
}

// WithFetchMaxBytes: through the socket: bytes in flight per partition (max.partition.fetch.bytes); default: 1 MiB.
func WithFetchMaxBytes(n uint32) ConsumerOption {
	return func(c *consumerConfig) { c.c.fetch_max_bytes = C.uint32_t(n) }
}

// WithIsolation (isolation.level); default: ReadUncommitted.
func WithIsolation(i Isolation) ConsumerOption {
	return func(c *consumerConfig) { c.c.isolation = C.bw_isolation(i) }
}

// WithGroup makes commits and Subscribe possible (group.id).
func WithGroup(id string) ConsumerOption { return func(c *consumerConfig) { c.group = &id } }

// WithGroupInstance makes a static member, that keeps its partitions while it is away for less than the session time-out (group.instance.id).
func WithGroupInstance(id string) ConsumerOption { return func(c *consumerConfig) { c.instance = &id } }

// WithAutoCommit commits the positions at this interval; 0: never (enable.auto.commit, auto.commit.interval.ms); default: 5 s.
func WithAutoCommit(interval time.Duration) ConsumerOption {
	return func(c *consumerConfig) {
		c.c.enable_auto_commit = C.bool(interval > 0)
		if interval > 0 {
			c.c.auto_commit_interval_ms = toMillis(interval)
		}
	}
}

// WithAssignor is "range", "roundrobin", "sticky" or "cooperative-sticky" (partition.assignment.strategy); default: the group's own.
func WithAssignor(name string) ConsumerOption { return func(c *consumerConfig) { c.assignor = &name } }

// WithSessionTimeout is how long a static member may be away (session.timeout.ms); default: 45 s.
func WithSessionTimeout(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.c.session_timeout_ms = toMillis(d) }
}

// WithMaxPollInterval is the longest time between two polls (max.poll.interval.ms); default: 5 min.
func WithMaxPollInterval(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.c.max_poll_interval_ms = toMillis(d) }
}

// WithRebalanceTimeout is how long giving up what was revoked may take; default: 60 s.
func WithRebalanceTimeout(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.c.rebalance_timeout_ms = toMillis(d) }
}

// WithDurableCommits: a commit waits until the records before it and then itself are on the disk; default: false.
func WithDurableCommits(on bool) ConsumerOption {
	return func(c *consumerConfig) { c.c.commit_durable = C.bool(on) }
}

// WithRebalance is told what the group gives and takes. fn runs inside Poll, Unsubscribe or Close, and what is revoked is given up when it
// returns; it may call everything of the consumer but these, Subscribe, Assign and Unassign. A panic in it comes out of the call that it runs in.
func WithRebalance(fn func(c *Consumer, event Rebalance, parts []TopicPartition)) ConsumerOption {
	return func(c *consumerConfig) { c.rebalance = fn }
}

// WithPoller waits in Go's network poller instead of in C: a consumer that sleeps holds no thread, for programs with hundreds of them. Waking up
// takes some microseconds longer.
func WithPoller() ConsumerOption { return func(c *consumerConfig) { c.poller = true } }

// WithSpin looks for records for up to d before it sleeps; default: 0, some looks, about as long as going to sleep takes. A program that answers
// another one is quicker by two wake-ups, which cost most where an idle processor must be woken; the price is a processor that is busy for d at most
// each time that nothing comes. 50 µs is longer than a wake-up takes. With one processor it is not done.
func WithSpin(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.spin = d }
}

// WithRequestWait bounds calls that ask the daemon (Commit, Committed), when their context does not do so earlier; default: 30 s.
func WithRequestWait(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.timeout = d }
}
