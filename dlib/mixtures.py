"""Gaussian mixtures, the book's exact truth.

For data p₀ = Σ_k w_k N(μ_k, S_k² I) every marginal p_t of x_t = α x₀ + σ ε is again a mixture,
with means α μ_k and variances v_k = α² S_k² + σ². So its density, its score, the posterior of
x₀ and of ε are sums one can write down (Efron 2011 calls the posterior mean Tweedie's
formula), and a sampler's error can be measured instead of judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlib._util import Draw, require

if TYPE_CHECKING:
    from dlib.schedule import NoiseLevel, NoiseSchedule

NULL = -1
"""The empty condition ∅: the label that stands for the whole mixture."""


@dataclass(frozen=True)
class Mixture:
    """Σ_k w_k N(μ_k, S_k² I) in d dimensions, with a class label for each component.

    weights (K,) sum to 1; means (K, d); stds (K,); labels (K,) int64, by default 0 … K−1.
    Methods take x (B, d), a noise level of floats or (B, 1) tensors, and an optional label
    (B,) whose entry `NULL` (−1) means the whole mixture.

    >>> pair = Mixture(torch.ones(2) / 2, torch.tensor([[-1.0], [1.0]]), torch.full((2,), 0.1))
    >>> x0, label = pair.sample(5, Draw(0))
    >>> x0.shape, label.shape
    (torch.Size([5, 1]), torch.Size([5]))
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    labels: Tensor | None = None

    def __post_init__(self):
        k = len(self.weights)
        require(
            self.means.ndim == 2 and len(self.means) == k and self.stds.shape == (k,),
            f"Mixture: weights {tuple(self.weights.shape)}, means {tuple(self.means.shape)}, "
            f"stds {tuple(self.stds.shape)}; "
            "wanted (K,), (K, d) and (K,)",
        )
        require(
            bool((self.weights > 0).all())
            and abs(float(self.weights.sum()) - 1) < 1e-6
            and bool((self.stds > 0).all()),
            "Mixture: weights must be positive and sum to 1, stds must be positive: divide the "
            "weights by their sum",
        )
        labels = torch.arange(k) if self.labels is None else self.labels
        require(
            labels.shape == (k,),
            f"Mixture: labels have shape {tuple(labels.shape)}, wanted ({k},): one for each "
            "component",
        )
        weights = self.weights.double()
        for name, value in (
            ("weights", weights / weights.sum()),
            ("means", self.means),
            ("stds", self.stds),
        ):
            object.__setattr__(self, name, value.double())
        object.__setattr__(self, "labels", labels)

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    def sample(self, n: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """n points (n, d) in float64 and their labels (n,). Draws: the components, then the
        normals.
        """
        k = draw.choice(self.weights, n)
        return self.means[k] + self.stds[k, None] * draw.normal(self.means[k]), self.labels[k]

    def log_prob(self, x: Tensor, level: NoiseLevel, label: Tensor | None = None) -> Tensor:
        """log p_t(x), or log p_t(x | label), in nats: (B,)."""
        joint, *_ = self._components(x, level, label)
        return torch.logsumexp(joint, 1)

    def cdf(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """P(x_t ≤ x) of a mixture on a line, x (B, 1): (B,). Uniform on [0, 1] if x is a
        sample of p_t.
        """
        require(
            self.dim == 1, f"Mixture: cdf is for one dimension, this mixture lives in {self.dim}"
        )
        _, centred, variance, _, _ = self._components(x, level, None)
        return torch.special.ndtr(centred[:, :, 0] / variance.sqrt()) @ self.weights.to(x)

    def log_guidance_tilt(
        self, x: Tensor, level: NoiseLevel, label: Tensor, omega: float
    ) -> Tensor:
        """(1+ω) log p_t(x|c) − ω log p_t(x), the unnormalised log density of the guidance
        tilt: (B,). Its gradient is the guided score (Ho & Salimans 2022).
        """
        return (1 + omega) * self.log_prob(x, level, label) - omega * self.log_prob(x, level)

    def class_prob(self, x: Tensor, level: NoiseLevel, label: Tensor) -> Tensor:
        """p_t(c | x) of the class label (B,), by Bayes' rule from p_t(x | c), p_t(x) and the
        class's weight: (B,).
        """
        prior = ((label[:, None] == self.labels.to(x.device)) | (label[:, None] == NULL)).to(
            x
        ) @ self.weights.to(x)
        return prior * (self.log_prob(x, level, label) - self.log_prob(x, level)).exp()

    def guidance_tilt_sample(
        self, n: int, level: NoiseLevel, label: int, omega: float, draw: Draw
    ) -> Tensor:
        """n exact samples (n, d) of the guidance tilt p_t(x|c)^{1+ω} p_t(x)^{−ω} (over its
        integral), by rejection. A sampler with `guided` makes other ones (chapter 6).

        By Bayes' rule it is p_t(x) p_t(c|x)^{1+ω}, up to a constant: draw a noised point of
        any class, keep it with probability p_t(c|x)^{1+ω}. level: of floats; ω ≥ −1. Draws, n
        points at a time: those of `sample`, the noise, a uniform a point.
        """
        require(
            omega >= -1,
            f"Mixture: a guidance tilt of omega = {omega:g} would keep points with probability "
            "above 1: wanted omega ≥ −1 (0 is the class)",
        )
        kept, asked = self.means[:0], torch.full((n,), label)
        while len(kept) < n:
            x0, _ = self.sample(n, draw)
            x = level.alpha * x0 + level.sigma * draw.normal(x0)
            keep = draw.uniform(n) < self.class_prob(x, level, asked) ** (1 + omega)
            kept = torch.cat([kept, x[keep]])
        return kept[:n]

    def posterior_means(
        self, x: Tensor, level: NoiseLevel, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(E[x₀|x_t], E[ε|x_t]), each (B, d), each from its own sum: neither loses digits as σ
        → 0 or α → 0.
        """
        joint, centred, variance, alpha, sigma = self._components(x, level, label)
        pull = torch.softmax(joint, 1) / variance  # r_k / v_k
        eps = sigma * torch.einsum("bk,bkd->bd", pull, centred)
        shrink = pull * alpha * self.stds.to(x) ** 2
        x0 = torch.softmax(joint, 1) @ self.means.to(x) + torch.einsum(
            "bk,bkd->bd", shrink, centred
        )
        return x0, eps

    def posterior_sample(
        self, x: Tensor, level: NoiseLevel, draw: Draw, label: Tensor | None = None
    ) -> Tensor:
        """One x₀ ~ p(x₀ | x_t = x) for each row: (B, d). Draws: a uniform a row for the
        component, then the normals.
        """
        joint, centred, variance, alpha, sigma = self._components(x, level, label)
        threshold = draw.uniform(len(x)).to(x)[:, None]
        k = (
            (torch.softmax(joint, 1).cumsum(1) <= threshold)
            .sum(1)
            .clamp(max=len(self.weights) - 1)
        )
        row, spread = torch.arange(len(x), device=x.device), self.stds.to(x)[k, None]
        var = variance.expand(len(x), -1)[row, k][:, None]
        mean = self.means.to(x)[k] + alpha * spread**2 / var * centred[row, k]
        return mean + spread * sigma / var.sqrt() * draw.normal(x)

    def modes_of(self, x: Tensor, within: float = 3.0) -> Tensor:
        """The component in which each point lies, (B,) int64: the nearest in its standard
        deviations, −1 beyond `within` of them.

        Of the components' own samples, a share that depends on d and `within` alone is inside:
        1 − e^{−within²/2} in two dimensions.
        """
        apart = (x[:, None] - self.means.to(x)).norm(dim=2) / self.stds.to(x)
        nearest, k = apart.min(1)
        return k.where(nearest <= within, -1)

    def shares(self, x: Tensor, within: float = 3.0) -> Tensor:
        """The share of the points that lies in each component, (K,): the mode ledger. What
        lies in none is missing from the sum.
        """
        k = self.modes_of(x, within)
        return torch.bincount(k[k >= 0], minlength=len(self.weights)) / len(x)

    def net(self, schedule: NoiseSchedule) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """The perfect network for this data: (x, t, label) ↦ v* = α E[ε|x] − σ E[x₀|x], t
        (B,), label (B,) or None.
        """

        def v_star(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            level = schedule.at(t, like=x)
            x0, eps = self.posterior_means(x, level, label)
            return level.alpha * eps - level.sigma * x0

        return v_star

    def _components(
        self, x: Tensor, level: NoiseLevel, label: Tensor | None
    ) -> tuple[Tensor, ...]:
        """log w_k N(x; αμ_k, v_k I) (B, K); x − αμ_k (B, K, d); v_k (1 or B, K); α and σ as (1
        or B, 1).
        """
        require(
            x.ndim == 2 and x.shape[1] == self.dim,
            f"Mixture: x has shape {tuple(x.shape)}, wanted (B, {self.dim}): this mixture "
            f"lives in {self.dim} dimensions",
        )
        alpha, sigma = (
            torch.as_tensor(f, dtype=x.dtype, device=x.device).reshape(-1, 1)
            for f in (level.alpha, level.sigma)
        )
        variance = (alpha * self.stds.to(x)) ** 2 + sigma**2
        centred = x[:, None, :] - alpha[:, :, None] * self.means.to(x)
        log_weight = self._log_weights(label, x.device).to(x)
        square = (centred**2).sum(2) / variance
        return (
            log_weight - 0.5 * (square + self.dim * (2 * math.pi * variance).log()),
            centred,
            variance,
            alpha,
            sigma,
        )

    def _log_weights(self, label: Tensor | None, device: torch.device) -> Tensor:
        weights = self.weights.to(device)
        if label is None:
            return weights.log()
        inside = (label[:, None] == self.labels.to(device)) | (label[:, None] == NULL)
        # looking at values would stall an accelerator
        if device.type == "cpu" and not inside.any(1).all():
            raise ValueError(
                f"Mixture: label {label[~inside.any(1)][0].item()} is none of "
                f"{sorted(set(self.labels.tolist()))} "
                f"(use {NULL} for the whole mixture)"
            )
        weight = inside * weights
        return (weight / weight.sum(1, keepdim=True)).log()
