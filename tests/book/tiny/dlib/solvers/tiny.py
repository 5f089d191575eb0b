"""One Euler step, wrapped as the real solvers are."""

import functools


class Solver:
    """A callable object with an order."""

    def __init__(self, fn, order):
        functools.update_wrapper(self, fn)
        self.order = order

    def __call__(self, *args):
        return self.__wrapped__(*args)


def solver(order):
    """Make a function a solver."""
    return lambda fn: Solver(fn, order)


@solver(order=1)
def euler(f, x, h):
    """One explicit Euler step: $x + h f(x)$.

    x: any array. Returns the same shape.
    >>> euler(lambda x: -x, 1.0, 0.5)
    0.5
    """
    return x + h * f(x)
