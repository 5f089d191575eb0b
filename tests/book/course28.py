"""Assignment 28's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "28",
    {
        "Q28.1": """
        raised = pi * (r / beta).exp()
        return raised / raised.sum()
        # right
        / raised.sum() → / raised.max()  # divided by its sum
        """,
        "Q28.2": """
        ratio = beta * (log_win - log_lose - ref_win + ref_lose)
        return torch.nn.functional.softplus(-ratio)
        # right
        softplus(-ratio) → softplus(-ratio) + 1  # the argument of the sigmoid
        softplus(-ratio) → softplus(-ratio).mean()  # has shape ()
        """,
        "Q28.3": """
        a, b = alpha * winner + sigma * eps, alpha * loser + sigma * eps
        m = lambda f, x: ((f(x, alpha, sigma) - eps) ** 2).sum(1) / 3
        model, held = m(net, a) - m(net, b), (m(ref, a) - m(ref, b)).detach()
        return torch.nn.functional.softplus(0.5 * B * (model - held))
        # right
        alpha * loser + sigma * eps → alpha * loser - sigma * eps  # errors of both networks
        """,
        "Q28.4": """
        kappa = sigma / alpha
        return D / B * ((S**2 + kappa**2) / kappa) ** 2 * (alpha**2 / alpha**2)
        # right
        D / B * → 3 * D / B *  # δ
        """,
        "Q28.5": """
        c, n = (0.5 if half else 1.0), (values if summed else 1)
        return b * c * n / 0.5
        # right
        / 0.5 → / 0.25  # wrong for
        """,
    },
)
