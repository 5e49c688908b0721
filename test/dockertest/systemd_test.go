package dockertest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/dockertest"
)

// machineDockerfile makes a machine with systemd as process 1, to which a test adds its files. Kernels here may have the
// control groups of version 1, 2 or both: systemd gets those of version 2, of a namespace of its own.
const machineDockerfile = `FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends dbus systemd && rm -rf /var/lib/apt/lists/* && useradd -m sovereign
COPY --from=STAGE /entrypoint /src/bin/entrypoint
COPY --from=STAGE /opt/rollup/versions /opt/rollup/versions
COPY --from=STAGE /opt/rollup/versions /home/sovereign/versions
RUN cp /src/bin/entrypoint /home/sovereign/rollup-manager && cd /home/sovereign/versions && mv v1/migration v1/rollup-db-migration
COPY files /
RUN chown -R sovereign:sovereign /home/sovereign
ENV container=docker
CMD ["sh", "-c", "umount -R /sys/fs/cgroup; mount -o remount,rw /sys && mount -t cgroup2 none /sys/fs/cgroup && exec /lib/systemd/systemd"]
`

const (
	unitFile   = "../../systemd/rollup.service"
	systemdDoc = "../../docs/systemd.md"
	// killedBySystemd is in the log if systemd itself killed a process of the service.
	killedBySystemd = "with signal SIGKILL"
)

// machine is a container in which systemd is process 1. Its unit is rollup.
type machine struct {
	*dockertest.Container
	t *testing.T
}

// boot starts a machine with these files, and waits for systemd.
func boot(t *testing.T, files dockertest.Files) machine {
	t.Helper()
	context := dockertest.Files{"Dockerfile": strings.ReplaceAll(machineDockerfile, "STAGE", stage(t))}
	for name, text := range files {
		context["files"+name] = text
	}
	image := dockertest.Build(t, context)
	m := machine{dockertest.Run(t, "--cgroupns", "private", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
		"--security-opt", "apparmor=unconfined", "--tmpfs", "/run", "--tmpfs", "/tmp", image), t}
	eventually(t, "systemd", func() bool {
		out := m.Exec("systemctl", "is-system-running").Out
		return strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded")
	})
	return m
}

// must runs a command, which must exit 0, and returns its output.
func (m machine) must(argv ...string) string {
	m.t.Helper()
	result := m.Exec(argv...)
	require.Zero(m.t, result.Code, "%q\n%s\n%s", argv, result.Both, m.log())
	return strings.TrimSpace(result.Out)
}

// log is what the service has written, and systemd about it.
func (m machine) log() string {
	return m.Exec("journalctl", "-u", "rollup", "-o", "cat", "--no-pager").Out
}

func (m machine) property(name string) string {
	return strings.TrimSpace(m.Exec("systemctl", "show", "-P", name, "rollup").Out)
}

// awaitLog waits until the log has a line with all these texts.
func (m machine) awaitLog(texts ...string) {
	m.t.Helper()
	m.await(fmt.Sprintf("the line %q", texts), func() bool {
		for line := range strings.Lines(m.log()) {
			found := true
			for _, text := range texts {
				found = found && strings.Contains(line, text)
			}
			if found {
				return true
			}
		}
		return false
	})
}

func (m machine) await(what string, reached func() bool) {
	m.t.Helper()
	for end := time.Now().Add(dockertest.Deadline); !reached(); time.Sleep(100 * time.Millisecond) {
		require.True(m.t, time.Now().Before(end), "waited for %s in vain\n%s\n%s", what, m.Exec("systemctl", "status", "-n0", "rollup").Both, m.log())
	}
}

// awaitRunning waits until the status says that v2 runs. Each start of the service begins without a status.
func (m machine) awaitRunning() {
	m.t.Helper()
	m.await("the status", func() bool { return strings.HasPrefix(m.property("StatusText"), "v2 (version 2): running, height ") })
}

// runs are the stand-ins that have run on the state in dir, without those that were only asked.
func (m machine) runs(dir string) []mockrollup.Run {
	m.t.Helper()
	folder := m.t.TempDir()
	require.NoError(m.t, os.WriteFile(folder+"/journal.jsonl", []byte(m.must("cat", dir+"/journal.jsonl")), 0o600))
	entries, err := mockrollup.ReadJournal(folder)
	require.NoError(m.t, err)
	var runs []mockrollup.Run
	for _, run := range mockrollup.Runs(entries) {
		if !asked(run.Start.Args) {
			runs = append(runs, run)
		}
	}
	return runs
}

// ends says of each stand-in that has ended how it did; "killed" if it could not say so itself.
func ends(runs []mockrollup.Run) (all []string) {
	for _, run := range runs {
		end := "killed"
		if run.Exit != nil {
			end = fmt.Sprint(*run.Exit.Code)
		}
		all = append(all, run.Start.Label+" "+run.Start.Kind+" "+end)
	}
	return all
}

// service are the files for the shipped unit: v0 to 8, a migration, v1 to 16, v2 without end.
func service(t *testing.T) dockertest.Files {
	t.Helper()
	files := dockertest.Files{
		"/src/systemd/rollup.service":          readFile(t, unitFile),
		"/opt/rollup/versions/v0/version.json": `{"stop_height": 8}`,
		"/opt/rollup/versions/v1/version.json": `{"start_height": 9, "stop_height": 16}`,
		"/opt/rollup/versions/v2/version.json": `{"start_height": 17}`,
	}
	for i := range 3 {
		files[fmt.Sprintf("/opt/rollup/versions/v%d/config.toml", i)] = serviceConfig(t, i, "/var/lib/rollup", func(m *mockrollup.Mock) {
			m.IOUring, m.SlowShutdown = true, time.Second
		})
	}
	return files
}

func serviceConfig(t *testing.T, i int, dir string, change func(*mockrollup.Mock)) string {
	t.Helper()
	return strings.ReplaceAll(standInConfig(t, i, uint64(min(i, 1)), change), "/data/", dir+"/")
}

// section is a section of a page.
func section(t *testing.T, page, title string) string {
	t.Helper()
	_, after, found := strings.Cut(readFile(t, page), "\n## "+title+"\n")
	require.True(t, found, title)
	text, _, _ := strings.Cut(after, "\n## ")
	return text
}

// install runs the commands of the page, in a folder with the program and the unit.
func (m machine) install() {
	m.t.Helper()
	script := "set -eux\ncd /src\n"
	for _, command := range commandsOf(section(m.t, systemdDoc, "Install")) {
		script += command + "\n"
	}
	m.must("sh", "-c", script)
}

func TestShippedUnitRunsARollupThroughItsUpgrades(t *testing.T) {
	t.Parallel()
	m := boot(t, service(t))
	m.install()
	assert.Equal(t, "active", m.must("systemctl", "is-active", "rollup"))
	assert.Empty(t, m.Exec("systemd-analyze", "verify", "rollup.service").Both)
	t.Log(m.must("sh", "-c", "systemd-analyze security --no-pager rollup | tail -n 1"))
	m.awaitLog(`"migration finished"`, `"exit_code":0`)
	m.awaitLog(`"height known"`, `"version":2`)
	m.awaitRunning()

	node := m.must("sh", "-c", "cat /proc/"+m.property("MainPID")+"/task/*/children")
	environment := m.must("sh", "-c", "tr '\\0' '\\n' </proc/"+node+"/environ")
	assert.Contains(t, environment, "STATE_DIRECTORY=/var/lib/rollup")
	assert.NotContains(t, environment, "NOTIFY_SOCKET")
	assert.NotContains(t, environment, "WATCHDOG")
	status := m.must("cat", "/proc/"+node+"/status")
	assert.Contains(t, status, "NoNewPrivs:\t1")
	assert.Contains(t, status, "Seccomp:\t2")

	// Somebody kills the entrypoint: the node still gets the second that it needs to stop, and the next start waits for it.
	m.must("systemctl", "kill", "-s", "KILL", "--kill-whom=main", "rollup")
	m.await("the restart", func() bool { return m.property("NRestarts") == "1" && m.property("ActiveState") == "active" })
	m.awaitRunning()
	m.must("systemctl", "stop", "rollup")
	assert.Equal(t, "inactive", m.property("ActiveState"))
	assert.Equal(t, "success", m.property("Result"))
	assert.Equal(t, []string{"v0 node 0", "v1 migration 0", "v1 node 0", "v2 node 0", "v2 node 0"}, ends(m.runs("/var/lib/rollup/state")))
	assert.NotContains(t, m.log(), killedBySystemd)

	// Why the unit does not have the usual mode: systemd does not wait for the node.
	m.write("/etc/systemd/system/rollup.service.d/mode.conf", "[Service]\nKillMode=mixed\n")
	m.must("systemctl", "daemon-reload")
	m.must("systemctl", "start", "rollup")
	m.awaitRunning()
	m.must("systemctl", "kill", "-s", "KILL", "--kill-whom=main", "rollup")
	m.await("SIGKILL", func() bool { return strings.Contains(m.log(), killedBySystemd) })
	assert.Contains(t, ends(m.runs("/var/lib/rollup/state")), "v2 node killed")
}

func TestServiceThatNeedsAPersonIsNotStartedAgain(t *testing.T) {
	t.Parallel()
	files := service(t)
	files["/opt/rollup/versions/v1/version.json"] = `{"start_hight": 9}`
	files["/etc/systemd/system/rollup.service"] = files["/src/systemd/rollup.service"]
	m := boot(t, files)
	m.must("useradd", "--system", "rollup")
	m.must("mkdir", "-p", "/usr/local/bin")
	m.must("cp", "/src/bin/entrypoint", "/usr/local/bin/entrypoint")
	assert.NotZero(t, m.Exec("systemctl", "start", "rollup").Code)
	// One that is to be started again would be activating.
	assert.Equal(t, "failed", m.property("ActiveState"))
	assert.Equal(t, "78", m.property("ExecMainStatus"))
	assert.Equal(t, "0", m.property("NRestarts"))
	assert.Contains(t, m.property("StatusText"), "exit code 78: the plan cannot be used")
}

func TestServiceThatHangsIsAskedToStopAndStartedAgain(t *testing.T) {
	t.Parallel()
	files := service(t)
	files["/etc/systemd/system/rollup.service.d/watchdog.conf"] = "[Service]\nWatchdogSec=10\n"
	m := boot(t, files)
	m.install()
	m.awaitLog(`"height known"`, `"version":2`)
	m.must("systemctl", "kill", "-s", "STOP", "--kill-whom=main", "rollup")
	m.awaitLog("Failed with result 'watchdog'")
	m.await("the restart", func() bool { return m.property("NRestarts") != "0" && m.property("ActiveState") == "active" })
	m.awaitRunning()
	m.must("systemctl", "stop", "rollup")
	assert.Equal(t, "success", m.property("Result"))
	assert.NotContains(t, strings.Join(ends(m.runs("/var/lib/rollup/state")), "\n"), "killed")
	assert.NotContains(t, m.log(), killedBySystemd)
}

// roleUnit and roleScript are those of the Ansible role, rendered.
const (
	roleUnit = `[Unit]
Description=Rollup
After=network.target
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart=/home/sovereign/rollup-manager.sh
Restart=always
RestartSec=3
User=sovereign
LimitNOFILE=65536
LogRateLimitIntervalSec=0
StandardOutput=journal
StandardError=journal

[Install]
WantedBy=multi-user.target
`
	roleScript = `#!/bin/bash
export NO_COLOR=1
export RUST_BACKTRACE=full

/home/sovereign/rollup-manager \
  --config /home/sovereign/rollup-manager-config.json \
  --checkpoint-file /home/sovereign/checkpoint.json \
  -- --genesis-path /home/sovereign/genesis/genesis.json
`
)

func TestLayoutOfTheAnsibleRoleWorksUnchanged(t *testing.T) {
	t.Parallel()
	const state = "/home/sovereign/data/state"
	files := dockertest.Files{
		"/etc/systemd/system/rollup.service": roleUnit, "/home/sovereign/rollup-manager.sh*": roleScript, "/home/sovereign/genesis/genesis.json": "{}",
		"/home/sovereign/data/empty": "",
	}
	for i := range 3 {
		files[fmt.Sprintf("/home/sovereign/versions/v%d/rollup_config.toml", i)] = serviceConfig(t, i, "/home/sovereign/data", nil)
	}
	page := dockertest.Files{}
	for _, block := range codeOf(section(t, systemdDoc, "The layout of the Ansible role")) {
		if block.name != "" {
			page[block.name] = block.text
		}
	}
	const config, dropIn = "/home/sovereign/rollup-manager-config.json", "/etc/systemd/system/rollup.service.d/entrypoint.conf"
	page[config] = strings.NewReplacer("999", "8", "1000", "9").Replace(page[config])
	require.NotEmpty(t, page[dropIn])
	withConfig := maps.Clone(files)
	withConfig[config] = page[config]
	m := boot(t, withConfig)

	// The role as it is, through an upgrade with a migration.
	m.must("systemctl", "start", "rollup")
	m.awaitLog(`"height known"`, `"version":1`)
	m.must("systemctl", "stop", "rollup")
	runs := m.runs(state)
	assert.Equal(t, []string{"v0 node 0", "v1 migration 0", "v1 node 0"}, ends(runs))
	assert.Contains(t, strings.Join(runs[0].Start.Args, " "), "--genesis-path /home/sovereign/genesis/genesis.json")

	// The next version, and the drop-in of the page.
	m.write(config, withV2(t, page[config], runs[2].Exit.Height+10))
	m.write(dropIn, page[dropIn])
	m.must("systemctl", "daemon-reload")
	m.must("systemctl", "restart", "rollup")
	m.awaitLog(`"height known"`, `"version":2`)
	m.awaitRunning()
	m.must("systemctl", "stop", "rollup")
	assert.Equal(t, "success", m.property("Result"))
	assert.Equal(t, []string{"v0 node 0", "v1 migration 0", "v1 node 0", "v1 node 0", "v2 node 0"}, ends(m.runs(state)))
	assert.NotContains(t, m.log(), killedBySystemd)
}

// write writes a file of the machine.
func (m machine) write(path, text string) {
	m.t.Helper()
	m.must("sh", "-c", `mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"`, "sh", path, text)
}

// withV2 is the plan with a stop height for v1, and v2 after it.
func withV2(t *testing.T, plan string, stop uint64) string {
	t.Helper()
	var config struct {
		Versions []map[string]any `json:"versions"`
	}
	require.NoError(t, json.Unmarshal([]byte(plan), &config))
	config.Versions[1]["stop_height"] = stop
	v2 := map[string]any{"start_height": stop + 1, "migration_path": nil, "stop_height": nil}
	for key, file := range map[string]string{"rollup_binary": "rollup", "config_path": "rollup_config.toml"} {
		v2[key] = "/home/sovereign/versions/v2/" + file
	}
	config.Versions = append(config.Versions, v2)
	text, err := json.Marshal(config)
	require.NoError(t, err)
	return string(text)
}
