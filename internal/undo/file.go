package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// errNoReflink says that the file system cannot share the blocks of a file.
var errNoReflink = errors.New("the file system has no reflinks")

// file is a regular file that is being copied. Several workers may have parts of it.
type file struct {
	from, to string
	stat     unix.Stat_t
	// left are the parts that are not done yet.
	left    atomic.Int64
	failed  atomic.Bool
	once    sync.Once
	in, out *os.File
	err     error
}

// part is a part of a file.
type part struct {
	file     *file
	from, to int64
}

// open opens both files, once. A copy has its full size at once, all of it a hole.
func (f *file) open(withSize bool) error {
	f.once.Do(func() {
		if f.in, f.err = os.OpenFile(f.from, os.O_RDONLY|unix.O_NOFOLLOW, 0); f.err != nil {
			return
		}
		if f.out, f.err = os.OpenFile(f.to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); f.err == nil && withSize {
			f.err = f.out.Truncate(f.stat.Size)
		}
	})
	return f.err
}

// clone shares the blocks of the file.
func (f *file) clone(cannot bool) error {
	if err := f.open(false); err != nil {
		return f.failure(err)
	}
	err := error(unix.EOPNOTSUPP)
	if !cannot {
		err = retried(func() error { return unix.IoctlFileClone(int(f.out.Fd()), int(f.in.Fd())) })
	}
	if isNoReflink(err) {
		return errNoReflink
	}
	if err != nil {
		return f.failure(err)
	}
	return nil
}

// isNoReflink reports whether the error of FICLONE says that a copy by other means may succeed, see ioctl_ficlone(2):
// the file system, or this file, cannot do it. ZFS, for instance, gives EAGAIN or EXDEV.
func isNoReflink(err error) bool {
	return isOneOf(err, unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS, unix.ETXTBSY, unix.EBADF, unix.EISDIR, unix.EPERM, unix.EAGAIN, unix.EMLINK)
}

// failure names the file.
func (f *file) failure(err error) error {
	if errors.As(err, new(*os.PathError)) {
		return fmt.Errorf("cannot copy the state: %w", err)
	}
	return fmt.Errorf("cannot copy %s: %w", f.from, err)
}

// finish marks n parts as done. The last one closes the files, and gives the copy its attributes if all went well.
func (f *file) finish(n int64, ok bool) error {
	if !ok {
		f.failed.Store(true)
	}
	if f.left.Add(-n) > 0 {
		return nil
	}
	if f.in != nil {
		f.in.Close()
	}
	if f.out == nil {
		return nil
	}
	err := f.out.Close()
	if f.failed.Load() {
		return nil
	}
	if err == nil {
		err = giveAttributes(f.from, f.to, &f.stat)
	}
	if err != nil {
		return f.failure(err)
	}
	return nil
}

// copy copies what is in a part of the file, and leaves its holes holes.
func (p part) copy(ctx context.Context, buffer []byte, copied *atomic.Int64) error {
	f := p.file
	if err := f.open(true); err != nil {
		return f.failure(err)
	}
	in := int(f.in.Fd())
	for at := p.from; at < p.to; {
		// Other workers seek in the same file: only the result of the call counts, see lseek(2).
		start, err := unix.Seek(in, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole up to the end
			return nil
		}
		end := p.to
		if err == nil && start < p.to {
			end, err = unix.Seek(in, start, unix.SEEK_HOLE)
		}
		if err != nil { // the file system does not say
			start, end = at, p.to
		}
		if start >= p.to {
			return nil
		}
		end = min(end, p.to)
		if err := f.copyRange(ctx, buffer, start, end, copied); err != nil {
			return f.failure(err)
		}
		at = end
	}
	return nil
}

const (
	// blockBytes is how much must be zero for a hole in the copy of a file that has holes.
	blockBytes = 16 << 10
	// writeBytes is how much one worker lets the kernel gather before it has that written. So the rate is that of the disk
	// and not of the memory, and the last sync is short.
	writeBytes = 8 << 20
)

var zeros [blockBytes]byte

// copyRange copies data from start to end.
func (f *file) copyRange(ctx context.Context, buffer []byte, start, end int64, copied *atomic.Int64) error {
	sparse := f.stat.Blocks*512 < f.stat.Size
	written := start // up to here the kernel was asked to write
	for at := start; at < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.in.ReadAt(buffer[:min(int64(len(buffer)), end-at)], at)
		if n == 0 {
			return fmt.Errorf("it has become shorter, or cannot be read at %d: %w", at, err)
		}
		if err := f.write(buffer[:n], at, sparse); err != nil {
			return err
		}
		at += int64(n)
		copied.Add(int64(n))
		if at-written >= writeBytes {
			f.flush(start, written, at)
			written = at
		}
	}
	return nil
}

// flush begins to write what was copied from written to end, and waits for what was begun before. Its errors come again
// at the sync.
func (f *file) flush(start, written, end int64) {
	out := int(f.out.Fd())
	_ = unix.SyncFileRange(out, written, end-written, unix.SYNC_FILE_RANGE_WRITE)
	if before := max(start, written-writeBytes); before < written {
		_ = unix.SyncFileRange(out, before, written-before, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
}

// write writes data, except blocks of zeros in a file with holes: its file system may not know where they are.
func (f *file) write(data []byte, at int64, sparse bool) error {
	if !sparse {
		_, err := f.out.WriteAt(data, at)
		return err
	}
	for from := 0; from < len(data); {
		to, zero := from, isZero(data[from:min(from+blockBytes, len(data))])
		for to < len(data) && isZero(data[to:min(to+blockBytes, len(data))]) == zero {
			to = min(to+blockBytes, len(data))
		}
		if !zero {
			if _, err := f.out.WriteAt(data[from:to], at+int64(from)); err != nil {
				return err
			}
		}
		from = to
	}
	return nil
}

func isZero(block []byte) bool { return bytes.Equal(block, zeros[:len(block)]) }

// giveAttributes gives a copy the extended attributes, permissions, times and owner of its original. Only root can give
// files away: to anybody else a file that belongs to another user becomes his own. What cannot be given is left out, but
// not if somebody who can read the original could then not read the copy.
func giveAttributes(from, to string, stat *unix.Stat_t) error {
	giveExtended(from, to)
	link := stat.Mode&unix.S_IFMT == unix.S_IFLNK
	special := stat.Mode & (unix.S_ISUID | unix.S_ISGID)
	var errs [4]error
	// As long as the copy is ours. To change the mode of a file that belongs to another user is a right of its own.
	if !link {
		errs[0] = unix.Chmod(to, stat.Mode&0o7777&^special)
	}
	errs[1] = unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{stat.Atim, stat.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	errs[2] = giveOwner(to, stat)
	if special != 0 && !link { // after the owner, which takes them away; systemd's RestrictSUIDSGID forbids to set them
		errs[3] = unix.Chmod(to, stat.Mode&0o7777)
	}
	for _, err := range errs {
		if err != nil && !isNotGiven(err) {
			return err
		}
	}
	var now unix.Stat_t
	if err := unix.Lstat(to, &now); err != nil || link || readableAs(&now, stat) {
		return err
	}
	return fmt.Errorf("owner %d:%d and permissions %03o cannot be given to its copy: %w", stat.Uid, stat.Gid, stat.Mode&0o777, unix.EPERM)
}

// giveOwner gives a copy the owner and group of its original, or the group alone.
func giveOwner(to string, stat *unix.Stat_t) error {
	var now unix.Stat_t
	if err := unix.Lstat(to, &now); err != nil || now.Uid == stat.Uid && now.Gid == stat.Gid {
		return err
	}
	err := retried(func() error { return unix.Lchown(to, int(stat.Uid), int(stat.Gid)) })
	if isNotGiven(err) {
		_ = unix.Lchown(to, -1, int(stat.Gid))
	}
	return err
}

// isNotGiven reports whether the error says that this user, or the file system, cannot give a file that attribute: EINVAL
// is for an owner who is not known in the user namespace.
func isNotGiven(err error) bool {
	return isOneOf(err, unix.EPERM, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP)
}

// readableAs reports whether a copy has the permissions of its original, and the owner of that can read it as he can read
// the original. Root can in any case.
func readableAs(now, original *unix.Stat_t) bool {
	if original.Mode&0o777&^now.Mode != 0 {
		return false
	}
	asOwner, asOther := original.Mode>>6&0o5, now.Mode
	if now.Gid == original.Gid {
		asOther |= now.Mode >> 3
	}
	return now.Uid == original.Uid || original.Uid == 0 || asOwner&^asOther == 0
}

// giveExtended copies extended attributes, access lists among them, as far as this user and the file system can.
func giveExtended(from, to string) {
	size, err := unix.Llistxattr(from, nil)
	if err != nil || size == 0 {
		return
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(from, names); err != nil {
		return
	}
	for name := range bytes.SplitSeq(bytes.TrimRight(names[:size], "\x00"), []byte{0}) {
		size, err := unix.Lgetxattr(from, string(name), nil)
		if err != nil {
			continue
		}
		value := make([]byte, size)
		if size, err = unix.Lgetxattr(from, string(name), value); err == nil {
			_ = unix.Lsetxattr(to, string(name), value[:size], 0)
		}
	}
}

// retried calls f again while a signal interrupts it.
func retried(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
