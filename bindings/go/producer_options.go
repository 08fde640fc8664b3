package busway

/*
#include "shim.h"
*/
import "C"

import "time"

// Acks is what a send waits for.
type Acks int

// Acknowledgements.
const (
	AcksNone       Acks = C.BW_ACKS_NONE       // handed over
	AcksVisible    Acks = C.BW_ACKS_VISIBLE    // every reader sees it; it survives the death of any process
	AcksDurable    Acks = C.BW_ACKS_DURABLE    // on the disk; it survives power loss
	AcksReplicated Acks = C.BW_ACKS_REPLICATED // as many linked peers as the topic asks for have it; through the daemon
)

// Codec compresses batches.
type Codec int

// Codecs.
const (
	CodecNone   Codec = C.BW_CODEC_NONE
	CodecGzip   Codec = C.BW_CODEC_GZIP
	CodecSnappy Codec = C.BW_CODEC_SNAPPY
	CodecLZ4    Codec = C.BW_CODEC_LZ4
	CodecZstd   Codec = C.BW_CODEC_ZSTD
)

type producerConfig struct {
	c           C.bw_producer_options
	name, txnID *string
	timeout     time.Duration
}

// A ProducerOption is one of Bus.Producer's, under Kafka's names where the thing is Kafka's.
type ProducerOption func(*producerConfig)

// WithAcks is what a send waits for (acks); default: AcksVisible.
func WithAcks(a Acks) ProducerOption {
	return func(c *producerConfig) { c.c.acks = C.bw_acks(a) }
}

// WithBatchSize bounds a batch of SendMany, SendAsync and SendManyAsync, in bytes (batch.size); default: 16384.
func WithBatchSize(bytes uint32) ProducerOption {
	return func(c *producerConfig) { c.c.batch_size = C.uint32_t(bytes) }
}

// WithLinger is how long a batch waits for more records (linger.ms); default: 0.
func WithLinger(d time.Duration) ProducerOption {
	return func(c *producerConfig) {
		c.c.linger_ms = 0
		if d > 0 {
			c.c.linger_ms = C.uint32_t(toMillis(d))
		}
	}
}

// WithBufferMemory bounds what is sent and not acknowledged, in bytes (buffer.memory); default: 32 MiB.
func WithBufferMemory(bytes uint64) ProducerOption {
	return func(c *producerConfig) { c.c.buffer_memory = C.uint64_t(bytes) }
}

// WithDeliveryTimeout is how long a record that was sent without waiting is tried (delivery.timeout.ms); default: 2 min.
func WithDeliveryTimeout(d time.Duration) ProducerOption {
	return func(c *producerConfig) { c.c.delivery_timeout_ms = toMillis(d) }
}

// WithCompression compresses batches, if the topic's compression.type leaves it to the producer; default: CodecNone.
func WithCompression(codec Codec) ProducerOption {
	return func(c *producerConfig) { c.c.compression = C.bw_codec(codec) }
}

// WithProducerName makes Producer.LastSequence possible: a stable name.
func WithProducerName(name string) ProducerOption { return func(c *producerConfig) { c.name = &name } }

// WithIdempotence: what is sent again after a lost answer is in the log once (enable.idempotence); default: true.
func WithIdempotence(on bool) ProducerOption {
	return func(c *producerConfig) { c.c.enable_idempotence = C.bool(on) }
}

// WithTransactionalID makes transactions possible (transactional.id): the same at each start of the program.
func WithTransactionalID(id string) ProducerOption { return func(c *producerConfig) { c.txnID = &id } }

// WithTransactionTimeout is after what time the daemon aborts a transaction (transaction.timeout.ms); default: 60 s.
func WithTransactionTimeout(d time.Duration) ProducerOption {
	return func(c *producerConfig) { c.c.transaction_timeout_ms = toMillis(d) }
}

// WithSendTimeout bounds calls of the producer that wait, when their context does not do so earlier; default: 30 s.
func WithSendTimeout(d time.Duration) ProducerOption {
	return func(c *producerConfig) { c.timeout = d }
}
