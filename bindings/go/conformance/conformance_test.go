package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"busway"
)

const folder = "../../../tests/conformance"

// load reads a scenario; every @ is a prefix of this run's own.
func load(path string) (object, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	v, err := parse([]byte(strings.ReplaceAll(string(text), "@", fmt.Sprintf("cg%08x-", rand.Uint32()))))
	if err != nil {
		return nil, err
	}
	return expand(v).(object), nil
}

// onBus is what a bus can do, by its URL and transport.
func onBus(t *testing.T, url, dir, transport string) *place {
	text, err := os.ReadFile(folder + "/capabilities.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	scheme, _, _ := strings.Cut(url, ":")
	scheme = strings.TrimPrefix(scheme, "tls+")
	list, ok := all[scheme]
	if !ok {
		t.Fatalf("capabilities.json says nothing of %s:", scheme)
	}
	p := &place{url: url, dir: dir, transport: transport, can: map[string]bool{}}
	for _, name := range list {
		p.can[name] = true
	}
	if scheme == "ipc" {
		scheme = "daemon"
	}
	p.can[scheme] = true
	if transport == "direct" || transport == "ipc" {
		p.can[transport] = true
	}
	return p
}

// aFolder makes a folder; its daemon is ended with the test.
func aFolder(t *testing.T, transport string) *place {
	dir, err := os.MkdirTemp("", "bwgo")
	if err != nil {
		t.Fatal(err)
	}
	url := "dir:" + dir
	t.Cleanup(func() {
		b, err := busway.Open(contextFor(t, 10*time.Second), url)
		if err == nil {
			status, err := busway.Decode[struct{ PID int }](b.Admin().Status(contextFor(t, 10*time.Second)))
			b.Close()
			if err == nil && status.PID > 1 {
				_ = syscall.Kill(status.PID, syscall.SIGTERM)
				for i := 0; i < 500 && syscall.Kill(status.PID, 0) == nil; i++ {
					time.Sleep(10 * time.Millisecond)
				}
			}
		}
		os.RemoveAll(dir)
	})
	return onBus(t, url, dir, transport)
}

func TestScenarios(t *testing.T) {
	if url := os.Getenv("BUSWAY_TEST_URL"); url != "" {
		dir := ""
		if strings.HasPrefix(url, "dir:") {
			dir, _, _ = strings.Cut(url[4:], "?")
		}
		runAll(t, onBus(t, url, dir, os.Getenv("BUSWAY_TEST_TRANSPORT")))
		return
	}
	for _, transport := range []string{"direct", "ipc"} {
		transport := transport
		if only := os.Getenv("BUSWAY_TEST_TRANSPORT"); only != "" && only != transport {
			continue
		}
		p := aFolder(t, transport)
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			runAll(t, p)
		})
	}
}

func runAll(t *testing.T, p *place) {
	scenarios := os.Getenv("CONFORMANCE_SCENARIOS")
	if scenarios == "" {
		scenarios = folder + "/scenarios"
	}
	files, err := filepath.Glob(scenarios + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	only := regexp.MustCompile(os.Getenv("CONFORMANCE_ONLY"))
	for _, file := range files {
		file, name := file, strings.TrimSuffix(filepath.Base(file), ".json")
		if !only.MatchString(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario, err := load(file)
			if err != nil {
				t.Fatal(err)
			}
			why, skipped := p.run(scenario)
			if skipped != "" {
				t.Skip("SKIP: " + skipped)
			}
			if why != "" {
				t.Error(why)
			}
		})
	}
}

func contextFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
