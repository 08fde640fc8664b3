//go:build go1.21

package busway

import "context"

// afterDone calls f when ctx ends, unless stop is called before.
func afterDone(ctx context.Context, f func()) (stop func()) {
	over := context.AfterFunc(ctx, f)
	return func() { over() }
}
