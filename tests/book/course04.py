"""Assignment 04's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "04",
    {
        "Q04.1": """
        lam_rate = d_alpha / alpha - d_sigma / sigma
        return d_alpha / alpha, -2 * sigma**2 * lam_rate
        # right
        return d_alpha / alpha  # wanted 2
        """,
        "Q04.2": """
        ode = f * x - g2 / 2 * score(x)
        langevin = eta**2 * g2 / 2 * score(x)
        return ode - langevin
        # right
        """,
        "Q04.3": """
        for k in range(len(noise)):
            t, dt = times[k], times[k + 1] - times[k]
            drift = f(t) * x - (1 + eta**2) / 2 * g2(t) * score(x, t)
            x = x + drift * dt + eta * (g2(t) * -dt) ** 0.5 * noise[k]
        return x
        # right
        """,
        "Q04.4": """
        y, kappa_rate = x / a.alpha, lambda s: s.d_sigma / s.alpha - s.sigma * s.d_alpha / s.alpha**2
        dy = (u / a.alpha - x * a.d_alpha / a.alpha**2) / kappa_rate(a)
        return b.alpha * y, b.d_alpha * y + b.alpha * dy * kappa_rate(b)
        # right
        """,
        "Q04.5": """
        def rate(x, t):
            x = x.detach().requires_grad_()
            u = velocity(x, t)
            trace = sum(torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1]))
            return u.detach(), trace
        total = torch.zeros(len(x), dtype=x.dtype)
        for t, s in zip(times, times[1:]):
            u, trace = rate(x, t)
            middle, trace_m = rate(x + (s - t) / 2 * u, (s + t) / 2)
            x, total = x + (s - t) * middle, total + (s - t) * trace_m
        return log_prior(x) + total
        # right
        middle, trace_m = rate(x + (s - t) / 2 * u, (s + t) / 2) → middle, trace_m = u, trace
        # not accurate enough
        """,
    },
)
