"""Assignment 27's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "27",
    {
        "Q27.1": """
        G = rewards.shape[1]
        d = rewards - rewards.sum(dim=1)[:, None] / G
        std = torch.std(rewards, dim=1, correction=0)[:, None]
        return d * G / (G - 1), d / (1e-4 + std)
        # right
        d * G / (G - 1) → d * (G - 1) / G  # G − 1 others
        """,
        "Q27.2": """
        new = torch.distributions.Normal(mean, std).log_prob(y).sum(-1)
        was = torch.distributions.Normal(old, std).log_prob(y).sum(-1)
        rho = torch.exp(new - was)
        return -torch.minimum(rho * advantage, torch.clip(rho, 1 - chi, 1 + chi) * advantage)
        # right
        return -torch.minimum → return torch.minimum  # larger of the two
        return -torch.minimum → return list(-torch.minimum
        * advantage) → * advantage))
        # right
        return -torch.minimum → free = torch.clip(rho.detach(), 1 - chi, 1 + chi) - rho.detach() + rho
        return -torch.minimum
        torch.clip(rho, 1 - chi, 1 + chi) → free
        # "straight-through"
        """,
        "Q27.3": """
        g2 = a_F**2 * t / (1 - t)
        score = -(x + (1 - t) * u) / t
        return x + (r - t) * (u - g2 / 2 * score), (g2 * (t - r)) ** 0.5
        # right
        g2 / 2 * score → g2 * score  # 2 is missing
        """,
        "Q27.4": """
        with torch.no_grad():
            x = x0 + t * (noise - x0)
            v_old = old(x, t)
        v = new(x, t)
        u = noise - x0
        up = (1 - zeta) * v_old + zeta * v
        down = (1 + zeta) * v_old - zeta * v
        a, b = ((up - u) ** 2).sum(1), ((down - u) ** 2).sum(1)
        return b + share * (a - b)
        # right
        (1 + zeta) * v_old - zeta * v → (1 - zeta) * v_old + zeta * v  # move the same way
        (1 + zeta) * v_old - zeta * v → (1 + zeta) * v_old - zeta * v.detach()  # u⁻ is a constant
        (1 - zeta) * v_old + zeta * v → (1 - zeta) * v_old + zeta * v.detach()  # u⁺ is a constant
        return b + share * (a - b) → return (q * x + (1 - q) * y for q, x, y in zip(share, a, b))
        # right
        return b + share * (a - b) → return list(b + share * (a - b))  # right
        """,
        "Q27.5": """
        every = torch.stack([
            torch.stack([estimate([i, j]) for j in range(len(p))]) for i in range(len(p))
        ])
        mean = torch.einsum("i,j,ijk->k", p, p, every)
        return torch.allclose(mean, p * r - p * (p * r).sum(), rtol=0, atol=1e-9)
        # right
        "i,j,ijk->k", p, p, every → "ijk->k", every / len(p) ** 2  # your test rejects
        atol=1e-9 → atol=0.05  # your test accepts
        (mean, p * r - p * (p * r).sum() → (mean[1:], (p * r - p * (p * r).sum())[1:]
        # your test accepts
        (mean, p * r - p * (p * r).sum() → (mean[:1], (p * r - p * (p * r).sum())[:1]
        # one that is right but for entry 1
        (mean, p * r - p * (p * r).sum() → (mean[:3], (p * r - p * (p * r).sum())[:3]
        # one that is right but for entry 3
        , rtol=0, atol=1e-9) → )  # one that is off by 4·10⁻⁹ in one entry
        atol=1e-9 → atol=1e-6  # rtol=0
        return torch.allclose(mean, → return torch.allclose(every.mean((0, 1)),  # your test rejects
        """,
    },
)
