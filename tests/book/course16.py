"""Assignment 16's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "16",
    {
        "Q16.1": """
        last, first = (s_1 + 1) ** 2, s_0 * s_0
        return int(math.ceil((k * (last - first) / total + first) ** 0.5 - 1)) + 1
        # right
        n = s_0
        while n * n * total < s_0**2 * total + k * ((s_1 + 1) ** 2 - s_0**2):
            n += 1
        return n
        # right
        int(math.ceil( → 2 * int(math.ceil(  # N(k)² goes from s₀²
        """,
        "Q16.2": """
        shrink = q ** -(stage + 1.0) * (1 + b * torch.sigmoid(-kappa))
        end = torch.where(shrink < 1, kappa - shrink * kappa, torch.zeros_like(kappa))
        return end, torch.maximum(1 / kappa, 1 / (shrink * kappa))
        # right
        torch.maximum(1 / kappa, 1 / (shrink * kappa)) → 1 - shrink  # the weight is off
        torch.zeros_like(kappa)) → torch.zeros_like(kappa)).float()  # single precision
        """,
        "Q16.3": """
        a = 1.0
        for n in range(len(kappa) - 1):
            step = (kappa[n + 1] - kappa[n]) * kappa[n + 1]
            a = a * (1 - step / (c * c + kappa[n + 1] ** 2))
        width = lambda k: math.sqrt(c * c + k * k)
        return a, width(float(kappa[0])) / width(float(kappa[-1]))
        # right
        a = 1.0 → a = float(kappa[0])  # multiply up the ladder
        return a, → return  # got 1 array, wanted 2
        """,
        "Q16.4": """
        noise = (x_t - x0_bar * a.alpha) / a.sigma
        x_r = (b.alpha * x0_bar + b.sigma * noise).detach()
        R = x_t / a.alpha - x_r / b.alpha
        d = R + h(x_r, b).detach() - h(x_t, a)
        return (d * d).sum(1) / d.shape[1]
        # right
        h(x_r, b).detach() → h(x_r, b)  # also flows through the target
        (d * d).sum(1) / d.shape[1] → (d * d).mean()  # has shape ()
        + b.sigma * noise → + b.sigma * x0_bar  # ε̄ from x_t and x̄₀
        """,
        "Q16.5": """
        path = lambda tau: torch.cos(tau) * x0 + torch.sin(tau) * sigma_d * eps
        along = lambda tau: F(path(tau), tau)
        one = torch.ones_like(tau)
        x, v = torch.func.jvp(path, (tau,), (one,))
        said, change = torch.func.jvp(along, (tau,), (one,))
        slow = tau.cos() * (v - sigma_d * said)
        f = lambda tau: tau.cos() * path(tau) - tau.sin() * sigma_d * along(tau)
        whole = torch.func.jvp(f, (tau,), (one,))[1]
        return tau.cos() * ((1 - rho) * slow + rho * whole)
        # right
        h = 1e-5
        path = lambda tau: torch.cos(tau) * x0 + torch.sin(tau) * sigma_d * eps
        x, v = path(tau), torch.cos(tau) * sigma_d * eps - torch.sin(tau) * x0
        dF = (F(path(tau + h), tau + h) - F(path(tau - h), tau - h)) / (2 * h)
        c, s = tau.cos(), tau.sin()
        return c * c * (v - sigma_d * F(x, tau)) - rho * c * s * (x + sigma_d * dF)
        # right
        (1 - rho) * slow + rho * whole → rho * slow + (1 - rho) * whole  # df/dτ has four parts
        tau.cos() * ((1 → tau.cos() ** 2 * ((1  # df/dτ has four parts
        """,
    },
)
