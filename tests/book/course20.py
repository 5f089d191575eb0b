"""Assignment 20's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "20",
    {
        "Q20.1": """
        m, s = m.clone().requires_grad_(), s.clone().requires_grad_()
        p, q = (alpha * s) ** 2 + sigma**2, (alpha * tau) ** 2 + sigma**2
        ce = (q.log() / 2 + (p + alpha**2 * (m - mu)**2) / (2 * q)).sum()
        dm, ds = torch.autograd.grad(ce, (m, s), retain_graph=True)
        return dm, torch.autograd.grad(ce - p.log().sum() / 2, s)[0], ds
        # right
        , s)[0], ds → , s)[0], 0 * ds + 1  # ∂CE/∂s is off
        , s)[0], ds → , s)[0], ds.sum()  # has shape ()
        return m, s  # got 2 arrays, wanted 3
        """,
        "Q20.2": """
        x_t = alpha * x[:, None] + sigma * nodes[None]
        y = x_t.clone().requires_grad_()
        log_p = torch.logsumexp(-((y[..., None] - alpha * x) / sigma) ** 2 / 2, -1)
        score_p = torch.autograd.grad(log_p.sum(), y)[0]
        score_q = -real(x_t) / sigma
        return ((alpha * (score_p - score_q) * mass).sum(1)[:, None] * jacobian).mean(0)
        # right
        .mean(0) → / len(x)  # has shape
        score_p - score_q → -score_q  # or nothing, which has the same mean
        score_p - score_q → -x_t / sigma - score_q  # not the finite difference of KL
        x_t = alpha * x[:, None] + sigma * nodes
        e = (x_t[:, :, None] - alpha * x) / sigma
        fake = (torch.softmax(-e**2 / 2, 0) * e).sum(2)
        return (alpha / sigma * (real(x_t) - fake)) @ mass @ jacobian / len(x)
        # over the wrong axis
        """,
        "Q20.3": """
        x = student(z)
        x_t = (alpha * x + sigma * eps).detach()
        G = (alpha * (real(x_t) - fake(x_t)) / sigma).detach()
        return (G * x).sum() / len(x)
        # right
        from types import SimpleNamespace
        from dlib import Batch, Denoiser, vp, vsd
        from dlib.losses.score_distillation import kl
        t = torch.full((len(z),), vp().at_lam(math.log(alpha / sigma)).t, dtype=torch.float64)
        roles = [Denoiser(lambda x, t, cond, net=net: net(x), vp(), "eps") for net in (real, fake)]
        draw = SimpleNamespace(normal=lambda *shape: eps)
        return vsd(*roles, Batch(student(z)), draw, kl, lambda draw, n: t).value
        # right
        x = student(z) → with torch.no_grad(): x = student(z)  # autograd sees no path
        return (G * x).sum() / len(x) → return (G * x).sum(1)  # wanted a scalar tensor
        / len(x) → / len(x) + 0 * x.sum().item()
        (G * x).sum() → (G * x).sum().item()
        # without its graph
        return (G * x).sum() / len(x) → loss = (G * x).sum() / len(x)
        loss.backward()
        return loss
        # has called .backward() itself
        (alpha * (real(x_t) - fake(x_t)) / sigma).detach()
        → alpha * (real(x_t) - fake(x_t).detach()) / sigma
        # but the teacher gets a gradient
        fake(x_t)) / sigma).detach() → fake(x_t)) / sigma)
        # the teacher and the fake score get a gradient as well
        (G * x).sum() / len(x) → x.sum()  # must be the mean over the batch
        """,
        "Q20.4": """
        eps = output if predicts == 'eps' else sigma * z + alpha * output
        return (z - sigma * eps) / alpha
        # right
        from dlib import Denoiser, vp
        model = Denoiser(lambda x, t, cond: output, vp(), predicts)
        return model(z, vp().at_lam(math.log(alpha / sigma))).x0
        # right
        """,
        "Q20.5": """
        down, up = A * a / A.shape[0], B
        return torch.nn.functional.linear(x, weight, bias) + x @ down.T @ up.T, weight + up @ down
        # right
        from dlib import merged, twin
        layer = torch.nn.Linear(len(weight.T), len(weight), dtype=x.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight), layer.bias.copy_(bias)
            layer = twin(layer, len(A), a)
            layer.lora_A.copy_(A), layer.lora_B.copy_(B)
            return layer(x), merged(layer).weight
        # right
        , weight + up @ down →  # got 1 array, wanted 2
        weight + up @ down → (weight + up @ down).T  # has shape
        """,
    },
)
