"""Grading that trusts nothing: answers run in sandboxed children that receive inputs and
return arrays.

`students` says who handed in what, `submissions` reads a notebook, `worker` starts a server of
sandboxes (`zygote`) and talks to the children in `frames`, `sandbox` is what a child may see and
use, `report` writes the tables, `partial` keeps what an interrupted run has, `grade` puts them
together. Truth, seeds and verdicts stay in the grader's own process and in files that no child
can see.
"""
