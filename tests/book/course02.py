"""Assignment 02's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "02",
    {
        "Q02.1": """
        gamma = (top / low) ** (1 / (n - 1))
        return torch.tensor([low * gamma**k for k in reversed(range(n))], dtype=torch.float64)
        # right
        from dlib import ve
        levels = ve(low, top).levels(torch.linspace(1, 0, n, dtype=torch.float64))
        return torch.tensor([level.sigma for level in levels])
        # right
        return torch.linspace(top, low, n)  # evenly spaced
        return torch.logspace(math.log10(top), math.log10(low), n + 1, dtype=torch.float64)
        # has shape
        """,
        "Q02.2": """
        s = sigma[:, None]
        return 0.5 * sigma**2 * (score(x0 + s * z, sigma) - (x0 - (x0 + s * z)) / s**2).pow(2).sum(1)
        # right
        from dlib import Batch, Denoiser, Draw, denoising, ve
        from dlib.losses import weights
        schedule = ve(0.05, 20)
        model = Denoiser(lambda x, t, cond: score(x, schedule.at(t).sigma), schedule, "score")
        rows = zip(x0.split(1), z.split(1), schedule.at_lam(-sigma.log()).t.split(1))
        each = [denoising(model, Batch(a, noise=b), Draw(0), weights.eps, lambda draw, n: t) for a, b, t in rows]
        return torch.stack([loss.value / 2 for loss in each])
        # right
        s = sigma[:, None]
        return 0.5 * (s * score(x0 + s * z, s) + z).pow(2).sum(1)
        # right
        rows = [(s, a, b, score((a + s * b)[None], s)) for a, b, s in zip(x0, z, sigma)]
        return torch.stack([0.5 * (s * said + b).pow(2).sum() for s, a, b, said in rows])
        # right
        s = sigma[:, None]
        return 0.5 * (s * score(x0 + s * z, sigma).detach() + z).pow(2).sum(1)
        # cannot train a network
        return (score(x0, sigma) ** 2).sum()  # has shape ()
        """,
        "Q02.3": """
        a = (1 - eta / v) ** (2 * n)
        fixed = 2 * eta / (1 - (1 - eta / v)**2)
        return a * start + (1 - a) * fixed, fixed
        # right
        fixed, fixed → fixed  # got 1 array, wanted 2
        """,
        "Q02.4": """
        last = sigmas[-1]
        for sigma, normals in zip(sigmas, noise):
            eta = epsilon * (sigma / last)**2
            for z in normals:
                x = x + eta * score(x, sigma) + (2 * eta)**0.5 * z
        return x + last**2 * score(x, last)
        # right
        from types import SimpleNamespace as Some
        from dlib import annealed_langevin, ve
        normals, schedule = iter(noise.flatten(0, 1)), ve(sigmas[-1].item(), sigmas[0].item())
        model = lambda x, level, cond=None: Some(score=score(x, level.sigma))
        levels = [schedule.at_lam(-math.log(sigma)) for sigma in sigmas]
        draw = Some(normal=lambda x: next(normals))
        x = annealed_langevin(model, x, levels, epsilon, noise.shape[1], draw)
        return x + sigmas[-1]**2 * score(x, sigmas[-1])
        # right
        """,
        "Q02.5": """
        sigmas = torch.logspace(math.log10(apart), math.log10(width / 10), 30)
        return sigmas, calls // 30
        # right
        math.log10(apart) → math.log10(width)  # first level is too low
        return torch.tensor([apart, width / 10]), calls // 2  # too far apart
        calls // 30 → 1  # unused
        calls // 30 → calls  # allowed are
        width / 10 → width  # blurred data
        return sigmas → return sigmas.flip(0)  # must fall
        calls // 30 → calls / 30.5  # whole number
        return sigmas, calls // 30 → return sigmas  # wanted 2
        """,
    },
)
