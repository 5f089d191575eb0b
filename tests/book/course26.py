"""Assignment 26's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "26",
    {
        "Q26.1": """
        d = second - first
        loss = lambda z: torch.nn.functional.softplus(z)
        return share * loss(d) + (1 - share) * loss(-d)
        # right
        return share * loss(d) + (1 - share) * loss(-d) → return (share * loss(d) + (1 - share) * loss(-d)).mean()
        # has shape ()
        loss(-d) → loss(d)  # shares are not used
        """,
        "Q26.2": """
        push = a / beta
        logits = weights.log() + means @ push + 0.5 * stds.square() * push.square().sum()
        new = means.clone()
        for k in range(len(means)):
            new[k] += stds[k] ** 2 * push
        return torch.softmax(logits, 0), new
        # right
        new[k] += stds[k] ** 2 * push → new[k] += stds[0] ** 2 * push  # its own S
        """,
        "Q26.3": """
        n = len(levels) - 1
        def step(x, a, b):
            eps = net(x, a)
            return b.alpha / a.alpha * x + (b.sigma - b.alpha * a.sigma / a.alpha) * eps
        with torch.no_grad():
            for k in range(n - last):
                x = step(x, levels[k], levels[k + 1])
        for k in range(n - last, n):
            x = step(x, levels[k], levels[k + 1])
        return reward(x)
        # right
        with torch.no_grad(): → with torch.enable_grad():  # through all steps
        """,
        "Q26.4": """
        i = 0
        while i < stop:
            a, b = levels[i], levels[i + 1]
            e = net(x, a).detach()
            x = b.alpha * (x - a.sigma * e) / a.alpha + b.sigma * e
            i += 1
        a = levels[i]
        r = reward(x / a.alpha - a.sigma / a.alpha * net(x, a))
        return torch.relu(enough - r)
        # right
        torch.relu(enough - r) → (enough - r).abs()  # positive part
        """,
        "Q26.5": """
        total = 0
        for k in range(len(noise)):
            x = x0 * a.alpha + noise[k] * a.sigma
            total = total + reward((x - net(x, a) * a.sigma) / a.alpha)
        return total / len(noise)
        # right
        noise[k] * a.sigma → noise[0] * a.sigma  # only the first noise
        """,
    },
)
