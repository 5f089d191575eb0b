"""Assignment 03's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "03",
    {
        "Q03.1": """
        r = a.alpha / b.alpha
        s2 = a.sigma**2 - r**2 * b.sigma**2
        precision = r**2 / s2 + 1 / b.sigma**2
        mean = (r * x_a / s2 + b.alpha * x_0 / b.sigma**2) / precision
        return mean, 1 / precision
        # right
        1 / precision → 1 / precision * torch.ones_like(x_a)  # the variance has shape
        return x_a  # got 1 array, wanted 2
        """,
        "Q03.2": """
        r = a.alpha / b.alpha
        s2 = a.sigma**2 - r**2 * b.sigma**2
        x_b = b.alpha * x_0.unsqueeze(1) + b.sigma * z
        w = (-(x_a.unsqueeze(1) - r * x_b)**2 / (2 * s2)).exp()
        w = w / w.sum(1, keepdim=True)
        mean = (w * x_b).sum(1)
        return mean, (w * x_b**2).sum(1) - mean**2
        # right
        w.sum(1, keepdim=True) → w.sum()  # weights ∝ exp
        """,
        "Q03.3": """
        for k in range(len(levels) - 1):
            a, b = levels[k], levels[k + 1]
            e = eps(x, a)
            x0 = (x - a.sigma * e) / a.alpha
            if b.sigma == 0:
                return x0
            r = a.alpha / b.alpha
            s2 = a.sigma**2 - r**2 * b.sigma**2
            x = (r * b.sigma**2 * x + b.alpha * s2 * x0) / a.sigma**2 + b.sigma * s2**0.5 / a.sigma * noise[k]
        # right
        """,
        "Q03.4": """
        snr = alpha**2 / sigma**2
        return alpha**2 / sigma**2, 1 / sigma**2, torch.minimum(snr, torch.full_like(snr, gamma)), 0.5 * (snr[1:] - snr[:-1])
        # right
        0.5 * (snr[1:] - snr[:-1]) → snr / 2  # the factor of a step has shape
        """,
        "Q03.5": """
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
        # right
        normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
        first, last, steps = levels[0], levels[-1], []
        prior = kl(normal(first.alpha * x0, first.sigma), normal(0.0, 1.0)).sum(1).mean()
        for a, b, z in zip(levels, levels[1:], noise):
            scale = a.alpha / b.alpha
            added, guess = a.sigma**2 - scale**2 * b.sigma**2, x0_of(a.alpha * x0 + a.sigma * z, a)
            std, share = b.sigma * added**0.5 / a.sigma, b.alpha * added / a.sigma**2
            steps.append(kl(normal(share * x0, std), normal(share * guess, std)).sum(1).mean())
        x = last.alpha * x0 + last.sigma * noise[-1]
        decoder = -normal(x / last.alpha, last.sigma / last.alpha).log_prob(x0).sum(1).mean()
        return prior, torch.stack(steps), decoder
        # right
        """,
    },
)
