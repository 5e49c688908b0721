package checkpoint

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// rights are the owner, group and permissions of a file.
type rights struct {
	uid, gid uint32
	mode     fs.FileMode // with the special bits of a directory
}

func rightsOf(info fs.FileInfo) rights {
	owner := info.Sys().(*syscall.Stat_t)
	return rights{uid: owner.Uid, gid: owner.Gid, mode: info.Mode() &^ fs.ModeType}
}

// inheritRights gives a new file or directory to those who work in its directory: what root makes there with
// 'entrypoint checkpoint set' must belong to the user of the rollup, and if a group may write there, as with
// Kubernetes' fsGroup, the next user of that group must be able to continue.
func inheritRights(made *os.File) error {
	info, err := made.Stat()
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	parent, err := os.Stat(filepath.Dir(made.Name()))
	if err != nil {
		return err //nolint:wrapcheck // it names the directory
	}
	above, want := rightsOf(parent), rightsOf(info)
	if os.Geteuid() == 0 {
		want.uid, want.gid = above.uid, above.gid
	}
	if above.mode&0o020 != 0 {
		want.gid = above.gid
		want.mode |= want.mode & 0o700 >> 3
	}
	return want.give(made)
}

// give sets these rights on a file, as far as this user may: only root can change the owner, and others can choose
// among their own groups. If the group cannot be set, the group that the file has may do only what everybody may.
func (r rights) give(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	if has := rightsOf(info); has.uid != r.uid || has.gid != r.gid {
		if unix.Fchown(int(file.Fd()), int(r.uid), int(r.gid)) != nil {
			_ = unix.Fchown(int(file.Fd()), -1, int(r.gid))
		}
		if info, err = file.Stat(); err != nil {
			return err //nolint:wrapcheck // it names the file
		}
	}
	has := rightsOf(info)
	if has.gid != r.gid {
		r.mode = r.mode&^0o070 | r.mode&0o007<<3
	}
	if has.mode == r.mode {
		return nil
	}
	if err := file.Chmod(r.mode); err != nil {
		return fmt.Errorf("cannot set the permissions of %s: %w", file.Name(), err)
	}
	return nil
}
