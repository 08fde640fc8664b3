package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"time"
	"unsafe"
)

//go:generate sh -c "./codes.sh ../../include/busway/error.h > codes.go && gofmt -w codes.go"

// Code is an outcome of the library: what busway/error.h lists, under Kafka's names where the thing is Kafka's. Each Err… constant is one,
// and an error: errors.Is(err, busway.ErrUnknownTopic) asks for it, and
//
//	var code busway.Code
//	if errors.As(err, &code) && code.Retriable() { … }
//
// for its class.
type Code int32

type codeInfo struct {
	name, text string
	class      byte // R: retriable, F: final, A: the handle is unusable
}

// Name is the code's name as in error.h, e.g. "UNKNOWN_TOPIC".
func (c Code) Name() string {
	if i, ok := codes[c]; ok {
		return i.name
	}
	if name := C.GoString(C.bw_err_name(C.bw_err(c))); name != "UNKNOWN" { // of a newer library
		return name
	}
	return "UNKNOWN(" + strconv.Itoa(int(c)) + ")"
}

// Text is the one-line text of the code.
func (c Code) Text() string {
	if i, ok := codes[c]; ok {
		return i.text
	}
	return C.GoString(C.bw_err_text(C.bw_err(c)))
}

// CodeNamed is the code with this name of error.h; 0 is OK's.
func CodeNamed(name string) (Code, bool) {
	for c, i := range codes {
		if i.name == name {
			return c, true
		}
	}
	return 0, false
}

// Error is the name and the text of the code.
func (c Code) Error() string {
	return c.Name() + ": " + c.Text()
}

// Retriable says whether the same call may succeed later without any change by the caller.
func (c Code) Retriable() bool {
	if i, ok := codes[c]; ok {
		return i.class == 'R'
	}
	return bool(C.bw_err_is_retriable(C.bw_err(c)))
}

// Fatal says whether the handle that returned it can only be closed.
func (c Code) Fatal() bool {
	if i, ok := codes[c]; ok {
		return i.class == 'A'
	}
	return bool(C.bw_err_is_fatal(C.bw_err(c)))
}

// Timeout is true of ErrTimedOut (net.Error's method).
func (c Code) Timeout() bool { return c == ErrTimedOut }

// Error is what failing calls return: a Code, the call, and what happened, where, and what to do.
type Error struct {
	Code    Code
	Op      string // the call, e.g. "send"
	Message string // for people
	cause   error  // of a context, or a handler's
}

func (e *Error) Error() string {
	s := "busway: " + e.Op + ": " + e.Code.Name()
	if e.Message != "" {
		s += ": " + e.Message
	} else if i, ok := codes[e.Code]; ok {
		s += ": " + i.text
	}
	return s
}

// Retriable says whether the same call may succeed later without any change by the caller.
func (e *Error) Retriable() bool { return e.Code.Retriable() }

// Fatal says whether the handle that returned it can only be closed.
func (e *Error) Fatal() bool { return e.Code.Fatal() }

// Timeout is true of ErrTimedOut (net.Error's method).
func (e *Error) Timeout() bool { return e.Code.Timeout() }

// Unwrap gives the code, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Code }

// Is: also the context's error when one ended the call, and fs.ErrClosed for ErrClosed.
func (e *Error) Is(target error) bool {
	if e.cause != nil && errors.Is(e.cause, target) {
		return true
	}
	return e.Code == ErrClosed && target == fs.ErrClosed
}

// IsRetriable says whether err, or one that it wraps, is of a code that is.
func IsRetriable(err error) bool {
	var c Code
	return errors.As(err, &c) && c.Retriable()
}

func failure(op string, code Code, message string) error {
	return &Error{Code: code, Op: op, Message: message}
}

// resultError takes over the result's message.
func resultError(op string, r C.bwgo_result) error {
	if r.code == 0 {
		return nil
	}
	return failure(op, Code(r.code), takeString(r.message))
}

func takeString(s *C.char) string {
	if s == nil {
		return ""
	}
	text := C.GoString(s)
	C.free(unsafe.Pointer(s))
	return text
}

// byContext: an error that says "not in time", when it was the context that gave the time, is the context's, too. C's clock may be ahead of Go's timer.
func byContext(ctx context.Context, err error) error {
	var e *Error
	if err == nil || !errors.As(err, &e) || !e.Retriable() || e.cause != nil {
		return err
	}
	cause := ctx.Err()
	if deadline, ok := ctx.Deadline(); cause == nil && ok && time.Until(deadline) < 3*time.Millisecond {
		cause = context.DeadlineExceeded
	}
	if cause == nil {
		return err
	}
	return &Error{e.Code, e.Op, e.Message, cause}
}

// unknownOutcome: the wait ended, the call goes on for a bounded time.
func unknownOutcome(ctx context.Context, op string) error {
	return &Error{Code: ErrTimedOut, Op: op, Message: ctx.Err().Error() + "; the outcome is not known", cause: ctx.Err()}
}

func errClosed(op, what string) error { return failure(op, ErrClosed, "the "+what+" is closed") }

func errNil(op, what, how string) error {
	return failure(op, ErrInvalidArgument, "there is no "+what+": make one with "+how)
}

// fatal: there is no use in trying again with this handle.
func fatal(err error) bool {
	var c Code
	return !errors.As(err, &c) || c.Fatal() || c == ErrInvalidArgument
}
