"""The filter of system calls, read by a small machine: that of this processor and the others'."""

import pytest

from book.grading import seccomp


class TestTheFilterOfSystemCalls:
    def test_a_machine_without_one_is_named(self, monkeypatch):
        monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
        assert seccomp.install() == "no filter of system calls is known for riscv64"

    @pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
    def test_it_refuses_what_it_lists_and_no_more(self, machine):
        column, arch = seccomp._MACHINES[machine]
        lines = seccomp._program(column, arch)
        refused = {int(row[column]) for row in seccomp._calls()}
        clone = seccomp._CLONE[column]
        for number in set(range(480)) - {clone, seccomp._CLONE3}:
            assert (_filtered(lines, arch, number) == 1) == (number in refused), number
        assert _filtered(lines, arch, seccomp._CLONE3) == 38
        assert _filtered(lines, arch, clone, 0x3D0F00) == 0  # a thread
        assert _filtered(lines, arch, clone, 0x10000011) == 1  # a user namespace
        assert _filtered(lines, arch, 0x40000000 + 1) == 38
        assert _filtered(lines, 0x40000003, 5) == 1  # the calls of another architecture


def _filtered(lines: list, arch: int, number: int, argument: int = 0) -> int:
    """The error number with which a filter's program answers a call; 0 lets it pass."""
    data, value, at = {0: number, 4: arch, 16: argument}, 0, 0
    tests = {0x15: lambda k: value == k, 0x35: lambda k: value >= k, 0x45: lambda k: value & k}
    while lines[at].code != 0x06:
        line, at = lines[at], at + 1
        if line.code == 0x20:
            value = data[line.k]
        else:
            at += line.yes if tests[line.code](line.k) else line.no
    return 0 if lines[at].k == 0x7FFF0000 else lines[at].k & 0xFFFF
