//go:build go1.23

package busway

import (
	"context"
	"iter"
)

// All is every record, without end: for view, err := range c.All(ctx) { … }. It ends when ctx does, with the context's error, and when the loop breaks. Any
// other error of Poll is given, too, and the loop may go on: the next record is what comes after it. The view is good until the next turn of the
// loop. When the loop breaks, the position is behind the record that it had.
func (c *Consumer) All(ctx context.Context) iter.Seq2[View, error] {
	return func(yield func(View, error) bool) {
		for {
			b, err := c.Poll(ctx)
			for i := range b.raw {
				if !yield(b.At(i), nil) {
					c.stopAt(&b, i+1)
					return
				}
			}
			if err != nil && (!yield(View{}, err) || ctx.Err() != nil || fatal(err)) {
				return
			}
		}
	}
}

// All are the views of the batch.
func (b *Batch) All() iter.Seq2[int, View] {
	return func(yield func(int, View) bool) {
		for i := range b.raw {
			if !yield(i, b.At(i)) {
				return
			}
		}
	}
}
