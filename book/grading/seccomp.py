"""The system calls that an answer is refused: those that open a way around the sandbox, and those
that take memory which its limit does not count.

The libraries for this need libseccomp, which no wheel brings along; the filter compares a number
for each call, so it is written out. After man 2 seccomp and Linux's linux/filter.h.
"""

import ctypes
import errno
import platform
import re

from book.grading import kernel

# name, number on x86_64, number on aarch64
_REFUSED = """
# what a user namespace of its own would give: mounts, made or unlocked
unshare 272 97, setns 308 268, chroot 161 51, mount 165 40, umount2 166 39, pivot_root 155 41
open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432
fspick 433 433, mount_setattr 442 442, open_tree_attr 467 467
# memory that no limit of a process counts
shmget 29 194, msgget 68 186, semget 64 190, memfd_create 319 279, memfd_secret 447 447
userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427
# the kernel's own machinery, and other processes' memory and files
bpf 321 280, perf_event_open 298 241, ptrace 101 117, kcmp 312 272, pidfd_getfd 438 438
process_vm_readv 310 270, process_vm_writev 311 271, open_by_handle_at 304 265
add_key 248 217, request_key 249 218, keyctl 250 219
"""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
_CLONE, _CLONE3 = (56, 220), 435
_NEW = kernel.NEWCGROUP | kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC
_NEW |= kernel.NEWUSER | kernel.NEWPID | kernel.NEWNET
_X32 = 0x40000000  # numbers from here on are x86_64's calls in another dress
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_SECCOMP, _FILTER = 22, 2


class _Line(ctypes.Structure):
    """A line of the filter's program: struct sock_filter."""

    _fields_ = [
        ("code", ctypes.c_uint16),
        ("yes", ctypes.c_uint8),
        ("no", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("lines", ctypes.POINTER(_Line))]


def install() -> str:
    """Refuse the calls to this process and to all that it starts, for good; it must have given up
    new privileges. Returns "", or why this machine has no such filter.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        return f"no filter of system calls is known for {machine}"
    lines = _program(*_MACHINES[machine])
    program = _Program(len(lines), (_Line * len(lines))(*lines))
    try:
        kernel.control_process(_SET_SECCOMP, _FILTER, ctypes.addressof(program))
    except OSError as error:
        return f"the kernel takes no filter of system calls ({error.strerror})"
    return ""


def _program(column: int, arch: int) -> list[_Line]:
    """Refused calls say "not permitted". clone3, whose flags a filter cannot see, says that it
    does not exist: the C library then takes clone.
    """
    numbers = [int(numbers[column]) for numbers in _calls()]
    no_such, refuse = _errno(errno.ENOSYS), _errno(errno.EPERM)
    return [
        _Line(_LOAD, 0, 0, _ARCH),
        _Line(_EQUAL, 1, 0, arch),
        refuse,
        _Line(_LOAD, 0, 0, _NUMBER),
        _Line(_EQUAL, 0, 1, _CLONE3),
        no_such,
        _Line(_AT_LEAST, 0, 1, _X32),
        no_such,
        *(_Line(_EQUAL, len(numbers) + 2 - k, 0, n) for k, n in enumerate(numbers)),
        _Line(_EQUAL, 0, 3, _CLONE[column]),
        _Line(_LOAD, 0, 0, _FIRST_ARGUMENT),
        _Line(_ANY_BIT, 0, 1, _NEW),
        refuse,
        _Line(_RETURN, 0, 0, _ALLOW),
    ]


def _calls() -> list[tuple[str, str]]:
    return re.findall(r"\w+ (\d+) (\d+)", _REFUSED)


def _errno(number: int) -> _Line:
    return _Line(_RETURN, 0, 0, _ERRNO | number)
