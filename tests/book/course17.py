"""Assignment 17's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "17",
    {
        "Q17.1": """
        logs = -torch.cdist(x / a.sigma, references * a.alpha / a.sigma,
                            compute_mode="donot_use_mm_for_euclid_dist") ** 2 / 2
        return (logs - torch.logsumexp(logs, dim=1, keepdim=True)).exp()
        # right
        inner = x @ references.T
        fit = (a.alpha * inner - a.alpha**2 * references.square().sum(1) / 2) / a.sigma**2
        return torch.softmax(fit, 1)
        # right
        (logs - torch.logsumexp(logs, dim=1, keepdim=True)).exp()
        → logs.exp() / logs.exp().sum(1, keepdim=True)  # takes the largest exponent off first
        return ( → return 0.5 * (  # the softmax over the references
        .exp() → .exp().T  # has shape
        """,
        "Q17.2": """
        flat = (weights @ references.flatten(1)).reshape(x.shape)
        ratio = b.sigma / a.sigma
        return flat, ratio * x + (b.alpha - ratio * a.alpha) * flat
        # right
        return flat, → return  # got 1 array, wanted 2
        return flat, ratio * x → return flat, 2 * ratio * x  # x_r = α_r x̄₀ + σ_r ε̄
        """,
        "Q17.3": """
        likely = [math.exp(-(x_t - alpha * v) ** 2 / 2 / sigma**2) for v in atoms.tolist()]
        total = sum(p * l for p, l in zip(prior.tolist(), likely))
        with_it, square, without = 0.0, 0.0, 0.0
        for batch in itertools.product(range(len(atoms)), repeat=n):
            drawn = math.prod(prior[k].item() for k in batch)
            mass = sum(likely[k] for k in batch)
            value = sum(likely[k] * atoms[k].item() for k in batch) / mass
            with_it += drawn * likely[batch[0]] / total * value
            square += drawn * mass / n / total * value**2
            without += drawn * value
        return with_it, square - with_it**2, without
        # right
        with_it**2, without → with_it**2, without / 2  # a batch's chance is prior
        return with_it, square - with_it**2, without
        → return torch.tensor([with_it, square - with_it**2, without], dtype=torch.float64)
        # right
        return with_it, square - with_it**2, without
        → return [torch.tensor([v], dtype=prior.dtype) for v in (with_it, square - with_it**2, without)]
        # right
        return with_it, square - with_it**2, without → return with_it, square - with_it**2
        # got 2 arrays, wanted 3
        """,
        "Q17.4": """
        rows = []
        for own in cond.tolist():
            dropped = own == null.tolist()
            rows.append([dropped or own == other for other in cond.tolist()])
        return torch.tensor(rows)
        # right
        dropped or own == other → dropped or own != other  # are missing and
        torch.tensor(rows) → torch.tensor(rows).sum(1)  # has shape
        """,
        "Q17.5": """
        counts = []
        for row, who in zip(exponents, shared):
            w = (row[who] - row[who].max()).exp()
            counts.append(w.sum() ** 2 / (w * w).sum())
        return torch.stack(counts)
        # right
        (row[who] - row[who].max()).exp() → row[who].exp()  # is not finite everywhere
        w.sum() ** 2 / → w.sum() /  # weights that sum to 1
        torch.stack(counts) → torch.stack(counts).mean()  # has shape ()
        """,
    },
)
