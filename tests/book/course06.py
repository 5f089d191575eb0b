"""Assignment 06's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "06",
    {
        "Q06.1": """
        return {'omega': told + w * (told - empty), 'scale': empty + w * (told - empty), 'extra': told + w * (told - empty)}[kind]
        # right
        """,
        "Q06.2": """
        def x0(o):
            if predicts == 'v':
                return alpha * x - sigma * o
            return (x - sigma * o) / alpha if predicts == 'eps' else (x + sigma * sigma * o) / alpha
        return torch.lerp(x0(empty), x0(told), 1 + omega)
        # right
        from dlib import Denoiser, guided, vp
        both = Denoiser(lambda x, t, cond: torch.cat([told, empty]), vp(), predicts)
        level, asked = vp().at_lam(math.log(alpha / sigma)), torch.zeros(len(x), dtype=torch.int64)
        return guided(both, omega, -1)(x, level, asked).x0
        # right
        """,
        "Q06.3": """
        f = lambda k: (1 + k * k / v_c) ** -0.5
        g = 1 + omega
        return m_c + (g - 1) * (m_c - m_null) * (f(low) - f(high)), math.exp(g * math.log(v_c) - omega * math.log(v_null)), v_c * v_null / (g * v_null - omega * v_c)
        # right
        return m_c, v_c  # got 2 arrays, wanted 3
        """,
        "Q06.4": """
        return torch.softmax((1 + omega) * of_class.log() - omega * of_all.log(), 0)  # right
        """,
        "Q06.5": """
        v = (alpha * stds) ** 2 + sigma**2
        y = x.clone().requires_grad_()
        log_p = weights.log() - v.log() - ((y[:, None] - alpha * means)**2).sum(2) / (2 * v)
        tilted = (1 + omega) * torch.logsumexp(log_p[:, labels == c], 1) - omega * torch.logsumexp(log_p, 1)
        return -sigma * torch.autograd.grad(tilted.sum(), y)[0]
        # right
        return -sigma * → return -  # it is −σ times the gradient
        y)[0] → y)[0].sum(1)  # has shape
        """,
    },
)
