"""Assignment 09's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "09",
    {
        "Q09.1": """
        new = [points[0]]
        for j in range(len(made)):
            moved = new[j] - points[j]
            new.append(made[j] + size[j + 1] / size[j] * moved)
        return torch.stack(new)
        # right
        s = size[:, None, None]
        u = points[:1] / s[:1] + torch.cumsum(made / s[1:] - points[:-1] / s[:-1], 0)
        return torch.cat([points[:1], s[1:] * u])
        # add the sum of brackets last
        new = [points[0]]
        for j in range(len(made)):
            total = sum(size[j + 1] / size[i + 1] * (made[i] - new[i + 1]) for i in range(j))
            new.append(made[j] + total)
        return torch.stack(new)
        # take the *new* X_{i+1}
        new.append(made[j] + → new.append(made[j].float() +  # single precision
        return made  # shape (9, 5, 2), wanted (10, 5, 2)
        """,
        "Q09.2": """
        truth = guess.clone()
        for j in range(len(guess) - 1):
            truth[j + 1] = step(j, truth[j])
        return all(bool((sampler(step, guess, k)[: k + 1] == truth[: k + 1]).all()) for k in range(len(guess)))
        # right
        (sampler(step, guess, k)[: k + 1] == truth[: k + 1]).all()
        → torch.allclose(sampler(step, guess, k)[: k + 1], truth[: k + 1])
        # accepts 3 of 8 wrong samplers
        k)[: k + 1] == truth[: k + 1] → k)[:k] == truth[:k]  # one that is one sweep late
        k in range(len(guess)) → k in range(len(guess) - 1, len(guess))
        # one that does nothing at all until the last sweep
        k)[: k + 1] == truth[: k + 1] → k) == truth  # rejects 2 of 3 right samplers
        step(j, truth[j]) → step(j, guess[j])  # rejects 3 of 3 right samplers
        k)[: k + 1] == truth[: k + 1] → k)[k] == truth[k]
        # makes a point that was right wrong again
        k in range(len(guess)) → k in range(1, len(guess))
        # returns zeros when it is asked for no sweep
        k in range(len(guess)) → k in range(len(guess) - 1)  # never moves the last point
        truth, points = guess.clone(), guess
        for j in range(len(guess) - 1):
            truth[j + 1] = step(j, truth[j])
        for k in range(len(guess)):
            points = sampler(step, points, min(k, 1))
            if not torch.equal(points[: k + 1], truth[: k + 1]):
                return False
        return True
        # stops moving after five sweeps
        return True  # accepts 8 of 8 wrong samplers
        """,
        "Q09.3": """
        n = 0
        while n < len(change) and change[n].max() <= tol:
            n += 1
        return n if n else 1
        # right
        """,
        "Q09.4": """
        N, k, b = len(sigma) - 1, 0, 0
        X = [x] * (N + 1)
        while b < N:
            e = min(b + window, N)
            made = step(b, torch.stack(X[b:e]))
            new, ok, n = [X[b]], True, 0
            for i in range(b, e):
                new.append(made[i - b] + (new[-1] - X[i]))
                worst = ((new[-1] - X[i + 1]) ** 2).mean(1).sqrt().max() / sigma[i + 1]
                ok = ok and bool(worst <= tol)
                n += ok
            X[b:e + 1] = new
            b += max(n, 1)
            k += 1
            for i in range(e + 1, N + 1):
                X[i] = X[e]
        return X[-1], k
        # right
        max(n, 1) → n if b + n else 1  # by one at least
        return X[-1], k → return X[-1], k - 1  # the count is not
        made[i - b] + (new[-1] - X[i]) → new[-1] + (made[i - b] - X[i])  # to the last bit
        max(n, 1) → 2  # pass points that still change
        step(b, torch.stack(X[b:e])) → step(0, torch.stack(X[:-1]))[b:e]
        # step only the points of the window
        """,
        "Q09.5": """
        u = torch.ones(len(l) + 1, dtype=l.dtype)
        for sweep in range(k):
            u = torch.cat([u[:1], 1 + torch.cumsum(l * u[:-1], 0)])
        return u
        # right
        return u → return u.float()  # single precision
        """,
    },
)
