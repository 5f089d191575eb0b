"""Grading that trusts nothing: answers run in sandboxed children that receive inputs and
return arrays.

`submissions` reads notebooks, `worker` starts a server of sandboxes (`zygote`) and talks to
the children in `frames`, `sandbox` is what a child may see and use, `report` writes the
tables, `grade` puts them together. Truth, seeds and verdicts never leave the grader's own
process.
"""
