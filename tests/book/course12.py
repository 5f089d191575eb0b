"""Assignment 12's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "12",
    {
        "Q12.1": """
        n = dim // 2
        rows = []
        for w in omega.tolist():
            at = [1000 * w * math.exp(-math.log(10000) * k / (n - 1)) for k in range(n)]
            rows.append([math.sin(a) for a in at] + [math.cos(a) for a in at])
        return torch.tensor(rows, dtype=torch.float64)
        # right
        rates = torch.logspace(0, -4, dim // 2, dtype=torch.float64)
        angle = torch.outer(1000 * omega, rates)
        return torch.hstack([torch.sin(angle), torch.cos(angle)])
        # right
        rates = 10_000 ** (-torch.arange(dim // 2) / (dim // 2 - 1))
        angle = 1000 * omega[:, None] * rates
        return torch.cat([angle.sin(), angle.cos()], 1)
        # single precision
        dtype=torch.float64 → dtype=torch.float32  # single precision
        + [math.cos(a) for a in at] →  # has shape
        """,
        "Q12.2": """
        both = guess(torch.cat([z, z]), torch.cat([c, torch.full_like(c, null)]))
        w = omega.reshape(-1, 1)
        with_c, without = both.chunk(2)
        return (1 + w) * with_c - w * without
        # right
        return (1 + w) → return 1.01 * (1 + w)  # go on from the guess with c
        """,
        "Q12.3": """
        face = lambda eps: (eps - sigma * z) / alpha
        goal = (1 + omega) * face(eps_cond) - omega * face(eps_null)
        return ((goal - said) ** 2).sum(dim=-1) / 2
        # right
        x = lambda eps: (z - sigma * eps) / alpha
        wanted = (1 + omega) * x(eps_cond) - omega * x(eps_null)
        error = alpha * z - sigma * said - wanted
        return (error**2).mean(dim=1) / sigma[:, 0] ** 2
        # right
        .sum(dim=-1) / 2 → .mean()  # has shape ()
        """,
        "Q12.4": """
        made = dict(cond) if isinstance(cond, dict) else dict(cond=cond)
        made["omega"] = torch.lerp(torch.full_like(u, low - 1), torch.full_like(u, high - 1), u)
        return made
        # right
        dict(cond=cond) → dict(cond=cond, text=cond)  # nothing else
        dict(cond=cond) → dict(c=cond)  # under the name 'cond'
        dict(cond) if → dict(list(cond.items())[:1]) if  # a dictionary's entries stay
        return made → made["omega"] = made["omega"][:, None]; return made
        # has shape (24, 1)
        """,
        "Q12.5": """
        z = z.clone().requires_grad_()
        parts = []
        for m, s in zip(means, stds):
            var = alpha**2 * s**2 + sigma**2
            parts.append(-((z - alpha * m) ** 2).sum(1) / (2 * var) - torch.log(2 * math.pi * var))
        joint = torch.stack(parts, 1)
        own = joint.gather(1, c[:, None])[:, 0]
        marginal = torch.logsumexp(joint + torch.log(shares), dim=1)
        log_p = own + omega * (own - marginal)
        (score,) = torch.autograd.grad(log_p.sum(), z)
        return (z.detach() + sigma**2 * score) / alpha
        # right
        sigma**2 * score → sigma * score  # check the labels' probabilities
        """,
    },
)
