package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
)

// AddLink adds a link to a peer: busway/link.h lists its options (Set("url", "tcp://…"), Set("topics", "…"), …). It is kept when this returns, and connects
// in the background: DescribeLink. ErrLinkExists, ErrInvalidArgument, ErrUnsupported (the URL), ErrNotPermitted.
func (a *Admin) AddLink(ctx context.Context, link string, options ...ConfigEntry) error {
	return a.link(ctx, "add link", C.BWGO_LINK_ADD, link, options)
}

// AlterLink changes options; Unset: the default. Set("paused", "true") stops it. ErrUnknownLink.
func (a *Admin) AlterLink(ctx context.Context, link string, options ...ConfigEntry) error {
	return a.link(ctx, "alter link", C.BWGO_LINK_ALTER, link, options)
}

// RemoveLink ends a link; what was copied stays. ErrUnknownLink.
func (a *Admin) RemoveLink(ctx context.Context, link string) error {
	return a.link(ctx, "remove link", C.BWGO_LINK_REMOVE, link, nil)
}

func (a *Admin) link(ctx context.Context, op string, what C.int, link string, options []ConfigEntry) error {
	_, err := a.call(ctx, op, func(b *bus, room *arena) C.bwgo_result {
		name, all := room.string(link), room.config(options)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_link(what, b.c, name, all, C.size_t(len(options)))
	})
	return err
}

// Links lists the links, and how far they are.
func (a *Admin) Links(ctx context.Context) (JSON, error) {
	return a.json(ctx, "links", C.BWGO_LINKS, "", "", "", 0, 0)
}

// DescribeLink is one of them, with its partitions. ErrUnknownLink.
func (a *Admin) DescribeLink(ctx context.Context, link string) (JSON, error) {
	return a.json(ctx, "describe link", C.BWGO_LINK, link, "", "", 0, 0)
}

// Promote makes a mirror an origin: it takes writes, and the former origin is fenced when it is reached. ErrLogsDiverged: records that were acknowledged
// as replicated are not in it; force promotes it all the same. ErrInvalidArgument: it is no mirror.
func (a *Admin) Promote(ctx context.Context, topic string, force bool) error {
	_, err := a.call(ctx, "promote", func(b *bus, room *arena) C.bwgo_result {
		name := room.string(topic)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_promote(b.c, name, C.bool(force))
	})
	return err
}

// Tails lists what was kept aside of origins that were fenced; topic "": of all.
func (a *Admin) Tails(ctx context.Context, topic string) (JSON, error) {
	return a.json(ctx, "tails", C.BWGO_TAILS, topic, "", "", 0, 0)
}

// UserKind is how a user proves who he is.
type UserKind int

// Kinds of users.
const (
	PasswordUser    UserKind = C.BW_USER_PASSWORD
	TokenUser       UserKind = C.BW_USER_TOKEN
	CertificateUser UserKind = C.BW_USER_CERTIFICATE
)

// SetUser makes a user, or changes one; secret is the password, "" with the other kinds. ErrInvalidArgument, ErrNotPermitted, ErrLimitReached.
func (a *Admin) SetUser(ctx context.Context, name string, kind UserKind, role, secret string) error {
	_, err := a.call(ctx, "set user", func(b *bus, room *arena) C.bwgo_result {
		n, r, s := room.string(name), room.string(role), room.optional(secret)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_user_set(b.c, n, C.int(kind), r, s)
	})
	return err
}

// AddToken makes a user of kind TokenUser and returns the token's text, which nobody can ask for again.
func (a *Admin) AddToken(ctx context.Context, name, role string) (string, error) {
	made := make(chan string, 1)
	_, err := a.call(ctx, "add token", func(b *bus, room *arena) C.bwgo_result {
		n, r, text := room.string(name), room.string(role), (*C.char)(room.room(1, C.BW_TOKEN_MAX))
		if room.fail != nil {
			return badName
		}
		result := C.bwgo_token_add(b.c, n, r, text)
		made <- C.GoString(text)
		return result
	})
	if err != nil {
		return "", err
	}
	return <-made, nil
}

// RemoveUser removes a user; his connections are closed. ErrNotFound, ErrNotPermitted.
func (a *Admin) RemoveUser(ctx context.Context, name string) error {
	_, err := a.call(ctx, "remove user", func(b *bus, room *arena) C.bwgo_result {
		n := room.string(name)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_user_remove(b.c, n)
	})
	return err
}

// Users lists the users; never a secret.
func (a *Admin) Users(ctx context.Context) (JSON, error) {
	return a.json(ctx, "users", C.BWGO_USERS, "", "", "", 0, 0)
}
