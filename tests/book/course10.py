"""Assignment 10's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q10.1": "iterate(F, G, starts)",
    "Q10.2": "parareal(F, G, x, K, tol)",
    "Q10.3": "ready(K, J, p)",
    "Q10.4": "after(f, g, p)",
}
OTHERWISE = {
    "Q10.1": """
K = len(starts) - 1
fine, old = [F(i, starts[i]) for i in range(K)], [G(i, starts[i]) for i in range(K)]
out = starts.clone()
for i in range(K):
    out[i + 1] = (G(i, out[i]) - old[i]) + fine[i]
return out""",
    "Q10.2": """
U, old = [x] + [None] * K, [None] * K
for i in range(K):
    old[i] = G(i, U[i])
    U[i + 1] = old[i]
p, moved = 0, float("inf")
while p < K and not moved <= tol:
    fine = [F(i, U[i]) for i in range(K)]
    before = U[K]
    for i in range(K):
        coarse = G(i, U[i])
        U[i + 1], old[i] = fine[i] + (coarse - old[i]), coarse
    moved = float(((U[K] - before) ** 2).mean(dim=1).max()) ** 0.5
    p += 1
return U[K], p""",
    "Q10.3": """
return torch.tensor([[i + min(q, i) * (J - 1) for i in range(K + 1)] for q in range(p + 1)])""",
    "Q10.4": """
U = torch.cat([torch.ones_like(g[:1]), g.cumprod(0)])
for _ in range(p):
    V = [U[0]]
    for i in range(len(f)):
        V.append(f[i] * U[i] + g[i] * (V[i] - U[i]))
    U = torch.stack(V)
return U""",
}
_ITERATE = """new = [starts[0]]
for i in range(len(starts) - 1):
    fine, old, after = F(i, {source}), G(i, starts[i]), G(i, new[i])
    new.append({result})
return torch.stack(new)"""
_SAMPLER = """U = [x]
for i in range(K):
    U.append(G(i, U[i]))
for p in range({first}, {last}):
    V = [x]
    for i in range(K):
        V.append({update})
    change = {change}
    end, U = U[-1], V
    if {stop}:
        break
return {result}, p"""
_READY = """T = torch.zeros(p + 1, K + 1)
T[0] = {guess}
for q in range(1, p + 1):
    T[q, 0] = {first}
    for i in range(K):
        T[q, i + 1] = {time}
return T"""
_AFTER = """e = torch.zeros({degree} + 1, len(f) + 1, dtype=f.dtype)
e[0] = 1
for i, r in enumerate((f - g) / g):
    e[1:, i + 1] = e[1:, i] + r * e[:-1, i]
return {scale}{result}"""


def _iterate(source="starts[i]", result="fine + (after - old)"):
    return _ITERATE.format(source=source, result=result)


def _sampler(
    first="1",
    last="K + 1",
    update="F(i, U[i]) + (G(i, V[i]) - G(i, U[i]))",
    change="(V[-1] - U[-1]).square().mean(1).sqrt().max()",
    stop="change <= tol",
    result="V[-1]",
):
    return _SAMPLER.format(
        first=first, last=last, update=update, change=change, stop=stop, result=result
    )


def _ready(guess="torch.arange(K + 1)", first="0", time="max(T[q - 1, i] + J, T[q, i] + 1)"):
    return _READY.format(guess=guess, first=first, time=time)


def _after(
    degree="p", scale="torch.cat([torch.ones_like(g[:1]), g.cumprod(0)]) * ", result="e.sum(0)"
):
    return _AFTER.format(degree=degree, scale=scale, result=result)


WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q10.1", _iterate(result="fine"), "the bracket is missing"),
    ("Q10.1", _iterate(result="fine + (old - after)"), "wrong sign"),
    ("Q10.1", _iterate(result="after"), "the fine solves are missing"),
    ("Q10.1", _iterate(source="new[i]", result="fine"), "sequential sampler"),
    ("Q10.1", _iterate(result="fine + after"), "not subtracted"),
    ("Q10.1", _iterate(result="(fine + after) - old"), "add the bracket last"),
    ("Q10.1", _iterate(result="after + (fine - old)"), "add the bracket last"),
    ("Q10.1", _iterate(result="fine + (new[i] - starts[i])"), "on unchanged"),
    ("Q10.1", _iterate(result="fine + G(i, new[i] - starts[i])"), "unless G is linear"),
    ("Q10.1", _iterate(result="fine + (after - starts[i + 1])"), "for the coarse guess only"),
    (
        "Q10.1",
        "new, fine = starts, [F(i, starts[i]) for i in range(len(starts) - 1)]\nfor i in "
        "range(len(starts) - 1):\n"
        "    new[i + 1] = fine[i] + (G(i, new[i]) - G(i, starts[i]))\nreturn new",
        "was U overwritten?",
    ),
    ("Q10.1", _iterate(result="fine.float() + (after - old)"), "single precision"),
    ("Q10.2", _sampler(last="4"), "up to K iterations"),
    (
        "Q10.2",
        _sampler(update="F(i, U[i]) - (G(i, V[i]) - G(i, U[i]))", last="K"),
        "up to K iterations",
    ),
    ("Q10.2", _sampler(update="G(i, V[i])"), "correct every block"),
    ("Q10.2", _sampler(first="2", last="K + 2"), "the guess is no iteration"),
    ("Q10.2", _sampler(change="(V[-1] - U[-1]).norm(dim=1).max()"), "the norm, not"),
    (
        "Q10.2",
        _sampler(change="(V[-1] - U[-1]).square().mean(1).sqrt().mean()"),
        "the mean over the batch",
    ),
    ("Q10.2", _sampler(change="(V[-1] - U[-1]).square().mean(1).max()"), "without its root"),
    ("Q10.2", _sampler(change="(V[-1] - U[-1]).abs().mean(1).max()"), "the mean absolute value"),
    ("Q10.2", _sampler(change="(V[-1] - U[-1]).abs().max()"), "the largest coordinate"),
    (
        "Q10.2",
        _sampler(change="max((v - u).square().mean(1).sqrt().max() for v, u in zip(V, U))"),
        "only that of U_K",
    ),
    ("Q10.2", _sampler(update="G(i, V[i]) + (F(i, U[i]) - G(i, U[i]))"), "add the bracket last"),
    ("Q10.2", _sampler(result="V[-1]").replace("V[-1], p", "V[-1], p - 1"), "the count is not"),
    ("Q10.2", _sampler(result="end"), "wanted 0"),
    ("Q10.2", "for i in range(K):\n    x = F(i, x)\nreturn x, K", "this is the chain itself"),
    ("Q10.2", _sampler(stop="False"), "never stops"),
    ("Q10.2", _sampler(update="(F(i, U[i]) + G(i, V[i])) - G(i, U[i])"), "add the bracket last"),
    ("Q10.3", _ready(time="T[q - 1, K] + J + i"), "without the pipeline"),
    ("Q10.3", _ready(time="min(T[q - 1, i] + J, T[q, i] + 1)"), "wait for the later one"),
    ("Q10.3", _ready(time="T[q - 1, i] + J + T[q, i] + 1"), "not their sum"),
    ("Q10.3", _ready(guess="0"), "the guess is not free"),
    ("Q10.3", _ready(first="q * J"), "start 0 is given"),
    ("Q10.3", _ready(time="max(T[q - 1, i] + J, T[q, i]) + 1"), "takes no call"),
    ("Q10.3", _ready(time="T[q, i] + J"), "known sooner"),
    (
        "Q10.3",
        "return torch.tensor([[i + q * (J - 1) if i else 0 for i in range(K + 1)] for q in "
        "range(p + 1)])",
        "and is kept",
    ),
    ("Q10.4", _after(degree="len(f)"), "whole product"),
    ("Q10.4", _after(result="e[:-1].sum(0)"), "one too low"),
    ("Q10.4", _after(degree="(p + 1)"), "one too high"),
    ("Q10.4", _after(result="e[-1]"), "only the terms of degree p"),
    ("Q10.4", _after(scale=""), "product of the g is missing"),
    ("Q10.4", _after().replace("/ g)", "/ f)"), "relative to the coarse factor"),
    ("Q10.4", _after().replace("(f - g) / g", "f - g"), "divide f − g by g"),
    ("Q10.4", _after().replace("(f - g)", "(g - f)"), "fine less coarse"),
    (
        "Q10.4",
        _after(scale="torch.cat([torch.ones_like(f[:1]), f.cumprod(0)]) * "),
        "of the g, not of the f",
    ),
    ("Q10.4", _after().replace("dtype=f.dtype", "dtype=torch.float32"), "single precision"),
]

COURSE = Course("10", HEADS, OTHERWISE, WRONG)
