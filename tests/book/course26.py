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
        P = torch.sigmoid(first - second).clamp(1e-6, 1 - 1e-6)
        return -(share * P.log() + (1 - share) * (1 - P).log())
        # Is P clamped
        (d) + → (d.clamp(-50, 50)) +
        loss(-d) → loss(-d.clamp(-50, 50))
        # Is P clamped
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
        return reward(x) → return [r for r in reward(x)]  # right
        return reward(x) → return tuple(reward(x))  # right
        for k, (a, b) in enumerate(zip(levels, levels[1:])):
            x = x.detach()
            eps = net(x, a) if k >= len(levels) - 1 - last else net(x, a).detach()
            x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
        return reward(x)
        # only the last one is connected
        for k, (a, b) in enumerate(zip(levels, levels[1:])):
            with torch.set_grad_enabled(k < last):
                eps = net(x, a)
            x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
        return reward(x)
        # in the first K steps: it belongs to the last K
        for k, (a, b) in enumerate(zip(levels, levels[1:])):
            with torch.set_grad_enabled(k < last):
                eps = net(x, a)
                x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
        return reward(x)
        # only the *first* N − K steps are constants
        return reward(x) → return reward(x) + 2 * (reward(x) - reward(x).detach())
        # missing or too much
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
        return torch.relu(enough - r) → return [max(0, enough - one) for one in r]  # right
        return torch.relu(enough - r) → return enough - r  # positive part
        return torch.relu(enough - r) → return 0 * r  # off by 1.0e+00
        while i < stop: → while i < len(levels) - stop:  # counted from the end
        while i < stop: → while i < len(levels) - 1 - stop:  # counted from the end
        """,
        "Q26.5": """
        total = 0
        for k in range(len(noise)):
            x = x0 * a.alpha + noise[k] * a.sigma
            total = total + reward((x - net(x, a) * a.sigma) / a.alpha)
        return total / len(noise)
        # right
        noise[k] * a.sigma → noise[0] * a.sigma  # only the first noise
        return total / len(noise) → return (one / len(noise) for one in total)  # right
        return total / len(noise) → return list(total / len(noise))  # right
        """,
    },
)
