package busway

import (
	"strings"
	"testing"
)

func TestLinksUsersAndMirrorsFromOutside(t *testing.T) {
	b := aBus(t)
	a, ctx := b.Admin(), soon(t)
	is(t, a.RemoveLink(ctx, "there.is.none"), ErrUnknownLink)
	is(t, a.AddLink(ctx, "bad", Set("nonsense", "1")), ErrInvalidArgument)
	must(t, a.AddLink(ctx, "far", Set("url", "ipc:///there/is/none.sock"), Set("topics", "x"), Set("paused", "true")))
	is(t, a.AddLink(ctx, "far", Set("url", "ipc:///there/is/none.sock"), Set("topics", "x")), ErrLinkExists)
	must(t, a.AlterLink(ctx, "far", Set("rate", "1M"), Unset("compression")))
	links, err := Decode[[]struct{ Name string }](a.Links(ctx))
	must(t, err)
	one, err := Decode[struct{ Name, State string }](a.DescribeLink(ctx, "far"))
	must(t, err)
	if len(links) != 1 || one.Name != "far" {
		t.Fatal(links, one)
	}
	must(t, a.RemoveLink(ctx, "far"))

	topic := aTopic(t, b, 1)
	is(t, a.Promote(ctx, topic, false), ErrInvalidArgument)
	_, err = a.Tails(ctx, "")
	must(t, err)
	end, err := a.OffsetEnd(ctx, topic, 0, ReadVisible)
	must(t, err)
	if end != 0 {
		t.Fatal(end)
	}

	must(t, a.SetUser(ctx, "ann", PasswordUser, "admin", "a long enough secret"))
	token, err := a.AddToken(ctx, "meter-1", "produce")
	if err != nil { // the role's name is the daemon's matter
		token, err = a.AddToken(ctx, "meter-1", "admin")
	}
	must(t, err)
	users, err := a.Users(ctx)
	must(t, err)
	if len(token) < 10 || !strings.Contains(string(users), "meter-1") || strings.Contains(string(users), token) {
		t.Fatal(string(users))
	}
	must(t, a.RemoveUser(ctx, "ann"))
	must(t, a.RemoveUser(ctx, "meter-1"))
	is(t, a.RemoveUser(ctx, "ann"), ErrNotFound)
}
