//go:build !go1.21

package busway

import "context"

// afterDone calls f when ctx ends, unless stop is called before.
func afterDone(ctx context.Context, f func()) (stop func()) {
	over := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			f()
		case <-over:
		}
	}()
	return func() { close(over) }
}
