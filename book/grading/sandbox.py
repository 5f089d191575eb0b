"""What one answer may see and use: its own user, processes, network and files, and bounded
time and memory.

The child's root directory is a small file system in memory with Python and its packages,
read-only; /scratch is the only place to write. There is no /proc, no network, nobody else's
file and nothing of this repository. Run as root, the child becomes a user that exists nowhere
else; run as an ordinary user, it lives in a user namespace of its own.
"""

import os
import resource
import signal
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from book.grading import kernel, seccomp

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_WORLD = kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS
# the root is built here, in the child's own mounts: every Linux has it, and nothing that is shown
STAGE = "/proc"
SCRATCH = "/scratch"
_NOBODY = 65534
_FIRST_UID = 1_000_000_000
MEMORY = 1 << 30  # bytes an answer may take beyond what the imported libraries have
PROCESSES, FILES, WRITTEN = 16, 64, 64 << 20
WAYS = ("root", "user", "none")


@cache
def visible() -> list[str]:
    """The files and folders that a child can read: the interpreter and its packages. None lies in
    another.
    """
    kept: list[str] = []
    for path in _paths():
        if not any(path.startswith(other + "/") for other in kept):
            kept.append(path)
    return kept


@cache
def _paths() -> list[str]:
    """Each as it is called and, where a link leads to it, as it lies."""
    paths = [*_SYSTEM, sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()]
    ways = (os.path.abspath, os.path.realpath)
    return sorted({way(path) for path in paths if os.path.exists(path) for way in ways})


@cache
def covered() -> list[str]:
    """The folders that a child must not read even where they lie in a visible one: this
    repository, with its solutions, or what was installed of it.
    """
    package = Path(__file__).resolve().parents[1]
    if (package.parent / "chapters").is_dir():
        return [str(package.parent)]
    beside = ("book", "dlib", "toy_data", "full_scale", "bench")
    return [str(package.with_name(name)) for name in beside if package.with_name(name).is_dir()]


def unshare(way: str) -> None:
    """Leave the grader's namespaces. OSError where the kernel or a container forbids it."""
    uid, gid = os.getuid(), os.getgid()
    if way == "root":
        kernel.unshare(_WORLD)
    elif way == "user":
        kernel.unshare(_WORLD | kernel.NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{_NOBODY} {uid} 1"),
            ("gid_map", f"{_NOBODY} {gid} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)


def enter(way: str, stage: str, scratch: str, seconds: int, number: int) -> str:
    """Complete the sandbox, as the first process of the new namespaces; returns what it lacks on
    this machine, or "". `stage` is a folder to build the root on, `scratch` where the answer may
    write; `number` makes the user unique.
    """
    os.setsid()
    memory, lacks = None, ""
    if way != "none":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize()
        Path("/proc/self/oom_score_adj").write_text("1000")
        _build_root(stage, scratch)
        if way == "root":
            kernel.drop_bounding_set()
            _become(_FIRST_UID + number)
        kernel.drop_capabilities()
        kernel.die_with_parent(signal.SIGKILL)
        lacks = seccomp.install()
    _settle(scratch)
    _limit(seconds, memory)
    return lacks


def _build_root(stage: str, scratch: str) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("none", stage, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
    shown = visible()
    for path in (*shown, *_DEVICES):
        _show(path, stage + path)
    for cover in covered():
        if any(f"{cover}/".startswith(f"{path}/") for path in shown):
            kernel.mount("none", stage + cover, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
            for path in _paths():
                if path.startswith(f"{cover}/") and not os.path.exists(stage + path):
                    _show(path, stage + path)
    os.mkdir(stage + scratch)
    os.symlink(scratch, stage + "/dev/shm")  # where locks between threads and processes lie
    kernel.read_only(stage)
    kernel.mount(
        "none",
        stage + scratch,
        "tmpfs",
        kernel.MS_NOSUID | kernel.MS_NODEV,
        f"size={WRITTEN},nr_inodes=1000,mode=777",
    )
    kernel.pivot(stage)


def _show(path: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        open(target, "x").close()
    kernel.mount(path, target, None, kernel.MS_BIND | kernel.MS_REC)


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _settle(scratch: str) -> None:
    """Make `scratch` the current and the temporary folder. Pools that ask for as many threads as
    there are cores hear of one.
    """
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):  # torch sets them itself
        os.environ.pop(name, None)
    tempfile.tempdir = None
    os.cpu_count = lambda: 1


def _limit(seconds: int, memory: int | None) -> None:
    limits = {"CPU": seconds + 1, "NOFILE": FILES, "FSIZE": WRITTEN, "CORE": 0}
    # elsewhere the size of the process is unknown, and others of this user count as its processes
    if memory is not None:
        limits |= {"AS": memory + MEMORY, "NPROC": PROCESSES}
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
