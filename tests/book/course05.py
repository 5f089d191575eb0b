"""Assignment 05's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "05",
    {
        "Q05.1": """
        alpha, sigma = level.alpha, level.sigma
        D, det = alpha**2 + sigma**2, alpha * level.d_sigma - level.d_alpha * sigma
        if face == "eps":
            return (x - sigma * w) / alpha, w
        if face == "x0":
            return w, (x - alpha * w) / sigma
        if face == "v":
            return (alpha * x - sigma * w) / D, (sigma * x + alpha * w) / D
        if face == "velocity":
            return (level.d_sigma * x - sigma * w) / det, (alpha * w - level.d_alpha * x) / det
        return torch.stack([(x + sigma**2 * w) / alpha, -sigma * w])
        # right
        (x - sigma * w) / alpha, w → x - 2 * sigma * w, w  # (x₀, ε) from eps is off
        """,
        "Q05.2": """
        level = at_lam(math.log((1 - t) / t))
        there = level.sigma / t * x
        eps = eps_model(there, level)
        return eps - (there - level.sigma * eps) / level.alpha
        # right
        t * x → t * x.float()  # single precision
        """,
        "Q05.3": """
        names = ["eps", "x0", "v", "velocity", "score"]
        x0, eps = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
        def truth(name, l):
            return {"eps": eps, "x0": x0, "v": l.alpha * eps - l.sigma * x0, "velocity": l.d_alpha * x0 + l.d_sigma * eps, "score": -eps / l.sigma}[name]
        for level in levels:
            x = level.alpha * x0 + level.sigma * eps
            for have in names:
                for want in names:
                    found = convert(have, want, truth(have, level), x, level)
                    if not torch.allclose(found, truth(want, level), rtol=1e-6, atol=1e-8):
                        return False
        return True
        # right
        return True  # accepts 9 of 9
        found = convert(have, → found = convert(want, have, convert(have,
        x, level) → x, level), x, level)
        truth(want, level), rtol → truth(have, level), rtol
        # has the velocity's sign wrong, both ways
        for want in names → for want in ["x0", "eps"]  # scales the score by 1.001
        for level in levels
        → for level in [l for l in levels if abs(l.alpha**2 + l.sigma**2 - 1) < 1e-9]
        # accepts 1 of 9 wrong converters, for instance one that divides by no D
        for level in levels → for level in [l for l in levels if l.alpha > l.sigma]
        # is right where α > σ only
        rtol=1e-6, atol=1e-8 → rtol=1e-2, atol=1e-2  # scales the score by 1.001
        torch.allclose(found, truth(want, level), rtol=1e-6, atol=1e-8)
        → torch.equal(found, truth(want, level))
        # right converters, for instance one that
        x0, eps = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
        → x0, eps = torch.randn(2, 4, 3)
        # rejects 3 of 3 right converters
        """,
        "Q05.4": """
        x = x0 + t[:, None] * (eps - x0)
        error = net(x, t) - (eps - x0)
        return (error**2).sum() / len(x0)
        # right
        """,
        "Q05.5": """
        for k in range(len(times) - 1):
            u = -theirs(x, 1 - times[k])
            x = x + (times[k + 1] - times[k]) * u
        return x
        # right
        """,
    },
)
