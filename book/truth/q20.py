"""Assignment 20: gradients of divergences, a loss, a one-step student's answer, an adapter."""

import numpy as np

from book.questions.q20 import BACKWARD, FACES, NUMBER, SHAPE
from book.truth import Case, Verdict, otherwise, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, apart, known, malformed, wrong

ROWS = 24


def gaussians(rng: np.random.Generator) -> dict:
    """Widths on both sides of the data's."""
    d = int(rng.integers(3, 6))
    student = {"m": rng.normal(size=d), "s": rng.uniform(0.3, 1.7, d)}
    return (
        student
        | {"mu": rng.normal(size=d), "tau": rng.uniform(0.5, 1.5, d)}
        | problems.level(rng)
    )


GAUSSIAN = Exact(
    "Q20.1",
    gaussians,
    returns=("∂KL/∂m", "∂KL/∂s", "∂CE/∂s"),
    hint=(
        "KL's part with m is α²(m − μ)²/2v_q, with the variance v_q of q_t: differentiate it by "
        "m",
        "write KL of two Gaussians with the variances after the noise, then differentiate by s",
        "−E log q_t is ½ log v_q + (v_p + α²(m − μ)²)/2v_q: where is s?",
    ),
    mistakes="""
        return alpha**2 → return -(alpha**2)  # the sign is wrong: descent must move m towards μ
        s**2 + sigma**2 → s**2
        tau**2 + sigma**2 → tau**2
        # the variances are those of clean samples: after the noise they are v = α²·variance + σ²
        (m - mu) → m  # the data's mean is taken for 0, as in the chapter's formula: here it is μ
        alpha**2 * (m - mu) → alpha * (alpha * m - mu)
        # the data's mean is μ, and after the noise it is αμ: both means shrink by α
        alpha**2 * (m - mu) → alpha * (m - mu)
        # one factor α is missing: the means of p_t and q_t are αm and αμ, and the chain rule
        # brings a second α
        alpha**2 * (m - mu) → (m - mu)
        # the factor α² is missing: the means of p_t and q_t are αm and αμ
        (m - mu) / v_q → (m - mu) / v_p
        # v_p stands where v_q belongs: KL(p‖q) measures distances in widths of q
        of_entropy = → of_entropy = 0.5 *
        of_ce = → of_ce = 0.5 *
        return → return 0.5 *
        # a factor ½ is left: the square's derivative brings a 2
        of_entropy = → of_entropy = 2 *
        of_ce = → of_ce = 2 *
        return → return 2 *
        # a factor 2 too much: the ½ of a Gaussian's exponent takes it
        tau**2 → tau  # τ is not squared: v_q = α²τ² + σ²
        of_ce - of_entropy → of_entropy - of_ce
        # the sign is wrong: a student narrower than the data must widen, so ∂KL/∂s < 0 for s < τ
        of_ce - of_entropy → of_ce
        # this is ∂CE/∂s: the entropy of p_t is missing, and with it all that keeps the student
        # wide
        of_entropy = alpha**2 * → of_entropy =
        of_ce = alpha**2 * → of_ce =
        # the factor α² is missing: v_p = α²s² + σ²
        of_entropy = alpha**2 → of_entropy = alpha
        of_ce = alpha**2 → of_ce = alpha
        # one factor α is missing: ∂v_p/∂s = 2α²s
        s / v_p → 0.5 / v_p
        s / v_q → 0.5 / v_q
        # this is the derivative by s², not by s: multiply by 2s
        s / v_p → 1 / v_p
        s / v_q → 1 / v_q
        # the factor s is missing: ∂v_p/∂s = 2α²s
        of_ce - of_entropy → of_entropy - of_entropy * (v_q + alpha**2 * (m - mu) ** 2) / v_p
        # this is KL(q‖p): the student's samples are averaged over, so it is KL(p‖q)
        of_entropy, of_ce → of_entropy, -of_ce
        # the sign is wrong: −E log q_t grows with the student's width
        of_entropy, of_ce → of_entropy, of_entropy  # v_p stands where v_q belongs
        of_entropy, of_ce → of_entropy, of_ce - of_entropy
        # this is ∂KL/∂s: cross-entropy has no entropy of p_t
    """,
)


QUADRATURE = Exact(
    "Q20.2",
    otherwise.atoms,
    returns="the gradient",
    hint="this is not the finite difference of KL. x_t[k, j] = α x_k + σ nodes_j; the perfect "
    "fake averages the noises (x_t − α x_i)/σ of all atoms i, each by its share of p_t(x_t)",
    truth=otherwise.slope_of_kl,
    tolerance=1e-6,
    mistakes="""
        real(x_t) - fake → fake - real(x_t)
        # the sign is wrong: G is real − fake, and descent subtracts it
        - fake → - nodes
        # this is SDS, the derivative of the cross-entropy: where the fake's ε_p belongs stands
        # the noise that was added, or nothing, which has the same mean. (So have shares that sum
        # to 1 over the wrong axis: at each x_t they must do so over the atoms that it may come
        # from)
        alpha / sigma * (real → (real  # the factor α/σ is missing
        alpha / sigma * (real → sigma**2 * (real
        # the factor is σ², SwiftBrush's weight: that of KL is α/σ
        alpha / sigma * (real → sigma / alpha * (real  # the factor is σ/α: that of KL is α/σ
        alpha / sigma * (real → alpha / sigma**2 * (real
        # the factor is α/σ², with one σ too many: the scores differ by (ε_q − ε_p)/σ
        alpha / sigma * (real → 1 / sigma * (real
        # the factor is 1/σ: α is missing, which comes from ∂x_t/∂x₀
        alpha / sigma * (real → alpha * (real
        # the factor is α: the division by σ is missing, score = −ε/σ
        (share * from_each).sum(2) → from_each.mean(2)
        # the atoms count alike in the fake: at x_t each counts by its share of p_t(x_t)
        torch.softmax(-(from_each**2) / 2, 2)
        → (from_each**2 == (from_each**2).amin(2, True)).double()
        # only the nearest atom speaks in the fake: all do, each by its share of p_t(x_t)
        (from_each**2) / 2 → (from_each**2)
        # the ½ in the exponent of the fake's shares is missing
        (from_each**2) / 2 → (from_each**2) * sigma / 2
        # σ is not squared in the exponent of the fake's shares
        (from_each**2) / 2 → (from_each**2) * sigma**2 / 2
        # σ is missing in the exponent of the fake's shares: it is −(x_t − α x_i)²/2σ²
        - alpha * x) → - x)  # the fake's atoms sit at x_k: after the noise they sit at α x_k
        fake = ( → fake = -1 / sigma * (  # the fake is its score: ε = −σ · score
        fake = ( → fake = sigma * (
        # the fake is not divided by σ: the noise of atom i is (x_t − α x_i)/σ
        share * from_each → share * x
        # the fake is its x̂₀, the mean of the atoms: ε_p = (x_t − α x̂₀)/σ
        / len(x) →
        # the atoms' gradients are summed: z has K equally likely values, take the mean
        G @ mass → G.mean(1)  # the nodes are averaged alike: each has its mass
        / len(x) → / len(x) / len(nodes)
        # the nodes are averaged on top of their masses, which sum to 1 already
        real(x_t) → real(x[:, None].expand_as(x_t))
        # the teacher is asked at x₀: it must see the noisy x_t
    """,
)


def networks(rng: np.random.Generator) -> dict:
    d, k = int(rng.integers(3, 6)), 4
    return {
        "inner": rng.normal(size=(k, 7)),
        "mix": rng.normal(size=(d, d)),
        "student": rng.normal(size=(7, d)) / 2,
        "real": rng.normal(size=(d, d)),
        "fake": rng.normal(size=(d, d)),
        "z": rng.normal(size=(ROWS, k)),
        "eps": rng.normal(size=(ROWS, d)),
    } | problems.level(rng)


def _injected(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """The gradients of all three networks; the loss itself only has to be one."""
    if len(outputs) == 5 and outputs[0]:
        said = {
            SHAPE: f"the loss has shape {tuple(int(n) for n in outputs[4].flat)}, wanted a "
            "scalar tensor: sum over the values of a sample, then the mean over samples",
            NUMBER: "the answer returned a plain number, wanted a scalar tensor: without its "
            "graph (.item(), float()) there is nothing to differentiate",
            BACKWARD: "the answer has called .backward() itself: return the loss, the check "
            "calls it",
        }
        return wrong(said.get(int(outputs[0]), "the answer returned no loss"))
    names = ("the student's gradient", "the teacher's gradient", "the fake's gradient")
    bad = malformed(outputs[:4], ("the loss", *names), case.values[:4])
    if bad:
        return bad
    off = apart(outputs[1:2], case.values[1:2])
    if off > 1e-9:
        why = known(case, outputs, [1]) or q.hint
        return wrong(f"the student's gradient is off by {off:.1e} (relative): {why}")
    leak = [w for w, grad in zip(("teacher", "fake score"), outputs[2:4]) if grad.any()]
    if not leak:
        return RIGHT
    return wrong(
        f"the student's gradient is right, but the {' and the '.join(leak)} "
        f"get{'s' * (len(leak) == 1)} a gradient as well: make G under torch.no_grad()",
        0.6,
    )


LOSS = Exact(
    "Q20.3",
    networks,
    returns="the student's gradient",
    hint="with x = student(z), it must be the mean over the batch of G·∂x/∂θ, G a constant",
    verdict=_injected,
    mistakes="""
        (x - G).detach() → (x - G)
        # there is none: autograd sees no path from the loss to the student. Make x = student(z)
        # outside of no_grad, and do not detach it; and ½(x − (x − G))² without a stop on its
        # target no longer contains x at all
        (x - G) → (x + G)
        # the sign is wrong: the gradient of ½‖x − sg(x − G)‖² by x is +G, with G = real − fake
        with torch.no_grad() → if True
        (x - G).detach() → (x - G)
        # the target x − G is not stopped, and autograd differentiates G: the loss is then ½‖G‖²,
        # another objective
        with torch.no_grad() → if True
        0.5 * (x - (x - G).detach()) ** 2 → x * G
        # G is not a constant: autograd runs through both networks' inputs. Detach G
        with torch.no_grad() → if True
        (x - G).detach() → (x.detach() - G)
        # only x is stopped, in x − G: G needs a stop as well
        fake(x_t) → eps  # this is SDS: the noise stands where the fake score belongs
        alpha / sigma * →  # the factor α/σ is missing
        alpha / sigma * → sigma**2 *  # the factor is σ²: here it is asked for α/σ
        alpha / sigma * → sigma / alpha *  # the factor is σ/α: it is α/σ
        0.5 * → 0.5 * alpha *  # G is injected at x_t, not at x: that brings a second α
        .sum(1).mean() → .mean()
        # the mean runs over the values of a sample as well: sum over them, and average over
        # samples only
        0.5 * →
        .sum(1).mean() → .mean()
        # a mean over the values of a sample as well, and without ½: mse_loss of x and sg(x − G)
        # has the gradient 2G/(B·d)
        .sum(1).mean() → .sum()  # the samples are summed: take their mean
        0.5 * →
        .sum(1).mean() → .sum()
        # the samples are summed, and without ½: take half of their mean
        0.5 * →  # the ½ is missing: (x − sg(x − G))² has the gradient 2G
        alpha * x + sigma * eps → x  # the networks are asked at x: they must see the noisy x_t
    """,
)


def answers(rng: np.random.Generator) -> dict:
    output, z = rng.normal(size=(2, ROWS, int(rng.integers(2, 5))))
    return {"output": output, "z": z} | problems.level(rng)


ONE_STEP = Exact(
    "Q20.4",
    answers,
    returns=tuple(f'x₀ for predicts="{face}"' for face in FACES),
    hint=(
        "solve z = αx₀ + σε for x₀",
        "z = αx₀ + σε and v = αε − σx₀ are two equations for x₀ and ε",
    ),
    mistakes="""
        ) / alpha → )  # the division by α is missing
        (z - sigma → (z + sigma  # the sign is wrong: the noise is taken away
        (z - sigma * output) / alpha → alpha * z - sigma * output  # this is the formula for v
        (z - sigma * output) → (z - output)  # the noise is subtracted without its σ
        (z - sigma * output) / alpha → output
        # the network's output is returned as it is: it is ε
        alpha * z - sigma * output → (z - sigma * output) / alpha  # this is the formula for ε
        alpha * z - sigma → alpha * z + sigma
        # the sign is wrong: the two equations combine so that ε cancels, αz − σv = (α² + σ²)x₀
        alpha * z - sigma * output → sigma * z + alpha * output
        # this is σz + αv = ε, not x₀: α and σ are interchanged
        alpha * z - sigma * output → z - output  # this is the answer of a flow model, z − v
        alpha * z - sigma * output → (alpha * z - output) / sigma
        # ε is taken for z: in v = αε − σx₀ the ε is the noise in z = αx₀ + σε
        alpha * z - sigma * output → sigma * z - alpha * output  # α and σ are interchanged
        alpha * z - sigma * output → output  # the network's output is returned as it is: it is v
    """,
)


def adapter(rng: np.random.Generator) -> dict:
    rank, (wide, out) = int(rng.integers(2, 4)), (int(n) for n in rng.permutation([5, 6]))
    return {
        "x": rng.normal(size=(ROWS, wide)),
        "weight": rng.normal(size=(out, wide)),
        "bias": rng.normal(size=out),
        "A": rng.normal(size=(rank, wide)),
        "B": rng.normal(size=(out, rank)),
        "a": rng.uniform(8, 16),
    }


ADAPTER = Exact(
    "Q20.5",
    adapter,
    returns=("y", "the merged weight"),
    hint=("y = x Wᵀ + bias + (a/r) x Aᵀ Bᵀ", "the merged weight is W + (a/r) B A"),
    mistakes="""
        a / len(A) → 1.0  # the scale a/r is missing
        a / len(A) → a
        # the scale is a: it is a/r, so that the rank can change without a new learning rate
        a / len(A) → 1 / len(A)  # the scale is 1/r: a is missing
        a / len(A) → len(A) / a  # the scale is r/a: it is a/r
        a / len(A) → -a / len(A)  # the adapter is subtracted
        a / len(A) → a / A.shape[1]
        # the scale is a over the number of inputs: r is A's first axis
        a / len(A) → a / len(B)  # the scale is a over the number of outputs: r is B's second axis
        a / len(A) → a / len(A) ** 0.5
        # the scale is a/√r, rank-stabilised LoRA's: here it is a/r
        a / len(A) → 0  # the adapter is missing
        x @ weight.T + bias + scale → scale
        # the adapter stands alone: the layer's own output is missing
        + bias →  # the bias is missing
        + bias → + 2 * bias  # the bias is added twice
        weight + scale → scale  # the adapter stands alone: add the layer's weight
    """,
)

QUESTIONS = [GAUSSIAN, QUADRATURE, LOSS, ONE_STEP, ADAPTER]
