"""Assignment 09's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q09.1": "sweep(points, made, size)",
    "Q09.2": "prefix_is_exact(sampler, step, guess)",
    "Q09.3": "move(change, tol)",
    "Q09.4": "picard(step, x, sigma, window, tol)",
    "Q09.5": "after_sweeps(l, k)",
}
OTHERWISE = {
    "Q09.1": """
new = [points[0]]
for j in range(len(made)):
    moved = new[j] - points[j]
    new.append(made[j] + size[j + 1] / size[j] * moved)
return torch.stack(new)""",
    "Q09.2": """
truth = guess.clone()
for j in range(len(guess) - 1):
    truth[j + 1] = step(j, truth[j])
return all(bool((sampler(step, guess, k)[: k + 1] == truth[: k + 1]).all()) for k in range(len(guess)))""",
    "Q09.3": """
n = 0
while n < len(change) and change[n].max() <= tol:
    n += 1
return n if n else 1""",
    "Q09.4": """
N, k, b = len(sigma) - 1, 0, 0
X = [x] * (N + 1)
while b < N:
    e = min(b + window, N)
    made = step(b, torch.stack(X[b:e]))
    new, ok, n = [X[b]], True, 0
    for i in range(b, e):
        new.append(made[i - b] + (new[-1] - X[i]))
        worst = ((new[-1] - X[i + 1]) ** 2).mean(1).sqrt().max() / sigma[i + 1]
        ok = ok and bool(worst <= tol)
        n += ok
    X[b:e + 1] = new
    b += max(n, 1)
    k += 1
    for i in range(e + 1, N + 1):
        X[i] = X[e]
return X[-1], k""",
    "Q09.5": """
u = torch.ones(len(l) + 1, dtype=l.dtype)
for sweep in range(k):
    u = torch.cat([u[:1], 1 + torch.cumsum(l * u[:-1], 0)])
return u""",
}
_SWEEP = """new = [points[0]]
for j in range(len(made)):
    total = sum(({a}) * (made[i] - points[i + 1]) for i in range({stop}))
    new.append({result})
return torch.stack(new)"""
_TEST = """chain = [guess[0]]
for j in range(len(guess) - 1):
    chain.append(step(j, {source}))
for k in range({first}, len(guess)):
    points = sampler(step, guess, k)
    if not all({same} for j in range({stop})):
        return False
return True"""
_MOVE = "return {result}"
_PICARD = """N, done, sweeps = len(sigma) - 1, 0, 0
points = torch.stack([x] * (N + 1))
while done < N:
    stop = min(done + window, N)
    old, made = points[done + 1 : stop + 1].clone(), step({asked})
    brackets = torch.cumsum(made - old, 0)
    new = {new}
    change = {change}
    points[done + 1 : stop + 1] = new
    {fill}
    sweeps += 1
    done += {move}
return points[-1], sweeps"""
_SIGMA = " / torch.tensor(sigma[done + 1 : stop + 1], dtype=x.dtype)[:, None]"
_EXPANDED = """e = torch.zeros({degree} + 1, len(l) + 1, dtype=l.dtype)
e[0] = 1
for j in range(len(l)):
    e[1:, j + 1] = e[1:, j] + l[j] * e[:-1, j]
return {result}"""
_IN_PLACE = """e, u = [1.0] + [0.0] * k, [1.0]
for value in l.tolist():
    for m in range({order}):
        e[m] += value * e[m - 1]
    u.append(sum(e))
return torch.tensor(u, {made})"""
_CHANGE = "(new - old).square().mean(2).sqrt()"


def _sweep(a="size[j + 1] / size[i + 1]", stop="j", result="made[j] + total"):
    return _SWEEP.format(a=a, stop=stop, result=result)


def _test(source="chain[j]", first="0", same="torch.equal(points[j], chain[j])", stop="k + 1"):
    return _TEST.format(source=source, first=first, same=same, stop=stop)


def _picard(
    asked="done, points[done:stop]",
    new="made + torch.cat([0 * brackets[:1], brackets[:-1]])",
    change=_CHANGE + _SIGMA,
    fill="points[stop + 1 :] = points[stop]",
    move="max(1, int((change.amax(1) <= tol).long().cumprod(0).sum()))",
):
    return _PICARD.format(asked=asked, new=new, change=change, fill=fill, move=move)


WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    ("Q09.1", _sweep(a="1"), "the factors A are missing"),
    ("Q09.1", _sweep(a="size[i + 1] / size[j + 1]"), "upside down"),
    ("Q09.1", _sweep(stop="j + 1"), "runs up to i = j"),
    ("Q09.1", _sweep(result="made[j] - total"), "wrong sign"),
    ("Q09.1", "return torch.cat([points[:1], made])", "bare chain"),
    (
        "Q09.1",
        "s = size[:, None, None]\nu = points[:1] / s[:1] + torch.cumsum(made / s[1:] - "
        "points[:-1] / s[:-1], 0)\nreturn torch.cat([points[:1], s[1:] * u])",
        "add the sum of brackets last",
    ),
    ("Q09.1", _sweep(a="size[j + 1] / size[i]"), "not s_{j+1}/s_i"),
    ("Q09.1", _sweep(a="size[j] / size[i]"), "not s_j/s_i"),
    (
        "Q09.1",
        _sweep().replace("made[i] - points[i + 1]", "made[i] - points[i]"),
        "not Φ_i(X_i) − X_i",
    ),
    ("Q09.1", _sweep().replace("points[i + 1]", "new[i + 1]"), "take the *new* X_{i+1}"),
    ("Q09.1", _sweep(result="made[j].float() + total"), "single precision"),
    ("Q09.1", "return made", "shape (9, 5, 2), wanted (10, 5, 2)"),
    ("Q09.2", _test(same="torch.allclose(points[j], chain[j])"), "accepts 3 of 8 wrong samplers"),
    ("Q09.2", _test(stop="k"), "one that is one sweep late"),
    ("Q09.2", _test(first="len(guess) - 1"), "one that does nothing at all until the last sweep"),
    ("Q09.2", _test(stop="len(guess)"), "rejects a right sampler"),
    ("Q09.2", _test(source="guess[j]"), "rejects a right sampler"),
    (
        "Q09.2",
        _test().replace("in range(k + 1)", "in [k]"),
        "makes a point that was right wrong again",
    ),
    ("Q09.2", _test(first="1"), "returns zeros when it is asked for no sweep"),
    (
        "Q09.2",
        _test().replace("(0, len(guess))", "(0, len(guess) - 1)"),
        "never moves the last point",
    ),
    (
        "Q09.2",
        _test().replace(
            "sampler(step, guess, k)", "guess if k == 0 else sampler(step, points, 1)"
        ),
        "stops moving after five sweeps",
    ),
    ("Q09.2", "return True", "accepts 8 of 8 wrong samplers"),
    (
        "Q09.3",
        _MOVE.format(result="max(1, int((change.amax(1) <= tol).sum()))"),
        "before the first unsettled one",
    ),
    (
        "Q09.3",
        _MOVE.format(result="int((change.amax(1) <= tol).long().cumprod(0).sum())"),
        "by one at least",
    ),
    (
        "Q09.3",
        _MOVE.format(result="max(1, int((change.mean(1) <= tol).long().cumprod(0).sum()))"),
        "the mean over the batch",
    ),
    (
        "Q09.3",
        _MOVE.format(result="max(1, int((change.amax(1) < tol).long().cumprod(0).sum()))"),
        "equal to the tolerance",
    ),
    (
        "Q09.3",
        _MOVE.format(
            result="min(len(change), 1 + int((change.amax(1) <= tol).long().cumprod(0).sum()))"
        ),
        "one too far",
    ),
    (
        "Q09.3",
        _MOVE.format(result="1 + int((change.amax(1) <= tol).long().cumprod(0).sum())"),
        "past its own end",
    ),
    (
        "Q09.3",
        _MOVE.format(
            result="max(1, int((change.square().mean(1).sqrt() <= tol).long().cumprod(0).sum()))"
        ),
        "root mean square over the batch",
    ),
    (
        "Q09.3",
        _MOVE.format(result="max(1, int((change > tol).any(1).long().argmax()))"),
        "argmax finds no",
    ),
    (
        "Q09.3",
        _MOVE.format(result="max(1, int((change <= tol).long().cumprod(0).sum(0).max()))"),
        "the smallest counts",
    ),
    ("Q09.4", _picard(new="made"), "bare chain"),
    ("Q09.4", _picard(fill="pass"), "begin at the start x"),
    ("Q09.4", _picard(change=_CHANGE), "not divided by σ"),
    ("Q09.4", _picard(change="(new - old).norm(dim=2)" + _SIGMA), "the norm, not"),
    (
        "Q09.4",
        _picard(change=_CHANGE + _SIGMA.replace("[done + 1 : stop + 1]", "[done:stop]")),
        "not over σ_j",
    ),
    ("Q09.4", _picard(change=_CHANGE + _SIGMA.replace("/", "*")), "not multiplied"),
    ("Q09.4", _picard(change=_CHANGE.replace(".sqrt()", "") + _SIGMA), "without its root"),
    (
        "Q09.4",
        _picard(
            move="min(stop - done, 1 + int((change.amax(1) <= tol).long().cumprod(0).sum()))"
        ),
        "one too far",
    ),
    (
        "Q09.4",
        _picard(move="int((change.amax(1) <= tol).long().cumprod(0).sum())"),
        "by one at least",
    ),
    (
        "Q09.4",
        _picard().replace(
            "N, done, sweeps = len(sigma) - 1, 0, 0", "N, done, sweeps = len(sigma) - 1, 0, -1"
        ),
        "the count is not",
    ),
    ("Q09.4", _picard().replace("done + window", "done + window + 1"), "one step too many"),
    (
        "Q09.4",
        "for j in range(len(sigma) - 1):\n    x = step(j, x[None])[0]\nreturn x, len(sigma) - 1",
        "one step after another",
    ),
    (
        "Q09.4",
        _picard(new="points[done] + torch.cumsum(made - points[done:stop], 0)"),
        "to the last bit",
    ),
    ("Q09.4", _picard(move="2"), "pass points that still change"),
    (
        "Q09.4",
        _picard(asked="0, points[:-1])[done:stop] + 0 * (0"),
        "step only the points of the window",
    ),
    ("Q09.5", _EXPANDED.format(degree="len(l)", result="e.sum(0)"), "whole product"),
    ("Q09.5", _EXPANDED.format(degree="k", result="e[:-1].sum(0)"), "one too low"),
    ("Q09.5", _EXPANDED.format(degree="(k + 1)", result="e.sum(0)"), "one too high"),
    (
        "Q09.5",
        "S = torch.cat([torch.zeros(1, dtype=l.dtype), l.cumsum(0)])\nreturn sum(S**m / "
        "math.factorial(m) for m in range(k + 1))",
        "only the bound",
    ),
    ("Q09.5", _EXPANDED.format(degree="k", result="e[-1]"), "only the terms of degree k"),
    ("Q09.5", _IN_PLACE.format(order="1, k + 1", made="dtype=l.dtype"), "more than once"),
    ("Q09.5", _IN_PLACE.format(order="k, 0, -1", made=""), "single precision"),
]

COURSE = Course("09", HEADS, OTHERWISE, WRONG)
