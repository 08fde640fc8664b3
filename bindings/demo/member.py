"""member.py: the Python member of the demonstration's group; member.c says what it does and prints."""
import sys
import time

import busway

PATIENCE = 60.0


def on_rebalance(event):
    def tell(consumer, parts):
        print(event, ",".join(str(p.partition) for p in parts), time.time_ns(), flush=True)

    return tell


def copy(producer, consumer, batch, output, name):
    """One batch, one transaction. An exception: abort, and nothing of it has happened."""
    producer.begin_transaction()
    count = producer.send_many(output, [(name, record.value) for record in batch], partition=batch.partition, timeout=PATIENCE)
    after = busway.TopicPartition(batch.topic, batch.partition, batch.last_offset + 1)
    producer.send_offsets_to_transaction([after], consumer.group_metadata(), PATIENCE)
    while True:
        try:
            producer.commit_transaction(PATIENCE)
            return count
        except busway.TimedOutError:
            pass  # it has no other end


def rewind_all(consumer):
    """Back to what the group has committed, for all that is ours."""
    for p in consumer.committed(timeout=PATIENCE):
        try:
            consumer.seek(p.topic, p.partition, "beginning" if p.offset == busway.OFFSET_INVALID else p.offset)
        except busway.UnknownPartitionError:
            pass  # it was taken away meanwhile


def main(url, group, input_topic, output, name):
    key = name.encode()
    with busway.connect(url) as bus, bus.producer(transactional_id=name, transaction_timeout_ms=3000) as producer, \
            bus.consumer([input_topic], group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                         on_assign=on_rebalance("assigned"), on_revoke=on_rebalance("revoked"), on_lost=on_rebalance("lost")) as consumer:
        producer.init_transactions(PATIENCE)
        while True:
            try:
                batch = consumer.poll_batch(1.0)
            except (busway.RetriableError, busway.FencedMemberError):
                continue  # it joins anew
            if batch is None:
                continue
            try:
                print("committed", copy(producer, consumer, batch, output, key), flush=True)
            except busway.BuswayError as e:
                print(f"member.py: begins again: {e}", file=sys.stderr, flush=True)
                producer.abort_transaction(PATIENCE)
                rewind_all(consumer)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit("usage: member.py URL GROUP INPUT OUTPUT NAME")
    main(*sys.argv[1:])
