"""Assignment 11's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "11",
    {
        "Q11.1": """
        w = math.expm1(b.lam - c.lam) / math.expm1(a.lam - c.lam)
        first = guess(z, a)
        turned = b.sigma / a.sigma
        second = guess(turned * z + (b.alpha - turned * a.alpha) * first, b)
        return first + w * (second - first)
        # right
        return first + → return 1.1 * first +  # solve z_c = α_c x̃
        """,
        "Q11.2": """
        rho = c.sigma / a.sigma
        x = (z_c - rho * z) / (c.alpha - rho * a.alpha)
        return (a.alpha * z - x) / a.sigma
        # right
        d = math.atan2(a.sigma, a.alpha) - math.atan2(c.sigma, c.alpha)
        return z / math.tan(d) - z_c / math.sin(d)
        # right
        - x) → + x)  # wrong between two noisy levels, from pure noise on, where c is clean
        """,
        "Q11.3": """
        snr = (alpha / sigma) ** 2
        return snr, sigma**-2, torch.maximum(snr, torch.ones_like(snr))
        # right
        return snr, → return  # got 2 arrays
        """,
        "Q11.4": """
        return t[:: 2 ** (k - 1)].unfold(0, 3, 2)
        # right
        h = 2 ** (k - 1)
        rows = [[t[i], t[i + h], t[i + 2 * h]] for i in range(0, len(t) - 1, 2 * h)]
        return torch.tensor(rows, dtype=t.dtype)
        # right
        h = 2 ** (k - 1)
        return [(t[i], t[i + h].item(), t[i + 2 * h]) for i in range(0, len(t) - 1, 2 * h)]
        # right
        (0, 3, 2) → (0, 3, 1)  # has shape (15, 3), wanted (8, 3)
        (k - 1) → k  # has shape (4, 3), wanted (8, 3)
        """,
        "Q11.5": """
        end = z
        for i in range(len(levels) - 1):
            p, b = model(end, levels[i]), levels[i + 1]
            end = p.x0 * b.alpha + p.eps * b.sigma
        d = end.detach() - student(z, levels[0])
        return (d * d).sum(dim=1) / 2
        # right
        (d * d).sum(dim=1) / 2 → (d * d).mean()  # has shape ()
        """,
    },
)
