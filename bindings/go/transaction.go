package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"time"
)

// Transaction is what a Producer sends between Begin and Commit or Abort: records to several partitions and topics, and a group's offsets, whole
// or not at all. The producer has one at a time; sends of other goroutines in the meantime are part of it.
//
// When a call of it, or a send, fails, the transaction can only be aborted (ErrTransactionAbortable); afterwards the producer is as good as new.
// ErrProducerFenced: another producer uses this id: close this one.
type Transaction struct {
	p    *Producer
	over bool // under p.txn
}

// InitTransactions is called once, before the first transaction of a producer with WithTransactionalID. It waits until a transaction that an
// earlier run left has been ended, and fences that run. ErrInvalidTxnState: no transactional id, or done already. ErrTimedOut,
// ErrNoCoordinator: it may be called again.
func (p *Producer) InitTransactions(ctx context.Context) error {
	return p.txnCall(ctx, "init transactions", C.BWGO_TXN_INIT)
}

// Begin begins a transaction; nothing is asked of the daemon. ErrInvalidTxnState: InitTransactions was not called, or one is open.
func (p *Producer) Begin() (*Transaction, error) {
	if err := p.txnCall(context.Background(), "begin", C.BWGO_TXN_BEGIN); err != nil {
		return nil, err
	}
	return &Transaction{p: p}, nil
}

// Transaction is a handle on whatever transaction the producer has open, for code that did not begin it; when it has none, Commit and Abort say
// ErrInvalidTxnState.
func (p *Producer) Transaction() *Transaction { return &Transaction{p: p} }

// Transact runs fn in a transaction: committed when fn returns nil, else aborted. A panic aborts, too, and goes on. The error is fn's or the commit's;
// after an abort its cause can be tried again, from where the group's offsets are.
func (p *Producer) Transact(ctx context.Context, fn func(*Transaction) error) (err error) {
	t, err := p.Begin()
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if !committed { // fn's error, its panic, or the commit's failure; the context that ended must not keep it open
			clean, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if aborted := t.Abort(clean); err == nil {
				err = aborted
			}
		}
	}()
	if err = fn(t); err != nil {
		return err
	}
	if err = t.Commit(ctx); err != nil {
		return err
	}
	committed = true
	return nil
}

// SendOffsets: these offsets (of the next record to read) become the group's with the commit. group is Consumer.GroupMetadata of the consumer that
// read; a member that was fenced can't. All are taken or none.
func (t *Transaction) SendOffsets(ctx context.Context, group GroupMetadata, offsets []TopicPartition) error {
	const op = "send offsets"
	if err := t.check(op); err != nil {
		return err
	}
	return t.p.inTxn(ctx, op, func() C.bwgo_result {
		a := arena{op: op}
		defer a.free()
		parts := partsToC(&a, offsets)
		g := (*C.bw_group_metadata)(a.room(1, C.sizeof_bw_group_metadata))
		g.group_id, g.member_id = a.string(group.GroupID), a.string(group.MemberID)
		g.group_instance_id, g.member_epoch = a.optional(group.InstanceID), C.int32_t(group.MemberEpoch)
		if a.fail != nil {
			return C.bwgo_result{code: C.BW_ERR_INVALID_ARGUMENT}
		}
		return C.bwgo_txn_offsets(t.p.c, g, parts, C.size_t(len(offsets)), millis(ctx, t.p.timeout))
	})
}

// Commit sends what is buffered, waits for every outcome, and commits; functions of SendAsync are called. nil: committed. ErrTransactionAbortable:
// abort. ErrTimedOut: the outcome is not known yet: call it again.
func (t *Transaction) Commit(ctx context.Context) error {
	return t.end(ctx, "commit", C.BWGO_TXN_COMMIT)
}

// Abort: nothing of it will be seen. What is buffered gets ErrTransactionAbortable. After a Commit that succeeded, or an Abort, it does nothing, so
// that it can be deferred. ErrTimedOut: call it again.
func (t *Transaction) Abort(ctx context.Context) error {
	if t != nil && t.over {
		return nil
	}
	return t.end(ctx, "abort", C.BWGO_TXN_ABORT)
}

func (t *Transaction) check(op string) error {
	if t == nil || t.p == nil {
		return errNil(op, "transaction", "Producer.Begin")
	}
	if t.over {
		return failure(op, ErrInvalidTxnState, "the transaction was committed or aborted before")
	}
	return nil
}

func (t *Transaction) end(ctx context.Context, op string, what C.int) error {
	if err := t.check(op); err != nil {
		return err
	}
	err := t.p.txnCall(ctx, op, what)
	t.p.collectNow()
	if err == nil {
		t.over = true
	}
	return err
}

func (p *Producer) txnCall(ctx context.Context, op string, what C.int) error {
	if p == nil || p.producer == nil {
		return errNil(op, "producer", "Bus.Producer")
	}
	return p.inTxn(ctx, op, func() C.bwgo_result { return C.bwgo_transaction(what, p.c, millis(ctx, p.timeout)) })
}

// inTxn: one call at a time, also one that went on when its context had ended.
func (p *Producer) inTxn(ctx context.Context, op string, f func() C.bwgo_result) error {
	if err := p.enter(op); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		p.gate.leave()
		return err
	}
	select {
	case p.txn <- struct{}{}:
	case <-ctx.Done():
		p.gate.leave()
		return ctx.Err()
	}
	inner := p.producer
	r, err := bounded(ctx, op, func() C.bwgo_result {
		defer inner.gate.leave()
		defer func() { <-inner.txn }()
		return f()
	}, func(r C.bwgo_result) { takeString(r.message) })
	if err == nil {
		err = byContext(ctx, resultError(op, r))
	}
	return err
}

// collectNow tells what came during a call that runs delivery callbacks.
func (p *Producer) collectNow() {
	if p.gate.enter() {
		defer p.gate.leave()
		p.collect()
		p.tell()
	}
}
