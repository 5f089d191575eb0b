"""Assignment 01's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "01",
    {
        "Q01.1": """
        away = means[None] - x[:, None]
        log_joint = torch.log(weights) - (away**2).sum(-1) / (2 * stds**2) - x.shape[1] * torch.log(stds)
        r = torch.exp(log_joint - torch.logsumexp(log_joint, 1, keepdim=True))
        return torch.einsum("bk,bkd->bd", r / stds**2, away)
        # right
        d = means - x[:, None]
        p = weights * torch.exp(-(d**2).sum(2) / (2 * stds**2)) / stds ** x.shape[1]
        r = p / p.sum(1, keepdim=True)
        return (r[:, :, None] * d / stds[:, None]**2).sum(1)
        # right among the modes
        d = means - x[:, None]
        p = weights * torch.exp(-(d**2).sum(2) / (2 * stds**2)) / stds ** x.shape[1]
        r = p / (p.sum(1, keepdim=True) + 1e-30)
        return (r[:, :, None] * d / stds[:, None]**2).sum(1)
        # right among the modes
        , away) → , away)[0]  # has shape
        x = x.clone().requires_grad_()
        away = means[None] - x[:, None]
        log_joint = torch.log(weights) - (away**2).sum(-1) / (2 * stds**2) - x.shape[1] * torch.log(stds)
        return torch.autograd.grad(torch.logsumexp(log_joint, 1).sum(), x)[0]
        # needs autograd
        def log_p(x):
            away = means[None] - x[:, None]
            log_joint = torch.log(weights) - (away**2).sum(-1) / (2 * stds**2) - x.shape[1] * torch.log(stds)
            return torch.logsumexp(log_joint, 1).sum()
        return torch.autograd.functional.jacobian(log_p, x)
        # needs autograd
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            away = means[None] - x[:, None]
            log_joint = torch.log(weights) - (away**2).sum(-1) / (2 * stds**2) - x.shape[1] * torch.log(stds)
            torch.logsumexp(log_joint, 1).sum().backward()
        return x.grad
        # needs autograd
        """,
        "Q01.2": """
        v = stds**2 + sigma**2
        r = torch.softmax(torch.log(weights) - torch.cdist(x, means)**2 / (2 * v) - x.shape[1] / 2 * torch.log(v), 1)
        shrink = stds**2 / v
        each = means + shrink[:, None] * (x[:, None] - means)
        return (r[:, :, None] * each).sum(1)
        # right
        from dlib import Mixture, edm, exact
        return exact(Mixture(weights, means, stds), edm())(x, edm().at_lam(-math.log(sigma))).x0
        # right
        """,
        "Q01.3": """
        rows = []
        for row in x:
            J = torch.autograd.functional.jacobian(lambda y: score(y[None])[0], row, create_graph=True)
            rows.append(score(row[None]).pow(2).sum() / 2 + J.trace())
        return torch.stack(rows)
        # right
        from dlib import Batch
        from dlib.losses import implicit
        return torch.stack([implicit(score, Batch(row[None])).value for row in x])
        # right
        stack(rows) → stack(rows).mean()  # has shape ()
        """,
        "Q01.4": """
        s = score(x0 + sigma * z)
        return 0.5 * torch.linalg.vector_norm(s - (x0 - (x0 + sigma * z)) / sigma**2, dim=1) ** 2
        # right
        from dlib import Batch, Draw, denoising_score_matching as dsm
        return torch.stack([dsm(score, Batch(a[None], noise=b[None]), Draw(0), sigma).value for a, b in zip(x0, z)])
        # right
        """,
        "Q01.5": """
        for k in range(len(noise)):
            x = x + eta * (score(x) + (2 / eta) ** 0.5 * noise[k])
        return x
        # right
        from types import SimpleNamespace
        from dlib import langevin
        normals = iter(noise)
        return langevin(score, x, eta, len(noise), SimpleNamespace(normal=lambda x: next(normals)))
        # right
        """,
    },
)
