"""The small transformer: what it may and may not depend on, and that it can learn what its
caption says.
"""

import pytest
import torch

from dlib import Batch, Denoiser, Draw, Phase, denoising, discrete, guided, scaled_linear
from dlib.losses import uniform_times, weights
from dlib.nets import DiT
from truth import fit, normals

NULL = torch.zeros(4, dtype=torch.int64)


def awake(seed=0, **sizes):
    """A network none of whose layers starts at zero."""
    torch.manual_seed(seed)
    net = DiT(
        **(
            {
                "side": 8,
                "channels": 3,
                "words": 5,
                "length": 4,
                "width": 16,
                "depth": 2,
                "heads": 2,
            }
            | sizes
        )
    )
    for weight in net.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.2)
    return net.double()


X, TIME = normals(3, 3, 8, 8), torch.tensor([999.0, 400.5, 0.0], dtype=torch.float64)
TOKENS = torch.tensor([[1, 4, 2, 0], [1, 2, 4, 0], [0, 0, 0, 0]])


def test_a_new_network_predicts_zero():
    net = DiT(side=8, channels=3, words=5, length=4, width=16)
    assert (net(X.float(), TIME.float(), TOKENS) == 0).all()


def test_samples_do_not_see_each_other():
    net = awake()
    whole = net(X, TIME, TOKENS)
    assert whole.shape == X.shape and whole.dtype == torch.float64
    for i in range(3):
        assert torch.allclose(
            whole[i : i + 1], net(X[i : i + 1], TIME[i : i + 1], TOKENS[i : i + 1]), atol=1e-12
        )


def test_a_block_is_its_formula_with_torch_s_attention():
    block = awake().blocks[0]
    own = block.attention
    peer = torch.nn.MultiheadAttention(16, 2, batch_first=True).double()
    peer.in_proj_weight.data = torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight])
    peer.in_proj_bias.data = torch.cat([own.to_q.bias, own.to_k.bias, own.to_v.bias])
    peer.out_proj.load_state_dict(own.to_out.state_dict())
    x, e, text = normals(3, 5, 16, seed=1), normals(3, 16, seed=2), normals(3, 4, 16, seed=3)
    norm = torch.nn.LayerNorm(16, elementwise_affine=False)
    scale, shift, gate, scale_2, shift_2, gate_2 = (
        block.modulate(e).reshape(3, 6, 1, 16).unbind(1)
    )
    h = norm(x) * (1 + scale) + shift
    y = x + gate * peer(h, *[torch.cat([h, text], 1)] * 2)[0]
    wanted = y + gate_2 * block.mlp(norm(y) * (1 + scale_2) + shift_2)
    assert torch.allclose(block(x, e, text), wanted, atol=1e-12)


def test_output_depends_on_picture_time_words_and_their_order():
    net, x = awake(), X[:1].expand(3, -1, -1, -1)
    out = net(x, TIME[:1].expand(3), TOKENS)
    assert not torch.allclose(out[0], out[1]) and not torch.allclose(out[0], out[2])
    timed = net(x, TIME, TOKENS[:1].expand(3, -1))
    assert not torch.allclose(timed[0], timed[1]) and not torch.allclose(timed[1], timed[2])
    moved = X[:1].clone()
    moved[0, :, 7, 7] += 1
    seen = (net(moved, TIME[:1], TOKENS[:1]) - out[:1]).abs().amax(1)[0]
    assert (seen.reshape(2, 4, 2, 4).amax((1, 3)) > 1e-4).all()  # every patch sees every other


def test_the_caption_modulates_beside_the_time():
    """Without attention to it, the caption still reaches the output, through its mean."""
    net = awake()
    for block in net.blocks:
        torch.nn.init.zeros_(block.attention.to_out.weight)
    x, time = X[:1].expand(2, -1, -1, -1), TIME[:1].expand(2)
    first, second = net(x, time, TOKENS[1:])
    assert not torch.allclose(first, second, atol=1e-3)


def test_patches_have_places():
    net = awake()
    turned = X.reshape(3, 3, 2, 4, 2, 4).flip(2).reshape(X.shape)  # the upper patches below
    back = net(turned, TIME, TOKENS).reshape(3, 3, 2, 4, 2, 4).flip(2).reshape(X.shape)
    assert not torch.allclose(back, net(X, TIME, TOKENS), atol=1e-3)


def test_a_patch_is_read_and_written_in_place():
    """With the blocks and x's own way shut, each patch of the output is an affine function of
    the same patch of the input, and of no other.
    """
    net = awake()
    for layer in (*(block.modulate for block in net.blocks), net.keep):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    for i in range(2):
        for j in range(2):
            moved = X.clone()
            moved[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] += normals(3, 3, 4, 4, seed=1)
            touched = (net(moved, TIME, TOKENS) - net(X, TIME, TOKENS)).abs().amax(
                (0, 1)
            ).reshape(2, 4, 2, 4).amax((1, 3)) > 1e-9
            assert touched.nonzero().tolist() == [[i, j]]


def test_x_s_own_way_is_a_multiple_of_each_channel():
    net = awake()
    for layer in (net.leave, *(block.modulate for block in net.blocks)):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    share = net(X, TIME, TOKENS) / X
    assert (
        torch.allclose(share, share[..., :1, :1].expand_as(share))
        and share[:, :, 0, 0].unique().numel() == 9
    )


def test_attention_layers_have_the_names_that_lora_looks_for():
    names = {
        name
        for name, module in DiT(8, 3, 5, 4).named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    for layer in ("to_q", "to_k", "to_v", "to_out"):
        # the reader and three blocks
        assert sum(name.endswith(f"attention.{layer}") for name in names) == 4


def test_every_weight_gets_a_gradient():
    net = awake()
    net(X, TIME, TOKENS).square().sum().backward()
    assert not [
        name
        for name, weight in net.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]


def test_the_empty_caption_guides():
    model = Denoiser(awake(), discrete(scaled_linear()), "v", clock=lambda t: 1000 * t - 1)
    level = model.schedule.at(0.5)
    both = guided(model, 2.0, NULL)(X, level, TOKENS).v
    c, e = model(X, level, TOKENS).v, model(X, level, NULL.expand(3, -1)).v
    assert torch.allclose(both, 3 * c - 2 * e, atol=1e-12) and torch.allclose(
        both[2], c[2], atol=1e-12
    )


@pytest.mark.parametrize(
    "tokens", [None, torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)]
)
def test_other_conditions_are_refused(tokens):
    with pytest.raises(ValueError, match=r"wanted \(B, 4\); the empty caption is a row of zeros"):
        awake()(X, TIME, tokens)


def test_patches_must_tile():
    with pytest.raises(ValueError, match="side 10 is not made of patches of 4"):
        DiT(10, 3, 5, 4)


def test_it_learns_which_half_its_words_name():
    """Two pictures, told apart by the order of two words alone: after 150 steps it names the
    right one at pure noise.
    """
    torch.manual_seed(0)
    net = DiT(side=8, channels=1, words=3, length=2, width=32, depth=1)
    model = Denoiser(net, discrete(scaled_linear()), "v", clock=lambda t: 1000 * t - 1)
    pictures = torch.ones(2, 1, 8, 8)
    pictures[0, :, :4], pictures[1, :, 4:] = -1, -1
    text = torch.tensor([[1, 2], [2, 1]])
    row = lambda step: Draw(step).integers(2, 32)
    phase = Phase(
        "net",
        lambda roles, batch, draw: denoising(
            roles["net"], batch, draw, weights.v, uniform_times(1e-3)
        ),
    )
    optims = {"net": torch.optim.AdamW(net.parameters(), 3e-3)}
    fit(
        [phase],
        {"net": model},
        optims,
        lambda step: Batch(pictures[row(step)], text[row(step)]),
        150,
        Draw(0),
    )
    with torch.no_grad():
        x0 = model(Draw(1).normal(pictures), model.schedule.at(1.0), text).x0
    assert (
        (x0 - pictures).square().mean().sqrt()
        < 0.4
        < (x0 - pictures.flip(0)).square().mean().sqrt()
    )
