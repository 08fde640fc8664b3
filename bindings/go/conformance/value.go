package conformance

// What the scenarios' data means: expansion, substitution, matching. Numbers are int64 where they are whole, else float64.

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

type object = map[string]any

// parse reads one JSON value.
func parse(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return plain(v), nil
}

func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case object:
		for k := range v {
			v[k] = plain(v[k])
		}
	}
	return v
}

func dump(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(text) > 400 {
		text = append(text[:400:400], "…"...)
	}
	return string(text)
}

// ---- generate, repeat ----

func expand(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = expand(v[i])
		}
		return out
	case object:
		if n, ok := v["generate"]; ok && v["each"] != nil {
			each, from := expand(v["each"]), integer(v["from"], 0)
			list := make([]any, integer(n, 0))
			for i := range list {
				list[i] = numbered(each, from+int64(i))
			}
			return list
		}
		if text, ok := v["repeat"].(string); ok && v["times"] != nil {
			return strings.Repeat(text, int(integer(v["times"], 0)))
		}
		out := object{}
		for k := range v {
			out[k] = expand(v[k])
		}
		return out
	}
	return v
}

func numbered(v any, n int64) any {
	switch v := v.(type) {
	case string:
		if v == "#" {
			return n
		}
		return strings.ReplaceAll(v, "#", strconv.FormatInt(n, 10))
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = numbered(v[i], n)
		}
		return out
	case object:
		out := object{}
		for k := range v {
			out[k] = numbered(v[k], n)
		}
		return out
	}
	return v
}

// ---- $name ----

func (w *world) substitute(v any) any {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "$") {
			return w.substituted(v)
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = w.substitute(v[i])
		}
		return out
	case object:
		out := object{}
		for k := range v {
			out[k] = w.substitute(v[k])
		}
		return out
	}
	return v
}

func (w *world) substituted(text string) any {
	name, sum := text[1:], int64(0)
	if i := strings.IndexAny(name, "+-"); i >= 0 {
		sum, _ = strconv.ParseInt(strings.TrimPrefix(name[i:], "+"), 10, 64)
		name = name[:i]
	}
	switch name {
	case "":
		return text
	case "now":
		return time.Now().UnixMilli() + sum
	case "dir":
		return w.bus.dir
	}
	saved, ok := w.vars[name]
	if !ok {
		return text
	}
	if n, ok := saved.(int64); ok {
		return n + sum
	}
	return saved
}

// at is what lies under a path: keys and list positions joined by dots.
func at(v any, path string) (any, bool) {
	for path != "" {
		element, rest, _ := strings.Cut(path, ".")
		switch in := v.(type) {
		case []any:
			i, err := strconv.Atoi(element)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		case object:
			var ok bool
			if v, ok = in[element]; !ok {
				return nil, false
			}
		default:
			return nil, false
		}
		path = rest
	}
	return v, true
}

// ---- bytes ----

// seenBytes is a text when the bytes are UTF-8, else hexadecimal.
func seenBytes(b []byte) any {
	switch {
	case b == nil:
		return nil
	case utf8.Valid(b):
		return string(b)
	}
	return object{"hex": hex.EncodeToString(b)}
}

func (w *world) bytes(v any) []byte {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return append([]byte{}, v...)
	case object:
		if text, ok := v["hex"].(string); ok {
			b, err := hex.DecodeString(text)
			if err == nil {
				return b
			}
		}
	}
	w.broken("%s is no bytes", dump(v))
	return nil
}

// ---- matching ----

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// absent is what is seen where nothing is.
type absent struct{}

// mismatch is "" when seen matches what is wanted, else where and how it does not.
func mismatch(seen, wanted any) string {
	switch wanted := wanted.(type) {
	case object:
		return objectMismatch(seen, wanted)
	case []any:
		list, ok := seen.([]any)
		if !ok || len(list) != len(wanted) {
			return fmt.Sprintf(": %s, wanted a list of %d: %s", dump(seen), len(wanted), dump(wanted))
		}
		for i := range wanted {
			if why := mismatch(list[i], wanted[i]); why != "" {
				return fmt.Sprintf(".%d%s", i, why)
			}
		}
		return ""
	}
	a, ok := number(seen)
	b, both := number(wanted)
	if ok && both {
		if a == b {
			return ""
		}
	} else if seen == wanted {
		return ""
	}
	return fmt.Sprintf(": %s, wanted %s", dump(seen), dump(wanted))
}

func objectMismatch(seen any, wanted object) string {
	for name, x := range wanted {
		if len(wanted) == 1 && strings.HasPrefix(name, "$") {
			if holds(seen, name, x) {
				return ""
			}
			return fmt.Sprintf(": %s, wanted %s", dump(seen), dump(wanted))
		}
	}
	in, ok := seen.(object)
	if !ok {
		return fmt.Sprintf(": %s, wanted %s", dump(seen), dump(wanted))
	}
	names := make([]string, 0, len(wanted))
	for name := range wanted {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		there, ok := in[name]
		if !ok {
			if o, is := wanted[name].(object); !is || o["$absent"] == nil {
				return fmt.Sprintf(".%s: not there, wanted %s", name, dump(wanted[name]))
			}
			there = absent{}
		}
		if why := mismatch(there, wanted[name]); why != "" {
			return "." + name + why
		}
	}
	return ""
}

func holds(seen any, name string, x any) bool {
	a, isNumber := number(seen)
	b, _ := number(x)
	list, isList := seen.([]any)
	text, isText := seen.(string)
	has := func() bool {
		if part, ok := x.(string); ok && isText {
			return strings.Contains(text, part)
		}
		for _, v := range list {
			if mismatch(v, x) == "" {
				return true
			}
		}
		return false
	}
	switch name {
	case "$ge":
		return isNumber && a >= b
	case "$le":
		return isNumber && a <= b
	case "$gt":
		return isNumber && a > b
	case "$lt":
		return isNumber && a < b
	case "$not":
		return mismatch(seen, x) != ""
	case "$has":
		return has()
	case "$hasnot":
		return (isList || isText) && !has()
	case "$count":
		if o, ok := seen.(object); ok {
			return float64(len(o)) == b
		}
		return isList && float64(len(list)) == b
	case "$absent":
		return seen == nil || seen == absent{}
	case "$type":
		return typeName(seen) == x
	case "$set":
		wanted, _ := x.([]any)
		return isList && isSet(list, wanted)
	}
	alternatives, _ := x.([]any)
	for _, alternative := range alternatives {
		if matches := mismatch(seen, alternative) == ""; matches == (name == "$any") {
			return matches
		}
	}
	return name == "$all"
}

func isSet(seen, wanted []any) bool {
	if len(seen) != len(wanted) {
		return false
	}
	taken := make([]bool, len(seen))
next:
	for _, want := range wanted {
		for i := range seen {
			if !taken[i] && mismatch(seen[i], want) == "" {
				taken[i] = true
				continue next
			}
		}
		return false
	}
	return true
}

func typeName(v any) string {
	switch v.(type) {
	case int64, float64:
		return "number"
	case string:
		return "text"
	case []any:
		return "list"
	case object:
		return "object"
	case bool:
		return "bool"
	}
	return "null"
}
