# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   book:
#     title: Assignment 20
#     summary: Derive the gradient of a divergence, match it to finite differences, and hand it to a student with the right stops.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 20
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 20: a gradient made by hand
#
# Each question asks for one short function; nothing has to be trained. The cell below your answer calls it on inputs that
# are new every time and prints `PASS`, or says what is wrong and where to look. A grader will do the same with inputs of
# its own.
#
# - Put each answer into its cell, instead of the line `raise NotImplementedError`. Keep the first line, `# ANSWER …`, and
#   the function's name.
# - An answer may use the first code cell and its own cell, nothing else: copy what it needs into its cell. More cells for
#   trying things out may go anywhere, they are not graded.
# - A `PASS` that you see before you have run a cell is what it will print when the answer is right. "Run All" runs every
#   check, and the last cell says how many questions pass.
# - The point is to write the formulas yourself: `dlib` has them all, and a person sees when an answer calls it.
#
# All tensors are float64. As in the chapter, $x_t=\alpha x_0+\sigma\varepsilon$; $p_t$ is the density of the student's noised samples, $q_t$ that of
# the noised data; *real* is the teacher and knows $\varepsilon_q$, *fake* knows $\varepsilon_p$.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 20.1: what each loss does to a width (4 points)
#
# The student is $x_0=m+s\,z$ in $d$ dimensions, coordinate by coordinate ($m$ and $s$ are vectors, $z\sim\mathcal N(0,I)$), and the data are
# $\mathcal N(\mu,\operatorname{diag}\tau^2)$. At one level $(\alpha,\sigma)$, derive $\partial\mathrm{KL}(p_t\Vert q_t)/\partial m$, $\partial\mathrm{KL}/\partial s$, and the derivative of
# the cross-entropy, $\partial\,(-\mathbb E_{p_t}\log q_t)/\partial s$.


# %%
# ANSWER Q20.1
def gaussian_gradients(m, s, mu, tau, alpha, sigma):
    """(∂KL/∂m, ∂KL/∂s, ∂CE/∂s), each (d,). m, s, mu, tau: (d,); alpha, sigma: floats."""
    ### BEGIN SOLUTION
    v_p = alpha**2 * s**2 + sigma**2  # variances after the noise
    v_q = alpha**2 * tau**2 + sigma**2
    of_entropy = alpha**2 * s / v_p
    of_ce = alpha**2 * s / v_q
    return alpha**2 * (m - mu) / v_q, of_ce - of_entropy, of_ce
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q20.1", gaussian_gradients)

# %% [markdown]
# ## Question 20.2: VSD is the derivative of KL (6 points)
#
# Let $z$ have $K$ equally likely values, so that the student makes $K$ numbers $x_k(\theta)$. Then $p_t$ is a mixture of $K$ Gaussians and the perfect
# *fake*, $\varepsilon_p(x)=\mathbb E[\varepsilon\mid x_t=x]$, is a formula: derive and code it. With it, compute
#
# $$\mathbb E_{z,\varepsilon}\Big[\frac\alpha\sigma\big(\varepsilon_q(x_t)-\varepsilon_p(x_t)\big)\frac{\partial x_0}{\partial\theta}\Big].$$
#
# For the mean over $\varepsilon$ you get a quadrature rule: $\mathbb E f(\varepsilon)=\sum_j\texttt{mass}_j\,f(\texttt{nodes}_j)$. No autograd is needed. The check does not
# know VSD: it moves each $\theta_i$ a little to both sides and takes the finite difference of $\mathrm{KL}(p_t\Vert q_t)$.


# %%
# ANSWER Q20.2
def vsd_gradient(x, jacobian, real, nodes, mass, alpha, sigma):
    """The gradient by θ, (P,). x: (K,); jacobian: (K, P), ∂x_k/∂θ; real: x_t of any shape ↦
    ε_q; nodes, mass: (N,)."""
    ### BEGIN SOLUTION
    x_t = alpha * x[:, None] + sigma * nodes  # (K, N)
    from_each = (x_t[:, :, None] - alpha * x) / sigma  # the noise, if x_t came from atom i
    share = torch.softmax(-(from_each**2) / 2, 2)  # p(i | x_t)
    fake = (share * from_each).sum(2)
    G = alpha / sigma * (real(x_t) - fake)
    return (G @ mass) @ jacobian / len(x)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q20.2", vsd_gradient)

# %% [markdown]
# ## Question 20.3: one step, with the right stops (5 points)
#
# Now with networks. Write the scalar loss whose gradient in the student's weights is the mean over the batch of $G_i\cdot\partial x_i/\partial\theta$ with
# $G=\frac\alpha\sigma(\varepsilon_{\mathrm{real}}(x_t)-\varepsilon_{\mathrm{fake}}(x_t))$, where $x=\texttt{student}(z)$. The check calls `.backward()` and looks at the gradients of *all three*
# networks: the other two must get none. (All three come as plain functions, so there is no `requires_grad_` to switch.) The value of the loss is
# not looked at.


# %%
# ANSWER Q20.3
def vsd_loss(student, real, fake, z, eps, alpha, sigma):
    """A scalar. student: z (B, k) ↦ x (B, d); real, fake: x_t ↦ ε (B, d); eps: (B, d), the
    noise; alpha, sigma: floats."""
    ### BEGIN SOLUTION
    x = student(z)
    with torch.no_grad():
        x_t = alpha * x + sigma * eps
        G = alpha / sigma * (real(x_t) - fake(x_t))
    return (0.5 * (x - (x - G).detach()) ** 2).sum(1).mean()
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q20.3", vsd_loss)

# %% [markdown]
# ## Question 20.4: the answer of a one-step student (2 points)
#
# A one-step student is a diffusion network that is asked once, at a noisy level: its input $z$ is taken for $x_t=\alpha x_0+\sigma\varepsilon$. From its
# output, return the $x_0$ it believes in. `predicts` is `"eps"` or `"v"`, with $v=\alpha\varepsilon-\sigma x_0$ and $\alpha^2+\sigma^2=1$.


# %%
# ANSWER Q20.4
def one_step(output, z, alpha, sigma, predicts):
    """x₀, (B, d). output, z: (B, d), the network's output and input; alpha, sigma: floats;
    predicts: "eps" or "v"."""
    ### BEGIN SOLUTION
    if predicts == "eps":
        return (z - sigma * output) / alpha
    return alpha * z - sigma * output
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q20.4", one_step)

# %% [markdown]
# ## Question 20.5: an adapter, beside the weight and inside it (3 points)
#
# A linear layer $y=xW^\top+\text{bias}$ gets a low-rank adapter: $W$ becomes $W+\frac{a}{r}BA$, where $r$ is the rank. Return the adapted layer's output, and
# the merged weight with which a plain linear layer says the same. (A good answer does not form $BA$ for the first: the point of the small
# rank is that two thin products are cheap. The check cannot see that.)


# %%
# ANSWER Q20.5
def adapted(x, weight, bias, A, B, a):
    """(y (n, out), merged weight (out, in)). x: (n, in); weight: (out, in); bias: (out,); A:
    (r, in); B: (out, r); a: a float."""
    ### BEGIN SOLUTION
    scale = a / len(A)
    y = x @ weight.T + bias + scale * (x @ A.T) @ B.T
    return y, weight + scale * B @ A
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q20.5", adapted)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/20_score_distillation.ipynb
# ```

# %%
from book import tally

tally("20")
