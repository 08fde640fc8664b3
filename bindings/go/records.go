package busway

import "context"

// Records waits for the next batch and returns a copy of its records, which may be kept for ever: Poll and Batch.Records.
func (c *Consumer) Records(ctx context.Context) ([]Record, error) {
	b, err := c.Poll(ctx)
	return b.Records(), err
}

// Each calls fn with every record, until ctx ends, Poll fails, or fn returns an error; that is what it returns. The view is good during the call. After an
// error of fn the position is at its record, which comes again. Since Go 1.23 there is also `for view, err := range c.All(ctx)`.
func (c *Consumer) Each(ctx context.Context, fn func(View) error) error {
	for {
		b, err := c.Poll(ctx)
		for i := range b.raw {
			v := b.At(i)
			if err := fn(v); err != nil {
				c.stopAt(&b, i)
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// stopAt: the rest of the batch, from record i on, was not looked at: it comes again. A partition that is not there any more needs nothing.
func (c *Consumer) stopAt(b *Batch, i int) {
	if i < len(b.raw) && b.At(i).Valid() {
		_ = c.Seek(b.Topic, b.Partition, b.At(i).Offset())
	}
}
