"""Assignment 14's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "14",
    {
        "Q14.1": """
        k = int(count / steps)
        starts = [k * (j + 1) - 1 for j in range(steps)]
        return starts, [0] + starts[:-1]
        # right
        return starts, [0] + starts[:-1] → return torch.tensor(starts), torch.tensor(starts[:-1])
        # ends has shape
        [0] + starts[:-1] → [19] + starts[:-1]  # write down by hand the steps of 1000 indices
        """,
        "Q14.2": """
        out = []
        for i in range(len(x)):
            a = int(n[i])
            b = max(a - k, 0)
            e_c, e_0 = (sigma[a] * x[i] + alpha[a] * v[i] for v in (v_cond, v_null))
            e = e_c + omega[i] * (e_c - e_0)
            out.append(alpha[b] * (x[i] / alpha[a] - (sigma[a] / alpha[a] - sigma[b] / alpha[b]) * e))
        return torch.stack(out)
        # right
        max(a - k, 0) → a - k  # a step from below k must end at index 0
        alpha[b] * (x[i] / alpha[a] → 0.9 * alpha[b] * (x[i] / alpha[a]
        # guide v (or ε), then
        """,
        "Q14.3": """
        t = 20 * n.unsqueeze(1)
        a, s = alpha.unsqueeze(1), sigma.unsqueeze(1)
        return x / (1 + t * t) + t / torch.sqrt(1 + t * t) * (x - s * eps) / a
        # right
        t = 20 * n. → t = 19 * n.  # right at index 0, not above
        x / (1 + t * t) → 1.1 * x / (1 + t * t)  # at index 0 it must be x itself
        """,
        "Q14.4": """
        starts = (torch.arange(1, steps + 1) * (count // steps) - 1).flip(0)
        return starts[torch.linspace(0, steps, calls + 1)[:-1].floor().long()]
        # right
        flip(0) → flip(0) - 1  # number the starts from the noisiest
        return starts[ → return tuple(starts[
        calls + 1)[:-1].floor().long()] → calls + 1)[:-1].floor().long()].tolist())  # right
        [:-1].floor() → [1:].ceil().sub(1)  # wrong for N = 1000, S = 50, calls = 4
        """,
        "Q14.5": """
        s = int(m - gamma * m)
        kappa = sigma / alpha
        y = x / alpha[n] - (kappa[n] - kappa[s]) * eps
        return alpha[m] * (y + torch.sqrt(kappa[m] ** 2 - kappa[s] ** 2) * noise)
        # right
        torch.sqrt(kappa[m] ** 2 - kappa[s] ** 2) → (kappa[m] - kappa[s])
        # standard deviations are subtracted
        - (kappa[n] - kappa[s]) * eps → - kappa[n] * eps  # ε is left out at s
        int(m - gamma * m) → round(m - gamma * m)  # wrong at γ = 0.25
        """,
    },
)
