"""Assignment 13's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "13",
    {
        "Q13.1": """
        r = (kappa - kappa_min) / sigma_d
        return 1 / (1 + r * r), r * sigma_d / torch.sqrt(1 + (kappa / sigma_d) ** 2)
        # right
        r * sigma_d → 0.9 * r * sigma_d  # right at κ_min, not beyond
        """,
        "Q13.2": """
        goal = f(step(x, a, b), b).detach()
        d = goal - f(x, a)
        return (d * d).sum(dim=1) / x.shape[1]
        # right
        goal = f(step(x, a, b), b).detach() → goal = f(step(x, a, b).detach(), b)
        # also flows through the target
        (d * d).sum(dim=1) / x.shape[1] → (d * d).mean()  # has shape ()
        """,
        "Q13.3": """
        end = levels[i:][:k + 1][-1]
        start = levels[i]
        e = eps_cond + omega * (eps_cond - eps_null)
        return end.alpha * (x / start.alpha + (end.sigma / end.alpha - start.sigma / start.alpha) * e)
        # right
        levels[i:][:k + 1][-1] → levels[i + k]  # must stop at the last level
        """,
        "Q13.4": """
        n = len(levels) - 1
        j = i + 1
        while not any(n - j == int(m * n / phases) for m in range(phases)):
            j += 1
        k = lambda l: l.sigma / l.alpha
        return levels[j].alpha * (x / levels[i].alpha + (k(levels[j]) - k(levels[i])) * eps)
        # right
        """,
        "Q13.5": """
        x0 = model(x, levels[0]).x0
        for i in range(1, len(levels)):
            x0 = model(levels[i].alpha * x0 + noise[i - 1] * levels[i].sigma, levels[i]).x0
        return x0
        # right
        x0 = model(levels[i].alpha → seen = model(x, levels[i - 1]); x0 = model(levels[i].alpha
        # network calls
        """,
    },
)
