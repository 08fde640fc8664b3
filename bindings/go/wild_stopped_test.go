package busway

// Calls that ask the daemon, while it is stopped: each waits, and its context ends the wait.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// aStoppedDaemon makes a folder with a bus of its own; the daemon stands still from stop() until the test ends, when what was made before is closed.
func aStoppedDaemon(t *testing.T) (b *Bus, url string, stop func()) {
	t.Helper()
	url = "dir:" + t.TempDir() + "?idle-exit=100ms"
	b, err := Open(soon(t), url)
	must(t, err)
	status, err := Decode[struct{ PID int }](b.Admin().Status(soon(t)))
	must(t, err)
	t.Cleanup(func() {
		ends(t, "Close", func() { must(t, b.Close()) })
		_ = syscall.Kill(status.PID, syscall.SIGTERM)
		for i := 0; i < 500 && syscall.Kill(status.PID, 0) == nil; i++ {
			time.Sleep(10 * time.Millisecond)
		}
	})
	return b, url, func() {
		t.Cleanup(func() { must(t, syscall.Kill(status.PID, syscall.SIGCONT)) })
		must(t, syscall.Kill(status.PID, syscall.SIGSTOP))
		for i := 0; !standsStill(t, status.PID); i++ {
			if i == 500 {
				t.Fatal("the daemon goes on")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// standsStill: each of its threads does; a signal reaches them one by one.
func standsStill(t *testing.T, pid int) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		must(t, err)
		if rest := text[bytes.LastIndexByte(text, ')')+1:]; !bytes.HasPrefix(rest, []byte(" T")) {
			return false
		}
	}
	return len(tasks) > 0
}

func TestCancelEndsEveryCallOfADaemonThatStandsStill(t *testing.T) {
	b, url, stop := aStoppedDaemon(t)
	admin, topic, ctx := b.Admin(), aTopic(t, b, 1), soon(t)
	sent(t, aProducer(t, b), topic, 4)
	member := aConsumer(t, b, topic, WithGroup("g"), WithAutoCommit(0))
	_, err := member.Poll(ctx)
	must(t, err)
	begun := aProducer(t, b, WithTransactionalID("begun"))
	must(t, begun.InitTransactions(ctx))
	txn, err := begun.Begin()
	must(t, err)
	sent(t, begun, topic, 1)
	queues := [2]*Queue{}
	held := [2][]Message{}
	for i, group := range []string{"q1", "q2"} {
		queues[i], err = b.Queue(ctx, group, []string{topic})
		must(t, err)
		held[i], err = queues[i].Poll(ctx, 2)
		must(t, err)
	}
	must(t, queues[0].Ack(held[0]...))
	lost := aProducer(t, b, WithTransactionalID("later"))
	other := aConsumer(t, b, "", WithGroup("other"))
	viaSocket, err := Open(ctx, url, WithTransport(TransportIPC))
	must(t, err)
	t.Cleanup(func() { ends(t, "Close", func() { must(t, viaSocket.Close()) }) })
	ipc, reader := aProducer(t, viaSocket), aConsumer(t, viaSocket, topic)
	stop()

	calls := map[string]func(context.Context) error{
		"Open": func(ctx context.Context) error {
			b, err := Open(ctx, url)
			if err == nil {
				b.Close()
			}
			return err
		},
		"Bus.Queue":         func(ctx context.Context) error { _, err := b.Queue(ctx, "q3", []string{topic}); return err },
		"Admin.Status":      func(ctx context.Context) error { _, err := admin.Status(ctx); return err },
		"Admin.CreateTopic": func(ctx context.Context) error { return admin.CreateTopic(ctx, "new", 1) },
		"Admin.AlterTopic": func(ctx context.Context) error {
			return admin.AlterTopic(ctx, topic, 0, Set("retention.ms", "1000000"))
		},
		"Admin.DeleteTopic": func(ctx context.Context) error { return admin.DeleteTopic(ctx, "none") },
		"Admin.Groups":      func(ctx context.Context) error { _, err := admin.Groups(ctx); return err },
		"Admin.DeleteGroup": func(ctx context.Context) error { return admin.DeleteGroup(ctx, "none") },
		"Admin.SetQuota": func(ctx context.Context) error {
			return admin.SetQuota(ctx, "<default>", "", "", Set("producer_byte_rate", "1000"))
		},
		"Admin.Links":     func(ctx context.Context) error { _, err := admin.Links(ctx); return err },
		"Admin.PeekQueue": func(ctx context.Context) error { _, err := admin.PeekQueue(ctx, "q1", topic, 0, 1); return err },
		"Admin.RedriveQueue": func(ctx context.Context) error {
			_, _, err := admin.RedriveQueue(ctx, "dead", 1, nil)
			return err
		},
		"Consumer.Commit":           func(ctx context.Context) error { return member.Commit(ctx) },
		"Consumer.Committed":        func(ctx context.Context) error { return other.Committed(ctx, []TopicPartition{{Topic: topic}}) },
		"Producer.InitTransactions": lost.InitTransactions,
		"Transaction.Commit":        txn.Commit,
		"Queue.Flush":               queues[0].Flush,
		"Queue.AckSync":             func(ctx context.Context) error { return queues[1].AckSync(ctx, held[1][0]) },
		"Producer.Send through the socket": func(ctx context.Context) error {
			_, err := ipc.Send(ctx, topic, 0, Record{Value: []byte("x")})
			return err
		},
		"Consumer.Poll through the socket": func(ctx context.Context) error {
			for {
				if _, err := reader.Poll(ctx); err != nil {
					return err
				}
			}
		},
	}
	for name, call := range calls {
		call := call
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(30*time.Millisecond, cancel)
			begun := time.Now()
			var err error
			ends(t, "the call", func() { err = call(ctx) })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
