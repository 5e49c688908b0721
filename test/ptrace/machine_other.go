//go:build !amd64

package ptrace

import (
	"errors"
	"syscall"
)

var namesOfMachine map[int]string

var errMachine = errors.New("ptrace: Call.Fail is written for amd64 only: add the registers of this machine")

func skip(int) error { return errMachine }

func giveErrno(int, syscall.Errno) error { return errMachine }
