package busway

import "syscall"

// threadID is this thread's; it means something only while the goroutine is bound to it.
func threadID() int32 { return int32(syscall.Gettid()) }
