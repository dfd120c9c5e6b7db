package grpcclient

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/retry"
)

// callError is a call that ended without success. To package status it is the status of its last attempt; errors.As
// finds the *retry.Error in it.
type callError struct {
	retries *retry.Error
	status  *status.Status
	timeout bool // one of our own timeouts ended the last attempt
}

// Error is the text of the status where there was one attempt and never a question of another, as without this package;
// else it tells of the attempts as well.
func (e *callError) Error() string {
	if e.retries.Attempts == 1 && e.retries.Reason == retry.Stopped {
		return e.retries.Err.Error()
	}
	return e.retries.Error()
}

// GRPCStatus is asked by package status.
func (e *callError) GRPCStatus() *status.Status { return e.status }

// Unwrap gives the retry.Error, and with it the error of the last attempt.
func (e *callError) Unwrap() error { return e.retries }

// Is makes a timeout of ours what any other deadline is. A status error alone is not.
func (e *callError) Is(target error) bool { return e.timeout && target == context.DeadlineExceeded }

// A refusal is that of a breaker, as a status error.
type refusal struct{ *breaker.OpenError }

// GRPCStatus is asked by package status.
func (e refusal) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

// Unwrap gives the breaker's own error.
func (e refusal) Unwrap() error { return e.OpenError }

// statusOf is the status that err is to a caller.
func statusOf(err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}
