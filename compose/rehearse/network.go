package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	watchEvery = 20 * time.Millisecond
	stateEvery = 3 * time.Second
	// company is how long a first failure is held back: what breaks one node often breaks the others too, and then the
	// report must say so.
	company = 3 * time.Second
	// mute is how long a container may be down without its log saying why.
	mute = 5 * time.Second
)

// failures is an error that lists what went wrong in a step.
type failures []failureReport

func (f failures) Error() string {
	var all []string
	for i := range f {
		all = append(all, f[i].Sentence)
	}
	return strings.Join(all, "; ")
}

func failf(node string, format string, values ...any) failures {
	return failures{{Node: node, Sentence: fmt.Sprintf(format, values...)}}
}

// network is the Compose project of a rehearsal.
type network struct {
	*engine
	project string
	file    string
	// resolved is the content of file.
	resolved *composeFile
	dir      string
	data     string
	// kept are the volumes of nodes that are never wiped, as the Compose file names them.
	kept []string
	// snapshot is a folder to fill each new volume of a node with, or empty.
	snapshot string
	stall    time.Duration
	nodes    []*node
	others   []string
	watchers sync.WaitGroup
}

func (w *network) compose(ctx context.Context, args ...string) error {
	all := append(slices.Clone(w.engine.compose), "-p", w.project, "-f", w.file)
	_, err := run(ctx, append(all, args...)...)
	return err
}

func (w *network) services(nodes []*node) (names []string) {
	for _, n := range nodes {
		names = append(names, n.service)
	}
	return names
}

// watch starts watching the nodes, until ctx ends.
func (w *network) watch(ctx context.Context) {
	for _, n := range w.nodes {
		w.watchers.Go(func() { n.poll(ctx) })
	}
	w.watchers.Go(func() { w.watchStates(ctx) })
}

// startOthers starts the services that are not nodes, and waits until those with a healthcheck are healthy.
func (w *network) startOthers(ctx context.Context, services []string) error {
	if len(services) == 0 {
		return nil
	}
	all, err := w.containers(ctx, w.project)
	if err != nil {
		return err
	}
	var ids []string
	for _, service := range services {
		ids = append(ids, all[service].ID)
	}
	if err := w.startContainers(ctx, ids); err != nil {
		return err
	}
	for deadline := time.Now().Add(w.stall); ; {
		sick, err := w.sick(ctx, services)
		if err != nil || sick == "" {
			return err
		}
		if time.Now().After(deadline) {
			return failf("", "%s after %s", sick, w.stall)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// startContainers starts them at the same time, since the chain does not wait.
func (w *network) startContainers(ctx context.Context, ids []string) error {
	problems := make([]error, len(ids))
	var starting sync.WaitGroup
	for i, id := range ids {
		starting.Go(func() {
			_, problems[i] = w.docker(ctx, "start", id)
		})
	}
	starting.Wait()
	return errors.Join(problems...)
}

// sick names a service that is not running or not healthy.
func (w *network) sick(ctx context.Context, services []string) (string, error) {
	all, err := w.containers(ctx, w.project)
	if err != nil {
		return "", err
	}
	for _, service := range services {
		c, found := all[service]
		switch {
		case !found:
			return fmt.Sprintf("service %s has no container", service), nil
		case !c.State.Running && c.State.Status == "exited" && c.State.ExitCode == 0 && !c.stays():
			// It had one job, such as creating a database.
		case !c.State.Running:
			return fmt.Sprintf("service %s is not running (%s, exit code %d)", service, c.State.Status, c.State.ExitCode), nil
		case c.State.Health != nil && c.State.Health.Status != "healthy":
			return fmt.Sprintf("service %s is %s", service, c.State.Health.Status), nil
		}
	}
	return "", nil
}

// create makes the containers and volumes of nodes and other services. fill fills the volumes of the nodes.
func (w *network) create(ctx context.Context, nodes []*node, others []string, fill func(n *node) error) error {
	services := append(w.services(nodes), others...)
	if err := w.compose(ctx, append([]string{"up", "--no-start", "--no-deps"}, services...)...); err != nil {
		return err
	}
	all, err := w.containers(ctx, w.project)
	if err != nil {
		return err
	}
	for _, service := range services {
		c, found := all[service]
		if !found {
			return fmt.Errorf("service %s has no container", service)
		}
		if err := w.connect(ctx, service, c); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		n.begin()
		n.with(func() { n.container, n.down = all[n.service].ID, true })
		if err := fill(n); err != nil {
			return err
		}
	}
	return nil
}

// connect connects a new container to its networks, which docker-compose 1.29 does only at its own start.
func (w *network) connect(ctx context.Context, service string, c container) error {
	for name, aliases := range w.resolved.networksOf(service, w.project) {
		if _, connected := c.NetworkSettings.Networks[name]; connected {
			continue
		}
		args := []string{"network", "connect"}
		for _, alias := range aliases {
			args = append(args, "--alias", alias)
		}
		if _, err := w.docker(ctx, append(args, name, c.ID)...); err != nil {
			return fmt.Errorf("cannot connect %s to its network: %w", service, err)
		}
	}
	return nil
}

// fillNew fills a new volume.
func (w *network) fillNew(ctx context.Context) func(*node) error {
	return func(n *node) error {
		if w.snapshot == "" {
			return nil
		}
		return w.fill(ctx, n.id(), w.snapshot, w.data)
	}
}

// startNew starts the containers of nodes for the first time.
func (w *network) startNew(ctx context.Context, nodes ...*node) error {
	var ids []string
	for _, n := range nodes {
		ids = append(ids, n.id())
	}
	if err := w.startContainers(ctx, ids); err != nil {
		return fmt.Errorf("cannot start the nodes: %w", err)
	}
	for _, n := range nodes {
		n.did(didStart)
	}
	return nil
}

// start starts a container again.
func (w *network) start(ctx context.Context, n *node) error {
	if _, err := w.docker(ctx, "start", n.id()); err != nil {
		return fmt.Errorf("cannot start %s: %w", n.service, err)
	}
	n.did(didStart)
	return nil
}

// followLogs reads the log of each node's container, and of each that replaces it, until ctx ends.
func (w *network) followLogs(ctx context.Context) {
	for _, n := range w.nodes {
		w.watchers.Go(func() { w.followLog(ctx, n) })
	}
}

func (w *network) followLog(ctx context.Context, n *node) {
	var id string
	var since time.Time
	for ctx.Err() == nil {
		if now := n.id(); now != id {
			id, since = now, time.Time{}
		}
		if id != "" {
			since = w.follow(ctx, id, since, func(at time.Time, text string) {
				if n.id() == id {
					n.line(at, text)
				}
			})
		}
		if pause(ctx, pollEvery) != nil {
			return
		}
	}
}

// watchStates notices containers that ended although nobody stopped them and their log does not say why.
func (w *network) watchStates(ctx context.Context) {
	since := map[string]time.Time{}
	for pause(ctx, stateEvery) == nil {
		all, err := w.containers(ctx, w.project)
		if err != nil {
			continue
		}
		for _, n := range w.nodes {
			c, found := all[n.service]
			n.with(func() {
				if n.down || !found || c.ID != n.container || c.State.Status != "exited" && c.State.Status != "dead" {
					delete(since, n.service)
					return
				}
				if since[n.service].IsZero() {
					since[n.service] = time.Now()
				}
				if time.Since(since[n.service]) > mute && !n.seen.saw(endedMutely, -1) && !n.seen.saw("run failed", -1) {
					code := c.State.ExitCode
					n.seen.add(event{Time: time.Now(), Name: endedMutely, ExitCode: &code, Error: endOf(c)})
				}
			})
		}
	}
}

func endOf(c container) string {
	text := fmt.Sprintf("its container is %s (exit code %d)", c.State.Status, c.State.ExitCode)
	if c.State.OOMKilled {
		text += ", killed because it ran out of memory"
	}
	if c.State.Error != "" {
		text += ": " + c.State.Error
	}
	return text
}

// await waits until cond holds for each of nodes. It fails if a node ended unexpectedly, or made no progress for the
// stall time, so it always ends.
func (w *network) await(ctx context.Context, what string, nodes []*node, cond func(n *node) bool) error {
	begun := time.Now()
	var first time.Time
	for {
		var waiting []*node
		var found failures
		for _, n := range nodes {
			if f := w.trouble(n); f != nil {
				found = append(found, *f)
			} else if !cond(n) {
				waiting = append(waiting, n)
				if f := w.stalled(ctx, n, begun, what); f != nil {
					found = append(found, *f)
				}
			}
		}
		if len(found) == 0 && len(waiting) == 0 {
			return nil
		}
		if len(found) > 0 {
			if first.IsZero() {
				first = time.Now()
			}
			if len(found) == len(nodes) || time.Since(first) > company {
				return merge(found)
			}
		}
		if err := pause(ctx, watchEvery); err != nil {
			return failf("", "%s, while waiting for %s: %s", reasonOf(err), what, w.overview(waiting))
		}
	}
}

func (w *network) trouble(n *node) (f *failureReport) {
	n.with(func() { f = n.seen.trouble() })
	return f
}

// stalled gives a failure if n has made no progress for too long.
func (w *network) stalled(ctx context.Context, n *node, begun time.Time, what string) *failureReport {
	var last time.Time
	var log []string
	var end string
	n.with(func() { last, log, end = n.progress, n.seen.tail(time.Time{}), n.seen.lastEnd() })
	if begun.After(last) {
		last = begun
	}
	if time.Since(last) < w.stall {
		return nil
	}
	sentence := fmt.Sprintf("%s made no progress for %s, while waiting for %s: it is %s", n.service, w.stall, what, n.where())
	if end != "" {
		sentence += "; its last run " + end
	}
	// The node itself comes last: an unhealthy node says less than a missing chain.
	for _, services := range [][]string{w.others, {n.service}} {
		if sick, err := w.sick(ctx, services); err == nil && sick != "" {
			sentence += "; " + sick
			break
		}
	}
	return &failureReport{Node: n.service, Sentence: sentence, Log: log}
}

func (w *network) overview(nodes []*node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.service+" is "+n.where())
	}
	return strings.Join(all, "; ")
}

// merge combines failures that say the same about several nodes.
func merge(found failures) failures {
	var merged failures
	for _, f := range found {
		about := strings.TrimPrefix(f.Sentence, f.Node)
		same := slices.IndexFunc(merged, func(m failureReport) bool {
			return strings.HasPrefix(m.Sentence, m.Node+about)
		})
		if same < 0 {
			merged = append(merged, f)
			continue
		}
		if !strings.Contains(merged[same].Sentence, " (the same on ") {
			merged[same].Sentence += " (the same on " + f.Node + ")"
		} else {
			merged[same].Sentence = strings.TrimSuffix(merged[same].Sentence, ")") + ", " + f.Node + ")"
		}
	}
	return merged
}

// kill kills the container as a machine failure would, and starts it again.
func (w *network) kill(ctx context.Context, n *node) error {
	n.did(didKill)
	if _, err := w.docker(ctx, "kill", "--signal", "KILL", n.id()); err != nil {
		return fmt.Errorf("cannot kill %s: %w", n.service, err)
	}
	return w.start(ctx, n)
}

// stop stops the container with SIGTERM and returns its exit code.
func (w *network) stop(ctx context.Context, n *node) (int, error) {
	n.did(didStop)
	if _, err := runWithoutLimit(ctx, "docker", "stop", n.id()); err != nil {
		return 0, fmt.Errorf("cannot stop %s: %w", n.service, err)
	}
	found, err := w.inspect(ctx, n.id())
	if err != nil {
		return 0, err
	}
	return found[0].State.ExitCode, nil
}

// wipe removes the containers of nodes with their state and checkpoint.
func (w *network) wipe(ctx context.Context, services []string) error {
	all, err := w.containers(ctx, w.project)
	if err != nil {
		return err
	}
	var ids []string
	volumes := map[string]bool{}
	for _, service := range services {
		c, found := all[service]
		if !found {
			continue
		}
		ids = append(ids, c.ID)
		for _, mount := range c.Mounts {
			if mount.Type == "volume" && mount.RW && !slices.Contains(w.kept, strings.TrimPrefix(mount.Name, w.project+"_")) {
				volumes[mount.Name] = true
			}
		}
	}
	for _, n := range w.nodes {
		if slices.Contains(services, n.service) {
			n.with(func() { n.container, n.down = "", true })
		}
	}
	if len(ids) == 0 {
		return nil
	}
	// --volumes removes those without a name.
	if _, err := w.docker(ctx, append([]string{"rm", "--force", "--volumes"}, ids...)...); err != nil {
		return fmt.Errorf("cannot remove the containers of %s: %w", strings.Join(services, ", "), err)
	}
	return w.removeVolumes(ctx, slices.Sorted(maps.Keys(volumes)))
}

// removeVolumes removes volumes that Compose made for this project, and refuses to remove others.
func (w *network) removeVolumes(ctx context.Context, names []string) error {
	for _, name := range names {
		if found, err := w.docker(ctx, "volume", "ls", "--quiet", "--filter", "name=^"+name+"$"); err == nil && found == "" {
			continue
		}
		project, err := w.docker(ctx, "volume", "inspect", "--format", `{{index .Labels "`+projectLabel+`"}}`, name)
		if err != nil {
			return fmt.Errorf("cannot inspect the volume %s: %w", name, err)
		}
		if strings.TrimSpace(project) != w.project {
			return fmt.Errorf("%w: the rehearsal does not own the volume %s, so it was not wiped: let Compose name it, or keep it with --keep-volume",
				errUnavailable, name)
		}
		if _, err := w.docker(ctx, "volume", "rm", name); err != nil {
			return fmt.Errorf("cannot wipe the volume %s: does another service mount it, too? Keep it with --keep-volume: %w", name, err)
		}
	}
	return nil
}

// remove removes everything with the label of the project. Compose's 'down' would remove what the file names, no matter
// who made it, and would wait for each container's grace period.
func (w *network) remove(ctx context.Context) error {
	label := "label=" + projectLabel + "=" + w.project
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "--all"}, []string{"rm", "--force", "--volumes"}},
		{[]string{"volume", "ls"}, []string{"volume", "rm"}},
		{[]string{"network", "ls"}, []string{"network", "rm"}},
	} {
		ids, err := w.docker(ctx, append(kind.list, "--quiet", "--filter", label)...)
		if err != nil {
			return err
		}
		found := strings.Fields(ids)
		problems := make([]error, len(found))
		var removing sync.WaitGroup
		for i, id := range found {
			removing.Go(func() { _, problems[i] = w.docker(ctx, append(slices.Clone(kind.remove), id)...) })
		}
		removing.Wait()
		if err := errors.Join(problems...); err != nil {
			return err
		}
	}
	return nil
}

// removal gives what remove does as a shell command.
func removal(project string) string {
	label := "--filter label=" + projectLabel + "=" + project
	return fmt.Sprintf("docker ps -aq %[1]s | xargs -r docker rm -fv; docker volume ls -q %[1]s | xargs -r docker volume rm; "+
		"docker network ls -q %[1]s | xargs -r docker network rm", label)
}

// writeFile writes the Compose file of the project.
func (w *network) writeFile(f *composeFile) error {
	text, err := f.text()
	if err != nil {
		return err
	}
	w.resolved = f
	w.file = filepath.Join(w.dir, "compose.yaml")
	if err := os.WriteFile(w.file, text, 0o600); err != nil {
		return fmt.Errorf("cannot write the Compose file: %w", err)
	}
	return nil
}

// pause waits, and fails if ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	case <-time.After(d):
		return nil
	}
}

// reasonOf says why a context ended.
func reasonOf(err error) string {
	if errors.Is(err, errTimeout) {
		return errTimeout.Error()
	}
	return "the rehearsal was interrupted"
}
