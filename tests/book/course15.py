"""Assignment 15's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "15",
    {
        "Q15.1": """
        starts = torch.arange(1, steps + 1) * (count // steps) - 1
        places = torch.linspace(0, steps, phases + 1)[:-1].floor().long().tolist()
        return [0 if place == 0 else starts[place - 1].item() for place in places]
        # right
        starts[place - 1].item() → starts[place - 1].item() - 1
        # four phases have the edges 0, 239, 499 and 739
        """,
        "Q15.2": """
        edge = torch.stack([edges[edges < one].max() for one in n])
        return edge, torch.where(n - k < edge, edge, n - k)
        # right
        n - k < edge, edge, n - k → n - k < edge, edge, n - k + 1
        # it is k indices below n, or at the edge
        """,
        "Q15.3": """
        n = len(levels) - 1
        k = lambda level: level.sigma / level.alpha
        i = 0
        for m in range(phases - 1, -1, -1):
            j = n - int(m * n / phases)
            eps = model(x, levels[i]).eps
            x = levels[j].alpha * (x / levels[i].alpha - (k(levels[i]) - k(levels[j])) * eps)
            i = j
        return x
        # right
        eps = model(x, levels[i]).eps → eps = 0.5 * (model(x, levels[i]).eps + model(x, levels[i]).eps)
        # network calls
        eps = model(x, levels[i]).eps → p = model(x, levels[i])
        x = levels[j].alpha * (x / levels[i].alpha - (k(levels[i]) - k(levels[j])) * eps)
        → x *= levels[j].alpha / levels[i].alpha
            x -= levels[j].alpha * (k(levels[i]) - k(levels[j])) * p.eps  # right
        range(phases - 1, -1, -1) → range(phases - 1, 0, -1)  # one call at levels[0]
        """,
        "Q15.4": """
        ends = [times[0], *edges]
        low, high = [], []
        for t in times[i]:
            at = next(j for j, e in enumerate(edges) if e < t)
            low.append(ends[at + 1])
            high.append(ends[at])
        low, high = torch.stack(low), torch.stack(high)
        return low, (1 - u) * low + u * high
        # right
        (1 - u) * low → (1 - u * u) * low  # with u = 0 it is the edge
        """,
        "Q15.5": """
        relu = torch.nn.functional.relu
        judge = relu(1 - D(real.detach())).mean() + relu(1 + D(fake.detach())).mean()
        return judge, weight * relu(1 - D(fake)).mean()
        # right
        relu(1 - D(fake)).mean() → relu(1 - D(fake)).sum()  # it is 0.12
        return judge, → return judge.item(),  # a gradient is not
        real.detach() → real
        fake.detach() → fake
        # sends its gradient into real and fake points
        return judge, weight * relu(1 - D(fake)).mean()
        → return judge.reshape(1), weight * relu(1 - D(fake)).mean().reshape(1)  # right
        """,
    },
)
