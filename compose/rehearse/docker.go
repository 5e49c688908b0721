package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// commandTimeout is for every command but those that follow, copy or stop: a hanging engine must not hang the
// rehearsal.
const commandTimeout = 3 * time.Minute

// errUnavailable is in errors that say nothing about the plan: no rehearsal can run here.
var errUnavailable = errors.New("the rehearsal cannot run")

// engine runs the command lines of Docker and Compose.
type engine struct {
	// compose is "docker-compose", or "docker" and "compose".
	compose                       []string
	dockerVersion, composeVersion string
}

// findEngine finds the command of Compose, which is wanted unless that is empty, and checks that a Docker engine
// answers.
func findEngine(ctx context.Context, wanted string) (*engine, error) {
	e := &engine{}
	version, err := run(ctx, "docker", "version", "--format", "{{.Server.Version}}")
	if err != nil {
		return nil, fmt.Errorf("%w: no Docker engine answers: start one, or set DOCKER_HOST: %w", errUnavailable, err)
	}
	e.dockerVersion = strings.TrimSpace(version)
	choice := [][]string{{"docker", "compose"}, {"docker-compose"}}
	if wanted != "" {
		choice = [][]string{strings.Fields(wanted)}
	}
	for _, compose := range choice {
		out, err := run(ctx, append(compose[:len(compose):len(compose)], "version", "--short")...)
		if err != nil {
			continue
		}
		e.compose, e.composeVersion = compose, strings.Join(compose, " ")+" "+strings.TrimSpace(out)
		return e, nil
	}
	if wanted != "" {
		return nil, fmt.Errorf("%w: command not found: %q: see --compose", errUnavailable, wanted)
	}
	return nil, fmt.Errorf("%w: neither 'docker compose' nor 'docker-compose' was found: install one of them", errUnavailable)
}

// command is exec.CommandContext for a process in its own group, so that Ctrl-C in the terminal reaches only the
// rehearsal, which then ends its commands in order.
func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The group, because 'docker compose' is a process of its own.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// run returns what a command writes to stdout. The error has what it writes to stderr.
func run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return runWithoutLimit(ctx, args...)
}

// runWithoutLimit is run for what may take as long as the rehearsal: a stop has the grace period of its container.
func runWithoutLimit(ctx context.Context, args ...string) (string, error) {
	var out, complaint bytes.Buffer
	cmd := command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

func (e *engine) docker(ctx context.Context, args ...string) (string, error) {
	return run(ctx, append([]string{"docker"}, args...)...)
}

// container is the part of 'docker inspect' that the rehearsal uses.
type container struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Status    string
		Running   bool
		OOMKilled bool
		ExitCode  int
		Error     string
		Health    *struct{ Status string }
	}
	Mounts []struct {
		Type, Name, Destination string
		RW                      bool
	}
	HostConfig struct {
		RestartPolicy struct{ Name string }
	}
	NetworkSettings struct{ Networks map[string]any }
	Config          struct {
		Image  string
		Labels map[string]string
	}
}

// stays reports whether the container is meant to run forever.
func (c *container) stays() bool {
	return c.HostConfig.RestartPolicy.Name == "always" || c.HostConfig.RestartPolicy.Name == "unless-stopped"
}

const (
	projectLabel = "com.docker.compose.project"
	serviceLabel = "com.docker.compose.service"
	oneOffLabel  = "com.docker.compose.oneoff"
)

// containers returns all containers of project, by service.
func (e *engine) containers(ctx context.Context, project string) (map[string]container, error) {
	ids, err := e.docker(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label="+projectLabel+"="+project)
	if err != nil {
		return nil, err
	}
	all := map[string]container{}
	if strings.TrimSpace(ids) == "" {
		return all, nil
	}
	found, err := e.inspect(ctx, strings.Fields(ids)...)
	if err != nil {
		return nil, err
	}
	for _, c := range found {
		if c.Config.Labels[oneOffLabel] != "True" { // that is not the service
			all[c.Config.Labels[serviceLabel]] = c
		}
	}
	return all, nil
}

func (e *engine) inspect(ctx context.Context, ids ...string) ([]container, error) {
	text, err := e.docker(ctx, append([]string{"inspect", "--type", "container"}, ids...)...)
	if err != nil {
		return nil, err
	}
	var found []container
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return nil, fmt.Errorf("cannot read the answer of docker inspect: %w", err)
	}
	return found, nil
}

// follow calls line for each line of the container's log after since, until the container ends or ctx does. It returns
// the time of the last line.
func (e *engine) follow(ctx context.Context, id string, since time.Time, line func(at time.Time, text string)) time.Time {
	args := []string{"docker", "logs", "--follow", "--timestamps"}
	if !since.IsZero() {
		args = append(args, "--since", since.UTC().Format(time.RFC3339Nano))
	}
	reader, writer := io.Pipe()
	cmd := command(ctx, append(args, id)...)
	// One pipe for both keeps their order.
	cmd.Stdout, cmd.Stderr = writer, writer
	go func() { _ = writer.CloseWithError(cmd.Run()) }()
	scanner := bufio.NewScanner(reader)
	scanner.Buffer(nil, 1<<20)
	for from := since; scanner.Scan(); {
		// --since includes the line at that time. The lines of the two streams are not quite in the order of time.
		if at, text, ok := splitTimestamp(scanner.Text()); ok && at.After(from) {
			if at.After(since) {
				since = at
			}
			line(at, text)
		}
	}
	// A line that is too long must not leave the writer hanging.
	_, _ = io.Copy(io.Discard, reader)
	return since
}

// digest returns the SHA-256 of a file in a container, whether or not it runs.
func (e *engine) digest(ctx context.Context, id, path string) (string, error) {
	var digest string
	err := e.export(ctx, id, path, func(archive *tar.Reader) error {
		for {
			header, err := archive.Next()
			if err != nil {
				return fmt.Errorf("%s is not a regular file: %w", path, err)
			}
			if header.Typeflag != tar.TypeReg {
				continue
			}
			sum := sha256.New()
			if _, err := io.Copy(sum, archive); err != nil {
				return fmt.Errorf("cannot read %s: %w", path, err)
			}
			digest = hex.EncodeToString(sum.Sum(nil))
			return nil
		}
	})
	return digest, err
}

// export passes the archive of a path in a container to use. It needs no shell in the image.
func (e *engine) export(ctx context.Context, id, path string, use func(*tar.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := command(ctx, "docker", "cp", "--follow-link", id+":"+path, "-")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("cannot read from docker cp: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start docker cp: %w", err)
	}
	useErr := use(tar.NewReader(out))
	if useErr == nil {
		// use may stop before the end of the archive.
		cancel()
	}
	if waitErr := cmd.Wait(); waitErr != nil && useErr != nil {
		return fmt.Errorf("cannot copy %s out of the container: %w: %s", path, useErr, strings.TrimSpace(complaint.String()))
	}
	return useErr
}
