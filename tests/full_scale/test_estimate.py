"""The estimate: counts against closed forms and against a real pass, Stable Diffusion 1.5's
known size, and what it prints.
"""

from __future__ import annotations

import doctest
import json
import tomllib
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import methods
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlib import Part, Phase, Recipe, recipes
from dlib.losses import Loss
from full_scale.cost.quote import report
from full_scale import estimate, train
from full_scale.cost import card, counting
from full_scale.cost.blueprint import beside, blueprint, cast_of
from full_scale.cost.counting import META, Cost, Counter, LikeAGpu, backward, cost
from full_scale.data.draws import step_draws
from full_scale.cost.needs import needs
from full_scale.cost.work import Work, backed, in_turn
from full_scale.run.settings import as_table, read
from full_scale.families.tiny import tiny_pipeline
from full_scale.train import open_engine

methods.register()
TRIES = " ".join(methods.TRIES)
WEIGHTS = 859_520_964


def settings(*more: str):
    return read(
        [
            "finetune",
            "--batch",
            "4",
            "--micro",
            "2",
            "--ema",
            "0",
            *(("--tiny",) if "--weights" not in more else ()),
            *more,
        ]
    )


def empty(*shape: int, grad: bool = False, dtype=torch.float32):
    return torch.empty(*shape, device=META, dtype=dtype, requires_grad=grad)


def test_counter_counts_a_chain_exactly():
    """n tanh keep their n outputs. Backward frees one for each new gradient, and needs two
    gradients at a time: n + 1.
    """
    x, unit = empty(1000, 1000, grad=True), 4_000_000
    with Counter([x]) as alive:
        y = x
        for _ in range(5):
            y = torch.tanh(y)
        assert alive.now == alive.peak == 5 * unit
        total = y.sum()
        del y
        backward(total)
    # x.grad is left
    assert alive.peak == pytest.approx(6 * unit, abs=100) and alive.now == pytest.approx(
        unit, abs=100
    )


def test_attention_keeps_no_matrix_and_its_work_is_known():
    q = empty(2, 8, 4096, 40, grad=True)
    found = cost(
        lambda: backward(F.scaled_dot_product_attention(q, q, q).sum()), [q], torch.bfloat16
    )
    assert found.flops == 2 * 8 * 4096**2 * 40 * 4 * 3.5  # two products forward, five backward
    assert found.peak < 2 * 8 * 4096**2  # bytes: less than half of one bfloat16 matrix


def test_autocast_is_imitated():
    """Products in bfloat16, with one copy of each trained weight; norms and softmax in
    float32; float64 is left alone.
    """
    weight = nn.Parameter(empty(8, 8))
    with LikeAGpu(torch.bfloat16) as gpu:
        one, two = F.linear(empty(2, 8), weight), F.linear(empty(2, 8), weight)
        assert one.dtype == two.dtype == (
            empty(2, 8) @ empty(8, 8)
        ).dtype == torch.bfloat16 and gpu.low(weight) is gpu.low(weight)
        assert (
            F.layer_norm(one, (8,)).dtype
            == one.softmax(-1).dtype
            == F.group_norm(one[..., None], 2).dtype
            == torch.float32
        )
        assert (
            empty(2, 2, dtype=torch.float64) @ empty(2, 2, dtype=torch.float64)
        ).dtype == torch.float64
    with LikeAGpu(torch.float32):
        assert F.linear(empty(2, 8), weight).dtype == torch.float32


def test_flops_of_the_tiny_network_by_hand():
    """Hooks on a real pass: 2 · outputs · inputs of each layer, 4 · heads · N · M · d of each
    attention.
    """
    unet, count = tiny_pipeline().unet, []

    def layer(module, inputs, out):
        count.append(2 * out.numel() * module.weight[0].numel())

    def attention(module, inputs, kwargs, out):
        other = kwargs.get("encoder_hidden_states")
        queries, keys = inputs[0].shape[:2], (inputs[0] if other is None else other).shape[1]
        count.append(4 * queries[0] * queries[1] * keys * module.to_q.out_features)

    for module in unet.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.register_forward_hook(layer)
        elif type(module).__name__ == "Attention":
            module.register_forward_hook(attention, with_kwargs=True)
    plan = blueprint(settings())
    with torch.no_grad():
        unet(torch.zeros(3, 4, 16, 16), torch.zeros(3), torch.zeros(3, 16, 32))
        batch = plan.batch(3)
        found = cost(lambda: plan.base.net(batch.x0, empty(3), batch.cond), [], torch.float32)
    assert found.flops == sum(count)


def test_stable_diffusion_1_5_has_its_published_size(sd15):
    """859.5 M weights, 0.803 TFLOP a forward pass at 64 × 64, 16 bytes a weight for full
    training: 13.8 GB.
    """
    s = settings("--weights", str(sd15), "--micro", "1")
    plan = blueprint(s)
    assert (
        plan.sides == (4, 64, 64)
        and plan.empty["text"].shape == (77, 768)
        and plan.base.predicts == "eps"
    )
    assert sum(p.numel() for p in plan.base.net.parameters()) == WEIGHTS
    with torch.no_grad():
        batch = plan.batch(1)
        found = cost(
            lambda: plan.base.net(batch.x0, empty(1), batch.cond),
            plan.base.net.parameters(),
            torch.float32,
        )
    assert found.flops == pytest.approx(0.803e12, rel=2e-3)
    need = needs(s, processes=4)
    assert need.trained == {"student": WEIGHTS} and need.frozen == need.averages == 0
    assert (
        sum(need.memory["ddp"][part] for part in ("weights", "gradients", "optimiser"))
        == 16 * WEIGHTS
    )
    # all but the norms
    assert need.memory["ddp"]["copies"] == pytest.approx(2 * WEIGHTS, rel=1e-2)
    assert (
        sum(need.memory["fsdp"][part] for part in ("weights", "gradients", "optimiser"))
        == 4 * WEIGHTS
    )
    # backward is twice forward; its attention is 5/2
    assert need.flops(s) / 4 == pytest.approx(3.08 * 0.803e12, rel=0.01)
    assert need.peak("ddp", 4) > need.peak("fsdp", 4) > 4 * WEIGHTS


def test_what_stands_beside_the_network_is_counted(sd15, monkeypatch):
    """The VAE, CLIP's text encoder and the safety checker, by their published sizes; of a hub's
    repository by its index. Each process reads them, and keeps them for the pictures.
    """
    import huggingface_hub

    sizes = 83_653_863 + 123_060_480 + 303_981_588
    assert beside("sd", str(sd15)) == sizes and beside("sd", None) == 0 == beside("shapes", "x")
    index = {"_class_name": "x", "unet": ["diffusers", "U"], "vae": ["diffusers", "A"]}
    index |= {"scheduler": ["diffusers", "P"], "feature_extractor": [None, None]}
    (sd15.parent / "model_index.json").write_text(json.dumps(index))

    def download(name, file):
        where = sd15.parent if file == "model_index.json" else sd15
        if not (where / file).is_file():
            raise OSError(f"no {file}")
        return where / file

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert beside("sd", "someone/model") == 83_653_863
    s = settings("--weights", str(sd15), "--micro", "1")
    need = needs(s, 4)
    assert need.memory["ddp"]["other networks"] == need.memory["fsdp"]["other networks"]
    assert need.memory["ddp"]["other networks"] == 4 * sizes
    host = need.host(s, 4, 4)
    assert host["weights being read"] == 4 * 4 * (WEIGHTS + sizes)
    assert host["copy of a checkpoint"] == 12 * WEIGHTS  # once, not four times
    assert host["rows of two steps"] == 2 * 4 * 4 * (4 * 64 * 64 + 77 * 768)


def saved(plan, s, dtype):
    """Bytes that autograd keeps for the backward pass, by its own hooks: the part of the peak
    that they can see.
    """
    recipe, cast = cast_of(plan, s, dtype)
    weights, kept = {p.untyped_storage() for p in cast.trained["student"].inner.parameters()}, {}

    def keep(value):
        if value.device.type == "meta" and value.untyped_storage() not in weights:
            kept[value.untyped_storage()] = value.untyped_storage().nbytes()
        return value

    with LikeAGpu(dtype), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        recipe.phases[0].loss(cast.roles, plan.batch(s.micro), step_draws(0, 0, range(s.micro)))
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_is_what_autograd_saves_and_a_little_more(dtype):
    s = settings("--dtype", dtype, "--micro", "8", "--batch", "8")
    kept, (_, _, found) = saved(blueprint(s), s, getattr(torch, dtype)), needs(s).phases[0]
    assert kept <= found.peak < 1.25 * kept and (found.copies > 0) == (dtype == "bfloat16")


@pytest.mark.parametrize("more", [(), ("--recompute",)], ids=["", "recompute"])
def test_flops_are_those_of_pytorchs_counter(more):
    s = settings(*more)
    recipe, cast = cast_of(plan := blueprint(s), s, torch.bfloat16)
    with FlopCounterMode(display=False) as theirs, LikeAGpu(torch.bfloat16):
        backward(
            recipe.phases[0]
            .loss(cast.roles, plan.batch(s.micro), step_draws(0, 0, range(s.micro)))
            .value
        )
    assert theirs.get_total_flops() == needs(s).phases[0][2].flops


def test_recompute_trades_work_for_memory():
    plain, again, third = (
        needs(settings("--micro", "16", "--batch", "16", *more)).phases[0][2]
        for more in ((), *[("--recompute",)] * 2)
    )
    assert again == third  # nothing waits for Python's garbage collector
    assert again.peak < 0.8 * plain.peak and 1.1 * plain.flops < again.flops < 1.34 * plain.flops


def test_adapters_are_counted_and_the_base_once():
    s = settings("--lora-rank", "4", "--ema", "0.9", "--lora-targets", "to_q")
    layers = [
        layer for name, layer in tiny_pipeline().unet.named_modules() if name.endswith("to_q")
    ]
    wanted, base = (
        4 * sum(layer.in_features + layer.out_features for layer in layers),
        sum(p.numel() for p in tiny_pipeline().unet.parameters()),
    )
    need = needs(s)
    assert need.trained == {"student": wanted} and need.frozen == base and need.averages == wanted
    assert (
        need.memory["ddp"]["weights"] == 2 * base + 4 * wanted
        and need.memory["ddp"]["optimiser"] == 8 * wanted
    )


def test_phases_add_up(monkeypatch):
    """Two networks, the first at every other step, after as many calls without gradient as a
    number says that all rows share: none, one or two. What it leaves in the memo the second
    finds; in other steps it makes a call of its own for it.
    """

    def call(roles, role, batch, x):
        return roles[role](x, schedule.at(0.5), batch.cond).raw

    def student(roles, batch, draw):
        with torch.no_grad():
            for _ in range(draw.shared(3)):
                call(roles, "student", batch, batch.x0)
        made = call(roles, "student", batch, batch.x0)
        batch.memo["made"] = made.detach()
        return Loss(made.square().mean(), {})

    def fake(roles, batch, draw):
        with torch.no_grad():
            x = batch.memo["made"] if batch.memo else call(roles, "student", batch, batch.x0)
        return Loss(call(roles, "fake", batch, x).square().mean(), {})

    parts = {"student": Part("copy"), "teacher": Part("teacher"), "fake": Part("copy")}
    phases = Phase("student", student, every=2), Phase("fake", fake)
    monkeypatch.setitem(recipes.METHODS, "two", lambda schedule, null=None: Recipe(phases, parts))
    words = "--method two --family shapes --tiny --batch 8 --micro 2 --roles.fake.rank 2".split()
    s, half = read([*words, "--device", "cpu"]), 1 / 2
    plan = blueprint(s)
    schedule, batch, (_, cast) = (
        plan.base.schedule,
        plan.batch(2),
        cast_of(plan, s, torch.float32),
    )
    need = needs(s)
    once = lambda: call(cast.roles, "student", batch, batch.x0)
    trained = cost(lambda: backward(once().square().mean()), [], torch.float32).flops
    with torch.no_grad():
        asked = cost(once, [], torch.float32).flops
    first, second, third = need.phases
    assert [work[:2] for work in need.phases] == [("student", half), ("fake", half)] + [
        ("fake", half)
    ]
    assert first.cost.flops == trained + asked  # one call more on average
    assert third.cost.flops == second.cost.flops + asked and 0 < second.cost.flops < trained
    assert need.flops(s) == 4 * half * sum(work.cost.flops for work in need.phases)
    assert need.trained["fake"] < need.trained["student"] == need.step / 4


@pytest.mark.parametrize(
    "words",
    [
        f"ddpo --family shapes --batch 4 {TRIES}",
        # one step of the path is compared with the reference, another one at every step
        f"ddpo --family shapes --batch 4 {TRIES} --hyper.steps 5 --hyper.kl 0",
        "dpo --family shapes --batch 2",
        "reflow --family shapes --batch 2",
        "reward_gradient --batch 1 --micro 1 --reward redness --hyper.steps 1 --prompts cat",
    ],
)
def test_the_work_is_that_of_the_engine_s_own_step(words, more, data, tmp_path, processes):
    """Rollouts, parts, inner epochs, micro-batches and a reward's decoder, to the last FLOP.
    Attention is written out, since a GPU's repeats a product.
    """
    rows = more if "shapes" in words else data
    tiny = f"--tiny --micro 2 --device cpu --data {rows} --out {tmp_path / 'run'}"
    s = read(f"{tiny} --method {words}".split())
    with sdpa_kernel(SDPBackend.MATH):
        need = needs(s)
        engine = open_engine(s, processes)
        with FlopCounterMode(display=False) as theirs:
            engine.advance()
    assert need.flops(s) == theirs.get_total_flops()


@pytest.mark.parametrize(
    "flops, tried",
    [
        (lambda k: 7, [0, 24, 48]),
        (lambda k: k, range(0, 50, 4)),
        (lambda k: k if k in (20, 24, 28) else 0, range(0, 50, 4)),
    ],
    ids=["nothing", "with it", "in the middle"],
)
def test_a_shared_number_that_changes_no_cost_is_tried_at_three_values(flops, tried):
    """Each once, and all of them as soon as one of the three differs."""
    asked = []

    def step(shared):
        asked.append(shared.shared(50))
        return [Work("part", Fraction(1), Cost(flops(asked[-1]), 0, 0))], 5

    every, memo = in_turn(step)
    found = [work.cost.flops for (work,) in every]
    assert sorted(asked) == list(tried) and memo == 5
    assert found == ([7] if len(tried) == 3 else [flops(k) for k in tried])


def test_the_kinds_of_a_loss_s_parts_come_in_one_order():
    """Whichever comes first in the loss: a draw may say so."""
    leaf, called = empty(3, grad=True), []

    def once() -> Loss:
        return Loss((called.append("once"), leaf.sum())[1], {})

    def twice() -> Loss:
        return Loss((called.append("twice"), 2 * leaf.sum())[1], {})

    for made in ([partial(once)] + 2 * [partial(twice)], [twice, once, twice]):
        phase, cast = Phase("student", lambda *given: made), SimpleNamespace(roles={})
        found = [(n, part())[0] for n, part in backed(phase, cast, None, None, [leaf])]
        assert found == [1, 2]
    assert called == 2 * ["once", "twice"]


def test_what_is_rolled_out_stays_for_the_whole_step():
    """DDPO's memo, of each of four micro-batches: five pictures, four numbers, a reward and
    an advantage a row.
    """
    words = "--method ddpo --family shapes --tiny --batch 8 --micro 2 --device cpu".split()
    words = [*words, *methods.TRIES]
    two, one = (needs(read(words), processes).memory["ddp"] for processes in (1, 2))
    row = 4 * (5 * 3 * 16 * 16 + 4 + 1 + 1)  # bytes; and a number for all rows
    assert two["activations"] - one["activations"] == 2 * (2 * row + 4)


def test_rollouts_by_a_solver_are_counted_without_their_numbers():
    """NFT looks whether its samples and shares are in their range, which nothing on the meta
    device can say. Each step of the walk is work.
    """
    words = "--method nft --family shapes --tiny --reward shapes --batch 8 --micro 4".split()
    words += "--hyper.group 2 --hyper.spacing sd_trailing --hyper.solver ddim".split()
    at = lambda steps: read([*words, "--hyper.steps", str(steps)])
    one, two = (needs(at(steps)).flops(at(steps)) for steps in (1, 2))
    assert 0 < one < two < 2 * one


def test_gradients_are_not_counted_as_activations(monkeypatch):
    """The sum of all weights has gradients and nothing else."""

    def method(schedule, null=None):
        return Recipe(
            (
                Phase(
                    "student",
                    lambda roles, batch, draw: Loss(
                        sum(w.sum() for w in roles["student"].net.parameters()), {}
                    ),
                ),
            ),
            {"student": Part("copy")},
        )

    monkeypatch.setitem(recipes.METHODS, "sum", method)
    need = needs(read(["--method", "sum", "--tiny"]))
    assert need.phases[0][2].peak < 0.01 * need.memory["ddp"]["gradients"]


def test_nothing_is_left_behind():
    """Neither the caller's random state nor gradients of anything real."""
    state = torch.get_rng_state()
    needs(settings())
    assert torch.equal(state, torch.get_rng_state())


def test_report_says_everything_and_its_settings_are_a_recipe(tmp_path):
    s = settings("--data", str(tmp_path), "--steps", "100")
    said = report(s, processes=2)
    table = said.split("# settings\n")[1].split("# parameters")[0]
    (tmp_path / "again.toml").write_text(table)
    assert tomllib.loads(table)["hyper"] == {"weight": "eps"} and as_table(
        read([str(tmp_path / "again.toml")])
    ) == as_table(s)
    assert (
        "student, trained" in said
        and "memory of one of 2 process(es)" in said
        and "memory of the host of 2 process(es)" in said
        and "copy of a checkpoint" in said
        and "fsdp" in said
        and "ASSUMING 35%" in said
        and "H200" in said
    )
    many = settings("--batch", "32")
    assert (
        "hybrid" in report(many, 16).split("# memory")[1]
        and "hybrid" not in said.split("# memory")[1]
    )
    owned = needs(many, 16).memory
    assert (
        owned["hybrid"]["optimiser"]
        == 2 * owned["fsdp"]["optimiser"]
        == owned["ddp"]["optimiser"] / 8
    )
    assert (
        "fsdp" not in report(settings("--lora-rank", "2", "--device", "cpu")).split("# memory")[1]
    )
    assert "no time is given for float32" in report(settings("--device", "cpu"))


@pytest.mark.parametrize(
    ("words", "decodes"), [("dpo", False), ("nft --reward redness --hyper.group 2", True)]
)
def test_report_says_that_no_picture_is_decoded_where_no_reward_looks_at_one(words, decodes):
    s = read(f"--method {words} --family shapes --tiny --batch 2 --micro 2".split())
    said = report(s).replace("\n", " ")
    assert ("Training decodes no pictures" in said) is not decodes
    assert "repared data are mapped, not read." in said


def test_latents_have_the_shape_of_the_data(tmp_path):
    (tmp_path / "info.json").write_text(json.dumps({"shape": [4, 8, 24]}))
    assert blueprint(settings("--data", str(tmp_path))).sides == (4, 8, 24) and blueprint(
        settings()
    ).sides == (4, 16, 16)
    for text in ("", '{"shape": [4', "[]", "{}"):
        (tmp_path / "info.json").write_text(text)
        with pytest.raises(ValueError, match="info.json is damaged .*full_scale.prepare command"):
            blueprint(settings("--data", str(tmp_path)))


def test_dry_run_and_command_line(capsys, monkeypatch):
    words = ["finetune", "--tiny", "--batch", "4", "--micro", "2", "--dtype", "float32"]
    train.main([*words, "--dry-run"])
    dry = capsys.readouterr().out
    estimate.main(words)
    assert dry == capsys.readouterr().out and "memory of one of 1 process(es)" in dry
    # as torchrun starts them: one of them speaks
    for rank, said in (("0", "memory of one of 2 process(es)"), ("1", "")):
        with monkeypatch.context() as patch:
            for name, value in {"RANK": rank, "WORLD_SIZE": "2"}.items():
                patch.setenv(name, value)
            train.main([*words, "--dry-run"])
        out = capsys.readouterr().out
        assert said in out and bool(out) == bool(said)
    for more, match in (
        (["--processes", "x"], "--processes x: wanted a whole number"),
        (["--processes", "3"], "not a multiple of 3 process"),
        (["--processes"], "--processes : wanted"),
        (["--weights", "both"], "both --weights and --tiny"),
    ):
        with pytest.raises(SystemExit, match=f"^full_scale.estimate: .*{match}"):
            estimate.main([*words, *more])


def test_the_smallest_change_that_fits_a_card(capsys, monkeypatch):
    """Nothing, gradient checkpointing, smaller micro-batches, moments of 8 bits, adapters: each
    is what is said where there is room for it, and for nothing before it.
    """
    known = {}  # two settings that were read apart are of different classes

    def count(s, processes=1):
        key = str(as_table(s))
        known[key] = known.get(key) or needs(s, processes)
        return known[key]

    monkeypatch.setattr(card, "needs", count)
    shapes = "finetune --family shapes --tiny --batch 24 --micro 12 --device cpu".split()
    peak = lambda words: count(read(words)).peak("ddp", 1)
    room = lambda words: 1.001 * peak(words) / (0.9 * 2**30)
    for words, flags in (
        (shapes, ""),
        (shapes, "--recompute --micro 6"),
        (shapes, "--recompute --micro 3"),
        (shapes, "--optimizer adamw8bit"),
        (shapes, "--lora-rank 64 --recompute --micro 1"),
        (["finetune", "--tiny", "--micro", "16", "--dtype", "float32"], "--recompute"),
    ):
        wanted = [*words, *flags.split()]
        said, s = card.fitting(read(words), 1, room(wanted))
        assert said == flags and as_table(s) == as_table(read(wanted))
    with pytest.raises(ValueError, match="does not fit: it needs at least .* trains adapters"):
        card.fitting(read(shapes), 1, 1e-6)
    with pytest.raises(SystemExit, match="^full_scale.estimate: --card x: wanted the GB"):
        estimate.main([*shapes, "--card", "x"])
    estimate.main([*shapes, "--card", "24"])
    assert capsys.readouterr().out.startswith("# to fit on a card of 24 GB add: nothing\n")


def test_weights_without_configuration(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="has no unet/config.json"):
        blueprint(settings("--weights", str(tmp_path)))
    import huggingface_hub

    def absent(*given, **more):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    with pytest.raises(
        ValueError, match="no such folder, and the hub did not give unet/config.json"
    ):
        blueprint(settings("--weights", "someone/model"))


def test_examples():
    assert doctest.testmod(counting).failed == doctest.testmod(estimate).failed == 0


def test_a_pass_without_gradient_takes_none_from_the_next():
    """A student that is its own target is asked without gradient first; its weights' copies in
    half precision are made anew for the pass that has one.
    """
    net, x = nn.Linear(6, 6, bias=False, device=META), empty(4, 6)
    net.weight.grad = empty(6, 6)

    def run():
        with torch.no_grad():
            target = net(x)
        backward((net(x) - target).float().square().mean())

    assert cost(run, [x, net.weight, net.weight.grad], torch.bfloat16).flops == 3 * 2 * 4 * 6 * 6
