# ---
# jupyter:
#   book:
#     title: Tiny solvers
#     summary: A tiny chapter that uses every verb once.
#     minutes: 2
#     memory: 1 GB
#     needs: [PyTorch, a little calculus]
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8 · Tiny solvers
#
# A first-order method halves its error when the step is halved. The flow of $\dot x = -x$ is known, so every error can be
# measured. Freezing the slope [@lu2022dpm, eq. 3; @song2021ddim] gives
#
# $$
# x_t = x_s + h\, f(x_s) \label{eq:euler}
# $$
#
# and the exact solution, which is wide, is
#
# $$
# x_t = \frac{\alpha_t}{\alpha_s} x_s - \alpha_t \int_{\lambda_s}^{\lambda_t} e^{-\lambda}\, \epsilon_\theta(x_\lambda, \lambda)\, \mathrm d\lambda = \frac{\sigma_t}{\sigma_s} x_s + \sigma_t \int_{\lambda_s}^{\lambda_t} e^{\lambda}\, x_\theta(x_\lambda, \lambda)\, \mathrm d\lambda \label{eq:exact}
# $$
#
# Equation \eqref{eq:euler} follows from \eqref{eq:exact}, with `\eqref{eq:code}` and `[@code]` left alone in code:
# - expand $\epsilon_\theta$ in $\lambda$,
# - drop all but the first term.
#
# <details>
# <summary>The algebra with $h = \lambda_t - \lambda_s$</summary>
#
# Put $u = \lambda - \lambda_s$; then in **one** line
#
# $$ \int_0^h e^{-u}\, \mathrm du = 1 - e^{-h} $$
#
# ```python
# price = "$5 and $6"
# ```
#
# </details>

# %% tags=["fold"]
import math
import sys

behind_the_fold = 1

# %%
import matplotlib.pyplot as plt

from book import claim, figure, show
from dlib.solvers.tiny import euler

errors = {}
for n in (64, 128):
    x = 1.0
    for _ in range(n):
        x = euler(lambda x: -x, x, 1 / n)
    errors[n] = abs(x - math.exp(-1))
print("quadrangular", file=sys.stderr)
sorted(errors)

# %%
show(euler)

# %% [markdown]
# ## 8.1 The picture
#
# See the [notation](../book/pages/notation.md), the [module](../dlib/solvers/tiny.py) and [this chapter](08_dpm_solver.ipynb).

# %% tags=["fold"]
# The error, drawn over the steps
fig, ax = plt.subplots(figsize=(7, 3.6))
ax.loglog(list(errors), list(errors.values()), "o-")
figure(fig, 'The error falls along a line of slope "minus one".', caption="Error against steps: slope $-1$.")

# %%
# NBVAL_CHECK_OUTPUT
slope = math.log2(errors[64] / errors[128])
claim("C08.1", "Euler converges at order $1$ on $\\dot x = -x$", slope, between=(0.9, 1.1))
