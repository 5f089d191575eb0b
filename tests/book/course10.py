"""Assignment 10's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "10",
    {
        "Q10.1": """
        K = len(starts) - 1
        fine, old = [F(i, starts[i]) for i in range(K)], [G(i, starts[i]) for i in range(K)]
        out = starts.clone()
        for i in range(K):
            out[i + 1] = (G(i, out[i]) - old[i]) + fine[i]
        return out
        # right
        (G(i, out[i]) - old[i]) + fine[i] → fine[i] + G(i, out[i]) - old[i]
        # add the bracket last
        (G(i, out[i]) - old[i]) + fine[i] → G(i, out[i]) + (fine[i] - old[i])
        # add the bracket last
        (G(i, out[i]) - old[i]) + fine[i] → (G(i, out[i]) - G(i, starts[i])) + fine[i]
        starts.clone() → starts
        # was U overwritten?
        return out → return out.float()  # single precision
        """,
        "Q10.2": """
        U, old = [x] + [None] * K, [None] * K
        for i in range(K):
            old[i] = G(i, U[i])
            U[i + 1] = old[i]
        p, moved = 0, float("inf")
        while p < K and not moved <= tol:
            fine = [F(i, U[i]) for i in range(K)]
            before = U[K]
            for i in range(K):
                coarse = G(i, U[i])
                U[i + 1], old[i] = fine[i] + (coarse - old[i]), coarse
            moved = float(((U[K] - before) ** 2).mean(dim=1).max()) ** 0.5
            p += 1
        return U[K], p
        # right
        p < K → p < 3  # up to K iterations
        fine[i] + (coarse - old[i]) → fine[i] - (coarse - old[i])
        p < K → p < K - 1
        # up to K iterations
        fine[i] + (coarse - old[i]) → coarse  # correct every block
        return U[K], p → return U[K], p + 1  # the guess is no iteration
        return U[K], p → return U[K], p - 1  # the count is not
        return U[K], p → return before, p  # wanted 0
        fine[i] + (coarse - old[i]) → coarse + (fine[i] - old[i])  # add the bracket last
        fine[i] + (coarse - old[i]) → fine[i] + coarse - old[i]  # add the bracket last
        """,
        "Q10.3": """
        return torch.tensor([[i + min(q, i) * (J - 1) for i in range(K + 1)] for q in range(p + 1)])
        # right
        return [[i + min(q, i) * (J - 1) for i in range(K + 1)] for q in range(p + 1)]  # right
        """,
        "Q10.4": """
        U = torch.cat([torch.ones_like(g[:1]), g.cumprod(0)])
        for _ in range(p):
            V = [U[0]]
            for i in range(len(f)):
                V.append(f[i] * U[i] + g[i] * (V[i] - U[i]))
            U = torch.stack(V)
        return U
        # right
        torch.stack(V) → torch.stack(V).float()  # single precision
        """,
    },
)
