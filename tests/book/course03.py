"""Assignment 03's class: right answers spelled otherwise, and plausible wrong ones with what
they must be told.
"""

from course import Course

HEADS = {
    "Q03.1": "posterior(x_a, x_0, a, b)",
    "Q03.2": "posterior_by_sampling(x_a, x_0, a, b, z)",
    "Q03.3": "walk_back(eps, x, levels, noise)",
    "Q03.4": "loss_weights(alpha, sigma, gamma)",
    "Q03.5": "bound_terms(x0_of, x0, levels, noise)",
}
_POSTERIOR = """
r = a.alpha / b.alpha
s2 = a.sigma**2 - r**2 * b.sigma**2
precision = r**2 / s2 + 1 / b.sigma**2
mean = (r * x_a / s2 + b.alpha * x_0 / b.sigma**2) / precision
return mean, 1 / precision
"""
_PLAIN = "r = a.alpha / b.alpha\ns2 = a.sigma**2 - r**2 * b.sigma**2\nreturn {mean}, {variance}"
_SAMPLING = """
r = a.alpha / b.alpha
s2 = a.sigma**2 - r**2 * b.sigma**2
x_b = b.alpha * x_0.unsqueeze(1) + b.sigma * z
w = (-(x_a.unsqueeze(1) - r * x_b)**2 / (2 * s2)).exp()
w = w / w.sum(1, keepdim=True)
mean = (w * x_b).sum(1)
return mean, (w * x_b**2).sum(1) - mean**2
"""
_WALK = """
for k in range(len(levels) - 1):
    a, b = levels[k], levels[k + 1]
    e = eps(x, a)
    x0 = (x - a.sigma * e) / a.alpha
    if b.sigma == 0:
        return x0
    r = a.alpha / b.alpha
    s2 = a.sigma**2 - r**2 * b.sigma**2
    x = (r * b.sigma**2 * x + b.alpha * s2 * x0) / a.sigma**2 + b.sigma * s2**0.5 / a.sigma * noise[k]
"""
_FACES = """
for k in range(len(levels) - 1):
    a, b = levels[k], levels[k + 1]
    e = eps(x, a)
    x0, left = (x - a.sigma * e) / a.alpha, a.alpha * b.sigma / (b.alpha * a.sigma)
    x = b.alpha * x0 + {step}
return x
"""
_STEP = "b.sigma * left * e + (b.sigma * (1 - left**2)**0.5 * noise[k] if b.sigma > 0 else 0)"
_WEIGHTS = "snr = alpha**2 / sigma**2\nreturn {eps}, {v}, {least}, {step}"
_BOUND = """
first, last, d = levels[0], levels[-1], x0.shape[1]
snr = [(level.alpha / level.sigma)**2 for level in levels]
v = first.sigma**2
steps = torch.zeros(len(levels) - 1, dtype=x0.dtype)
for k in range(len(levels) - 1):
    x = levels[k].alpha * x0 + levels[k].sigma * noise[k]
    steps[k] = (snr[k + 1] - snr[k]) / 2 * ((x0 - x0_of(x, levels[k]))**2).sum(1).mean()
kappa2 = (last.sigma / last.alpha)**2
y = x0 + kappa2**0.5 * noise[-1]
prior = ((first.alpha * x0)**2 + v - 1 - math.log(v)).sum(1).mean() / 2
decoder = ((x0 - y)**2 / kappa2 + math.log(2 * math.pi * kappa2)).sum(1).mean() / 2
return prior, steps, decoder
"""


def _plain(
    mean: str = "(r * b.sigma**2 * x_a + b.alpha * s2 * x_0) / a.sigma**2",
    variance: str = "b.sigma**2 * s2 / a.sigma**2",
) -> str:
    return _PLAIN.format(mean=mean, variance=variance)


def _swap(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def _sampling(old: str, new: str) -> str:
    return _swap(_SAMPLING, old, new)


def _step(step: str) -> str:
    return _FACES.format(step=step)


def _weights(
    eps: str = "snr",
    v: str = "1 + snr",
    least: str = "snr.clamp(max=gamma)",
    step: str = "snr.diff() / 2",
) -> str:
    return _WEIGHTS.format(eps=eps, v=v, least=least, step=step)


def _bound(old: str, new: str) -> str:
    return _swap(_BOUND, old, new)


# DDPM's own letters: right on VP only
_COPIES = "scale = a.alpha / b.alpha\nbeta = 1 - scale**2\n"
OTHERWISE = {
    "Q03.1": _POSTERIOR,
    "Q03.2": _SAMPLING,
    "Q03.3": _WALK,
    "Q03.4": _weights(
        "alpha**2 / sigma**2",
        "1 / sigma**2",
        "torch.minimum(snr, torch.full_like(snr, gamma))",
        "0.5 * (snr[1:] - snr[:-1])",
    ),
    "Q03.5": _BOUND,
}
WRONG = [  # (question, body of a plausible wrong answer, what the diagnosis must say)
    (
        "Q03.1",
        _plain("(r * b.sigma**2 * x_0 + b.alpha * s2 * x_a) / a.sigma**2"),
        "coefficients are exchanged",
    ),
    (
        "Q03.1",
        _plain("(b.sigma**2 * x_a + b.alpha * s2 * x_0) / a.sigma**2"),
        "missing in front of x_a",
    ),
    (
        "Q03.1",
        _plain("(r * b.sigma**2 * x_a + s2 * x_0) / a.sigma**2"),
        "missing in front of x_0",
    ),
    (
        "Q03.1",
        _plain("r * b.sigma / a.sigma * x_a + b.alpha * s2 / a.sigma**2 * x_0"),
        "its square belongs",
    ),
    (
        "Q03.1",
        _COPIES
        + "return (scale * b.sigma**2 * x_a + b.alpha * beta * x_0) / a.sigma**2, b.sigma**2 * "
        "beta / a.sigma**2",
        "variance-preserving schedules only",
    ),
    ("Q03.1", _plain("b.alpha * x_0 + b.sigma * (x_a - a.alpha * x_0) / a.sigma"), "DDIM's mean"),
    ("Q03.1", _plain("b.alpha * x_0 + 0 * x_a"), "the mean of q(x_b|x_0)"),
    ("Q03.1", _plain("x_a / r"), "turned round"),
    (
        "Q03.1",
        _plain(
            "b.alpha * x_0 + b.sigma * (a.alpha * b.sigma / (b.alpha * a.sigma))**2 * (x_a - "
            "a.alpha * x_0) / a.sigma"
        ),
        "e^{−h} is squared",
    ),
    ("Q03.1", _plain(variance="s2"), "variance of the forward step"),
    ("Q03.1", _plain(variance="(b.sigma**2 * s2 / a.sigma**2)**0.5"), "the standard deviation"),
    ("Q03.1", _plain(variance="b.sigma**2"), "the variance of q(x_b|x_0)"),
    (
        "Q03.1",
        _plain(variance="b.sigma**2 * (1 - a.alpha * b.sigma / (b.alpha * a.sigma))"),
        "the exponent is −2h",
    ),
    ("Q03.1", _plain(variance="r**2 / s2 + 1 / b.sigma**2"), "this is the precision"),
    ("Q03.1", _plain(variance="b.sigma**2 + s2 / r**2"), "precisions add"),
    (
        "Q03.1",
        _swap(_PLAIN, "a.alpha / b.alpha", "b.alpha / a.alpha").format(
            mean="(r * b.sigma**2 * x_a + b.alpha * s2 * x_0) / a.sigma**2",
            variance="b.sigma**2 * s2 / a.sigma**2",
        ),
        "not α_b/α_a",
    ),
    (
        "Q03.1",
        _plain(variance="b.sigma**2 * s2 / a.sigma**2 * torch.ones_like(x_a)"),
        "the variance has shape",
    ),
    ("Q03.1", "return x_a", "got 1 array, wanted 2"),
    (
        "Q03.2",
        _sampling(
            "w = (-(x_a.unsqueeze(1) - r * x_b)**2 / (2 * s2)).exp()", "w = torch.ones_like(x_b)"
        ),
        "the weights are missing",
    ),
    (
        "Q03.2",
        _sampling("w / w.sum(1, keepdim=True)", "w / len(z)").replace(
            "(w * x_b**2).sum(1) - mean**2", "(w * (x_b - mean[:, None])**2).sum(1)"
        ),
        "do not sum to 1",
    ),
    ("Q03.2", _sampling("(2 * s2)", "(2 * a.sigma**2)"), "not σ_a²"),
    ("Q03.2", _sampling("- r * x_b", "- x_b"), "the mean α_{a|b} x_b, not x_b"),
    ("Q03.2", _sampling("- r * x_b", "- a.alpha * x_b"), "not α_a"),
    ("Q03.2", _sampling("(2 * s2)", "s2"), "the ½ is missing in the exponent"),
    ("Q03.2", _sampling("(2 * s2)", "(2 * s2**0.5)"), "not by its variance"),
    ("Q03.2", _sampling(" - mean**2", ""), "subtract the square of the mean"),
    (
        "Q03.2",
        _sampling("(w * x_b**2).sum(1) - mean**2", "((w * x_b**2).sum(1) - mean**2)**0.5"),
        "the standard deviation",
    ),
    ("Q03.2", _sampling(".sum(1, keepdim=True)", ".sum()"), "weights ∝ exp"),
    ("Q03.3", _step("b.sigma * left * e"), "the mean alone"),
    ("Q03.3", _step("b.sigma * e"), "this is DDIM"),
    ("Q03.3", _step(_STEP.replace("left * e", "e")), "fresh noise comes on top"),
    ("Q03.3", _step("(b.sigma * noise[k] if b.sigma > 0 else 0)"), "noising the guess"),
    (
        "Q03.3",
        _step(_STEP.replace("b.sigma * (1 - left**2)**0.5", "a.sigma * (1 - left**2)**0.5")),
        "variance β_n of the forward step",
    ),
    (
        "Q03.3",
        _step(_STEP.replace("b.sigma * (1 - left**2)**0.5", "b.sigma**2 * (1 - left**2)")),
        "multiplied by the variance",
    ),
    ("Q03.3", _step(_STEP.replace("left * e", "left**2 * e")), "so e^{−h} of the noise itself"),
    (
        "Q03.3",
        _step(_STEP.replace("(1 - left**2)**0.5", "(1 - left)**0.5")),
        "under the root is −2h",
    ),
    (
        "Q03.3",
        _step(_STEP).replace("eps(x, a)", "eps(x, b if b.sigma > 0 else a)"),
        "x is at level a",
    ),
    (
        "Q03.3",
        _step(_STEP).replace("range(len(levels) - 1)", "range(len(levels) - 2)"),
        "the last step is missing",
    ),
    (
        "Q03.3",
        _step(
            "b.sigma * left * e + (b.sigma * (1 - left**2)**0.5 * noise[k] if b.sigma > 0 else "
            "a.sigma * noise[-1])"
        ),
        "the last step adds noise",
    ),
    ("Q03.3", _step(_STEP).replace("\nreturn x", "\n    return x"), "inside the loop"),
    ("Q03.4", _weights(eps="1 / snr"), "this is 1/SNR"),
    ("Q03.4", _weights(eps="alpha / sigma"), "this is α/σ"),
    ("Q03.4", _weights(eps="torch.ones_like(snr)"), "this is 1: in units"),
    ("Q03.4", _weights(v="1 + 1 / snr"), "this is 1 + 1/SNR"),
    ("Q03.4", _weights(v="snr"), "v has a part of x_0"),
    ("Q03.4", _weights(v="(alpha**2 / sigma - sigma)**2"), "err in opposite directions"),
    ("Q03.4", _weights(v="alpha**2 * snr + sigma**2"), "two errors that are one"),
    ("Q03.4", _weights(least="(gamma / snr).clamp(max=1)"), "this is min(1, γ/SNR)"),
    ("Q03.4", _weights(least="snr.clamp(min=gamma)"), "the larger of SNR and γ"),
    ("Q03.4", _weights(step="-snr.diff() / 2"), "a KL is positive"),
    ("Q03.4", _weights(step="snr.diff()"), "the ½ is missing"),
    ("Q03.4", _weights(step="(snr[1:] / snr[:-1] - 1) / 2"), "½(SNR_b/SNR_a − 1)"),
    ("Q03.4", _weights(step="(alpha / sigma).log().diff() / 2"), "half the difference of λ"),
    ("Q03.4", _weights(step="snr[1:] / 2"), "subtract that of the noisier one"),
    ("Q03.4", _weights(step="snr / 2"), "the factor of a step has shape"),
    ("Q03.5", _bound(" - math.log(v)", ""), "the logarithm of the variance is missing"),
    ("Q03.5", _bound("+ v - 1 - math.log(v)", ""), "the part of the means"),
    ("Q03.5", _bound("- math.log(v)", "+ math.log(v)"), "the logarithm has the wrong sign"),
    (
        "Q03.5",
        _bound(
            "((first.alpha * x0)**2 + v - 1 - math.log(v)).sum(1).mean() / 2",
            "((first.alpha * x0)**2).sum(1).mean() / 2 + (v - 1 - math.log(v)) / 2",
        ),
        "once for each of the d",
    ),
    ("Q03.5", _bound("- math.log(v)).sum(1)", "- math.log(v)).mean(1)"), "a KL adds them"),
    (
        "Q03.5",
        _bound("- math.log(v)).sum(1).mean() / 2", "- math.log(v)).sum(1).mean()"),
        "the ½ is missing",
    ),
    (
        "Q03.5",
        _bound(
            "(first.alpha * x0)**2 + v - 1 - math.log(v)",
            "((first.alpha * x0)**2 + 1) / v - 1 + math.log(v)",
        ),
        "q comes first",
    ),
    ("Q03.5", _bound("levels[k]))**2).sum(1)", "levels[k]))**2).mean(1)"), "‖·‖² adds them"),
    ("Q03.5", _bound("(snr[k + 1] - snr[k]) / 2", "(snr[k + 1] - snr[k])"), "the ½ is missing"),
    ("Q03.5", _bound("(snr[k + 1] - snr[k]) / 2", "(snr[k] - snr[k + 1]) / 2"), "SNR_b − SNR_a"),
    (
        "Q03.5",
        _bound(
            "x = levels[k].alpha * x0 + levels[k].sigma * noise[k]",
            "x = levels[k + 1].alpha * x0 + levels[k + 1].sigma * noise[k]",
        ).replace("x0_of(x, levels[k])", "x0_of(x, levels[k + 1])"),
        "a step begins at a",
    ),
    (
        "Q03.5",
        _bound("(snr[k + 1] - snr[k]) / 2", "(snr[k + 1] / snr[k] - 1) / 2"),
        "½(SNR_b/SNR_a − 1)",
    ),
    ("Q03.5", _bound("(snr[k + 1] - snr[k]) / 2 * ", ""), "this is the loss on x_0"),
    ("Q03.5", _bound("(snr[k + 1] - snr[k]) / 2", "snr[k + 1] / 2"), "half the SNR of b"),
    (
        "Q03.5",
        _bound("levels[k]))**2).sum(1).mean()", "levels[k]))**2).sum()"),
        "summed over the batch",
    ),
    (
        "Q03.5",
        _bound(" + math.log(2 * math.pi * kappa2)", ""),
        "the normaliser ½d·log(2πκ²) is missing",
    ),
    (
        "Q03.5",
        _bound("(x0 - y)**2 / kappa2", "torch.ones_like(x0)"),
        "use the noise you were given",
    ),
    (
        "Q03.5",
        _bound("return prior, steps, decoder", "return prior, steps, -decoder"),
        "L_0 is −log p",
    ),
    (
        "Q03.5",
        _bound("2 * math.pi * kappa2)", "2 * math.pi * kappa2**0.5)"),
        "κ stands where κ² belongs",
    ),
    ("Q03.5", _bound("2 * math.pi * kappa2)", "2 * math.pi * last.sigma**2)"), "κ is σ/α"),
    ("Q03.5", _bound("kappa2)).sum(1)", "kappa2)).mean(1)"), "their logarithms add"),
    (
        "Q03.5",
        _bound(
            "((x0 - y)**2 / kappa2 + math.log(2 * math.pi * kappa2)).sum(1).mean() / 2",
            "((x0 - y)**2 / kappa2).sum(1).mean() / 2 + math.log(2 * math.pi * kappa2) / 2",
        ),
        "counts once for each of the d",
    ),
]
COURSE = Course("03", HEADS, OTHERWISE, WRONG)
