"""Assignment 07's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "07",
    {
        "Q07.1": """
        h = torch.log(alpha_t / sigma_t) - torch.log(alpha_s / sigma_s)
        return alpha_t / alpha_s, -sigma_t * torch.expm1(h)
        # right
        -sigma_t * torch.expm1(h) → torch.zeros_like(alpha_s)
        # only the exponential is left to integrate
        return alpha_t / alpha_s → return alpha_t / alpha_s - 1  # it stands in front of x_s
        """,
        "Q07.2": """
        h = torch.log(alpha_t * sigma_s / (sigma_t * alpha_s))
        return sigma_t / sigma_s, alpha_t * (1 - torch.exp(-h))
        # right
        """,
        "Q07.3": """
        y = x / levels[0].alpha
        for a, b in zip(levels, levels[1:]):
            y = y + (b.sigma / b.alpha - a.sigma / a.alpha) * model(a.alpha * y, a).eps
        return y * levels[-1].alpha
        # right
        for a, b in zip(levels, levels[1:]):
            x = b.alpha * model(x, a).x0 + b.sigma * model(x, a).eps
        return x
        # with 14 network calls, wanted 7
        """,
        "Q07.4": """
        spread = lambda al, si: math.sqrt(al**2 * c**2 + si**2)
        z = (x - alpha_s * mean) / spread(alpha_s, sigma_s)
        return alpha_t * mean + spread(alpha_t, sigma_t) * z
        # right
        """,
        "Q07.5": """
        a, b = (math.atan(math.exp(-lam) / c) for lam in (lam_start, lam_end))
        return torch.tensor([-math.log(c * math.tan(a + (b - a) * k / n)) for k in range(n + 1)], dtype=torch.float64)
        # right
        , dtype=torch.float64 →  # in single precision
        return torch.linspace(lam_start, lam_end - 1, n + 1, dtype=torch.float64)
        # the grid runs from
        """,
    },
)
