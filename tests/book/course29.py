"""Assignment 29's class: other right answers, and wrong ones beside the known mistakes."""

from course import Course

COURSE = Course(
    "29",
    {
        "Q29.1": """
        return torch.lerp(eps_neg, eps_pos, guidance_scale)
        # right
        torch.lerp(eps_neg, eps_pos, guidance_scale) → torch.lerp(eps_neg, eps_pos, 0.5)
        # the positive's less ω times
        """,
        "Q29.2": """
        up, down = [], []
        for a, b, vote in zip(first, second, votes.tolist()):
            if vote == 1:
                up.append(b), down.append(a)
            elif vote == 0:
                up.append(a), down.append(b)
        return torch.stack(up), torch.stack(down)
        # right
        elif vote == 0 → else  # has shape
        """,
        "Q29.3": """
        push = S * S * rho
        return mu + push * (1 + omega) / beta + push * omega / beta_neg
        # right
        push * omega / beta_neg → push / beta_neg  # guidance mixes them
        """,
        "Q29.4": """
        a, b = 1 / S**2, 1 / beta / w**2
        return ((a - b) / (a + b)) ** omega / (a + b)
        # right
        return ( → return 2 * (  # precisions add
        """,
        "Q29.5": """
        whole = file if is_full else base + file
        return whole + positive - base - m * (positive - base)
        # right
        positive - base - m → positive + base - m  # η₊ is the positive less the base
        """,
    },
)
