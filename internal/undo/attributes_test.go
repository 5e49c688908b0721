package undo

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// againVariable names the storage directory for such a process.
const againVariable = "UNDO_TEST_AGAIN"

// again runs a test once more in a process of its own, on a state. It reports whether this is that process.
func again(t *testing.T, attributes *syscall.SysProcAttr, state func() string) (string, bool) {
	t.Helper()
	if dir := os.Getenv(againVariable); dir != "" {
		return dir, true
	}
	if os.Geteuid() != 0 {
		missing(t, "this test needs root")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), againVariable+"="+state())
	cmd.SysProcAttr = attributes
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		missing(t, "this test needs user namespaces: %s", err)
	}
	require.NoError(t, err, "%s", out)
	return "", false
}

// In a container with a user namespace a file may belong to a user who is not known there: chown(2) gives EINVAL.
func TestOwnerWhoIsUnknownInTheUserNamespaceIsNoReasonForNoUndoPoint(t *testing.T) {
	onlyRoot := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	namespace := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: onlyRoot, GidMappings: onlyRoot}
	state, inside := again(t, namespace, func() string {
		state := filepath.Join(t.TempDir(), "state")
		smallState(t, state)
		require.NoError(t, os.Lchown(filepath.Join(state, "state.db"), 1234, 2345))
		return state
	})
	if !inside {
		return
	}
	for _, noReflink := range []bool{false, true} {
		u := newUndo(t, Options{Storage: state, Mode: Copy})
		u.noReflink = noReflink
		p, err := u.Make(t.Context(), pointToV1(), nil)
		require.NoError(t, err)
		info, err := os.Stat(filepath.Join(p.Path, "state.db"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o644), info.Mode())
	}
}

// forbidSpecialBits is RestrictSUIDSGID of systemd, as far as it concerns chmod(2).
func forbidSpecialBits(t *testing.T) {
	t.Helper()
	const load, equal, anyOf, give, allow, refuse = 0x20, 0x15, 0x45, 0x06, 0x7fff0000, 0x00050000
	filter := []unix.SockFilter{
		{Code: load, K: 0},
		{Code: equal, Jf: 3, K: unix.SYS_FCHMODAT},
		{Code: load, K: 16 + 2*8}, // the third argument, in a little-endian machine
		{Code: anyOf, Jf: 1, K: 0o6000},
		{Code: give, K: refuse | uint32(unix.EPERM)},
		{Code: give, K: allow},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	require.NoError(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		missing(t, "this test needs seccomp(2): %s", errno)
	}
}

func TestSpecialBitsThatAreForbiddenAreLeftOut(t *testing.T) {
	state, inside := again(t, &syscall.SysProcAttr{}, func() string {
		state := filepath.Join(t.TempDir(), "state")
		smallState(t, state)
		ledger := filepath.Join(state, "ledger")
		require.NoError(t, os.Chown(ledger, 1234, 2345))
		require.NoError(t, os.Chmod(ledger, 0o750|os.ModeSetgid))
		return state
	})
	if !inside {
		return
	}
	p, err := newUndo(t, Options{Storage: state, Mode: Copy}).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	mode := func(point string) uint32 {
		var stat unix.Stat_t
		require.NoError(t, unix.Stat(filepath.Join(point, "ledger"), &stat))
		assert.Equal(t, uint32(1234), stat.Uid)
		return stat.Mode & 0o7777
	}
	assert.Equal(t, uint32(0o2750), mode(p.Path))
	forbidSpecialBits(t)
	p, err = newUndo(t, Options{Storage: state, Mode: Copy}).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	assert.Equal(t, uint32(0o750), mode(p.Path))
}

// The copy would become the state of a node that cannot read it.
func TestCopyThatItsOwnerCouldNotReadIsNone(t *testing.T) {
	state, stranger := asStranger(t, func() string {
		dir := openDir(t)
		state := filepath.Join(dir, "state")
		smallState(t, state)
		// To us other permissions apply than to its owner, and we cannot give the copy to him.
		shared := filepath.Join(state, "state.db")
		require.NoError(t, os.Chown(shared, 1234, 4711))
		require.NoError(t, os.Chmod(shared, 0o640))
		require.NoError(t, os.Chmod(dir, 0o777))
		return state
	})
	if !stranger {
		return
	}
	p, err := newUndo(t, Options{Storage: state, Mode: Auto}).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err, "he is in the group")
	require.NoError(t, os.RemoveAll(p.Path))

	file := func(uid, gid, mode uint32) *unix.Stat_t {
		return &unix.Stat_t{Uid: uid, Gid: gid, Mode: unix.S_IFREG | mode}
	}
	for _, c := range []struct {
		what          string
		now, original *unix.Stat_t
		readable      bool
	}{
		{"the same", file(1, 1, 0o600), file(1, 1, 0o600), true},
		{"another group", file(1, 2, 0o640), file(1, 1, 0o640), true},
		{"fewer permissions", file(1, 1, 0o600), file(1, 1, 0o640), false},
		{"not executable", file(1, 1, 0o600), file(1, 1, 0o700), false},
		{"another owner", file(2, 1, 0o600), file(1, 1, 0o600), false},
		{"another owner, of the same group", file(2, 1, 0o640), file(1, 1, 0o640), true},
		{"another owner and group", file(2, 2, 0o640), file(1, 1, 0o640), false},
		{"another owner, and all may read it", file(2, 2, 0o644), file(1, 1, 0o644), true},
		{"a directory that only its owner may enter", file(2, 2, 0o744), file(1, 1, 0o744), false},
		{"that of root", file(2, 2, 0o600), file(0, 0, 0o600), true},
	} {
		assert.Equal(t, c.readable, readableAs(c.now, c.original), c.what)
	}
	// Nothing of it is dropped without a word.
	from, to := state+"/state.db", filepath.Join(filepath.Dir(state), "copy")
	require.NoError(t, os.WriteFile(to, nil, 0o600))
	original := file(1234, 1234, 0o640)
	err = giveAttributes(from, to, original)
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorIs(t, notHere(err), unix.EPERM, "with auto there is no undo point")
	assert.ErrorContains(t, err, "owner 1234:1234 and permissions 640 cannot be given to its copy")
}
