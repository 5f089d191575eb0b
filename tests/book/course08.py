"""Assignment 08's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "08",
    {
        "Q08.1": """
        big = h.abs() > 0.5
        one, two, term = torch.zeros_like(h), torch.zeros_like(h), torch.ones_like(h)
        for n in range(18):
            one, two, term = one + term / math.factorial(n + 1), two + term / math.factorial(n + 2), term * h
        H = torch.where(big, h, 1.0)
        return torch.where(big, torch.expm1(H) / H, one), torch.where(big, (torch.expm1(H) - H) / H**2, two)
        # right
        p = (torch.exp(h) - 1) / h
        return p, (p - 1) / h
        # h = 0 gives nan
        H = torch.where(h == 0, 1e-15, h)
        p = (torch.exp(H) - 1) / H
        return p, (p - 1) / H
        # cancels
        s = h.abs() < 0.3
        H = torch.where(s, 1.0, h)
        p = torch.expm1(H) / H
        return torch.where(s, 1 + h / 2 + h**2 / 6, p), torch.where(s, 0.5 + h / 6, (p - 1) / H)
        # too few terms
        s = h.abs() < 1e-12
        H = torch.where(s, 1.0, h)
        p = torch.expm1(H) / H
        return torch.where(s, 1.0, p), torch.where(s, 0.5, (p - 1) / H)
        # ϕ₂: relative error
        """,
        "Q08.2": """
        eps = model(x, a).eps
        return b.alpha / a.alpha * (x - a.sigma * eps) + b.sigma * eps
        # right
        from dlib.solvers import ddim
        return ddim(model, x, a, b)[0]
        # right
        b.sigma * eps → b.sigma * model(x, a).eps  # with 2 network calls
        """,
        "Q08.3": """
        k = lambda l: l.sigma / l.alpha
        e = model(x, a).eps
        y = x / a.alpha + (k(b) - k(a)) * e
        e2 = model(y * b.alpha, b).eps
        return b.alpha * (x / a.alpha + (k(b) - k(a)) * (e + e2) / 2)
        # right
        return b.alpha → model(x, a)
        return b.alpha
        # with 3 network calls
        k = lambda l: l.sigma / l.alpha → from dlib import vp
        k = lambda l: vp().at(l.t).sigma / vp().at(l.t).alpha
        # one of model.schedule
        from dlib.solvers import dpm_solver_3
        return dpm_solver_3(model, x, a, b)[0]
        # as order 3, with 3 network calls
        """,
        "Q08.4": """
        p = model(x, a)
        memory = (memory or []) + [(a, p.x0)]
        D = p.x0
        if len(memory) > 1:
            (l0, d0), (l1, d1) = memory[-2:]
            D = d1 + (b.lam - a.lam) / (l1.lam - l0.lam) / 2 * (d1 - d0)
        return x * (b.sigma / a.sigma) + b.alpha * (1 - math.exp(a.lam - b.lam)) * D, memory
        # right
        from dlib.solvers import dpm_solver_pp_2m
        return dpm_solver_pp_2m(model, x, a, b, memory)
        # right
        (b.lam - a.lam) / (l1.lam - l0.lam) / 2 → (l1.lam - l0.lam) / (b.lam - a.lam) / 2
        # take turns here and their errors cancel
        (b.lam - a.lam) / (l1.lam - l0.lam) / 2 → (b.lam - a.lam) / (b.lam - l0.lam)
        # extrapolated to the middle of the step, by h/2h₀
        (b.sigma / a.sigma) → (b.alpha / a.alpha)  # for constant x₀ moves x/σ
        D = p.x0 → D = model(x, a).x0  # right, but with 2 network calls a step
        """,
        "Q08.5": """
        d = lam - lam[0]
        A = torch.stack([torch.ones_like(d), d, d**2 / 2], 1)
        c = torch.linalg.solve(A, f)
        return c[1], c[2]
        # right
        c[1], c[2] → c[1:]  # right
        c[1], c[2] → (value for value in c[1:])  # right
        c[1], c[2] → c[1]  # got 1 array, wanted 2
        """,
    },
)
