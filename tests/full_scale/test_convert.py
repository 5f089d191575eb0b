"""Published weights of rewards into safetensors: random tensors under the published names."""

from __future__ import annotations

import pickle
import shutil

import pytest
import tiny_clip
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import normalize

from full_scale import convert, rewards
from full_scale.rewards.encoders import LARGE

CPU = torch.device("cpu")


class Block(nn.Module):
    """A block of OpenCLIP's transformer, with its names."""

    def __init__(self, width, heads, inner):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)}
        )

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))  # tiny_clip's activation


def blocks(width, heads, inner, depth=1):
    return nn.ModuleDict(
        {"resblocks": nn.ModuleList(Block(width, heads, inner) for _ in range(depth))}
    )


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 8, 8, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(16))
        self.positional_embedding = nn.Parameter(torch.randn(5, 16))
        self.ln_pre, self.ln_post = nn.LayerNorm(16), nn.LayerNorm(16)
        self.transformer = blocks(16, 2, 32)
        self.proj = nn.Parameter(torch.randn(16, 8))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        x = self.ln_pre(x + self.positional_embedding)
        x = self.transformer["resblocks"][0](x)
        return self.ln_post(x[:, 0]) @ self.proj


class OpenCLIP(nn.Module):
    """As large as tiny_clip, with OpenCLIP's names."""

    def __init__(self, words):
        super().__init__()
        self.visual, self.transformer = Vision(), blocks(16, 2, 32)
        self.token_embedding, self.ln_final = nn.Embedding(words, 16), nn.LayerNorm(16)
        self.positional_embedding = nn.Parameter(torch.randn(16, 16))
        self.text_projection = nn.Parameter(torch.randn(16, 8))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))

    def text(self, ids, last):
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((16, 16), float("-inf")).triu(1)
        x = self.ln_final(self.transformer["resblocks"][0](x, mask))
        return x[torch.arange(len(x)), last] @ self.text_projection


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip.write(tmp_path_factory.mktemp("clip"))


def predictor(width):
    """The aesthetic predictor's tensors on vectors of this width, under the published names."""
    sizes = (width, 1024, 128, 64, 16, 1)
    shapes = {k: (b, a) for k, a, b in zip((0, 2, 4, 6, 7), sizes, sizes[1:])}
    weights = {f"layers.{k}.weight": torch.randn(shape) for k, shape in shapes.items()}
    return weights | {f"layers.{k}.bias": torch.randn(b) for k, (b, _) in shapes.items()}


def test_the_aesthetic_predictor_lands_beside_its_clip(clip, tmp_path):
    """Of the published widths, and of a tiny CLIP's, which opens with it."""
    from transformers import CLIPConfig

    CLIPConfig(**LARGE).save_pretrained(tmp_path / "large")
    tiny = shutil.copytree(clip, tmp_path / "tiny")
    for folder, width in ((tmp_path / "large", 768), (tiny, 8)):
        state, file = predictor(width), tmp_path / f"{width}.pth"
        torch.save(state, file)
        convert.main(["aesthetic", str(file), "--clip", str(folder)])
        found = load_file(folder / "aesthetic.safetensors")
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], value) for name, value in state.items())
        with pytest.raises(SystemExit, match="is there already; nothing was overwritten"):
            convert.main(["aesthetic", str(file), "--clip", str(folder)])
    assert rewards.opened("aesthetic", str(tiny), CPU)(torch.zeros(2, 3, 16, 16), [""] * 2).shape


def test_hps_says_what_openclip_s_network_says(clip, tmp_path):
    """A picture's vector and a caption's, by a plain network with OpenCLIP's names; of weights
    that were saved in half precision, from several GPUs. Of the CLIP's folder come the
    tokenizer's files, and no index of weights that are not there.
    """
    from transformers import AutoTokenizer

    clip = shutil.copytree(clip, tmp_path / "clip")
    (clip / "merges.txt").write_text("#version: 0.2")
    (clip / "model.safetensors.index.json").write_text("{}")
    tokenizer = AutoTokenizer.from_pretrained(clip)
    torch.manual_seed(0)
    theirs = OpenCLIP(len(tokenizer)).eval()
    for name, value in theirs.named_parameters():
        if value.ndim < 2 and name != "logit_scale":
            nn.init.normal_(value)  # biases and norms are 0 and 1 at first, and hide a slip
    theirs = theirs.half().float()
    half = {f"module.{name}": value.half() for name, value in theirs.state_dict().items()}
    torch.save({"state_dict": half}, tmp_path / "hps.pt")
    out = tmp_path / "hps"
    words = ["hps", str(tmp_path / "hps.pt"), "--clip", str(clip), "--out", str(out)]
    convert.main(words)
    x, captions = torch.rand(2, 3, 16, 16) * 2 - 1, ["a cat", "a red circle and a blue square"]
    ours = rewards.encoders.open_encoder("hps", str(out), CPU)
    ids = tokenizer(
        captions, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    ).input_ids
    last = (ids == tokenizer.eos_token_id).int().argmax(1)
    with torch.no_grad():
        seen = normalize(theirs.visual(((x + 1) / 2 - ours.mean) / ours.std), dim=1)
        read = normalize(theirs.text(ids, last), dim=1)
    torch.testing.assert_close(ours.pictures(x), seen, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.texts(captions), read, rtol=0, atol=1e-5)
    rewards.check("hps", str(out))
    written = load_file(out / "model.safetensors")
    assert all(value.dtype == torch.float32 for value in written.values())
    assert (out / "merges.txt").exists() and not list(out.glob("*.index.json"))
    with pytest.raises(SystemExit, match="exists and is not empty"):
        convert.main(words)


class Code:
    def __reduce__(self):
        return print, ("ran",)


def test_other_files_are_refused_and_run_nothing(clip, tmp_path, capsys):
    file, where = tmp_path / "x.pth", ["--clip", str(clip)]
    refused = {
        "cannot be read as weights alone": lambda: file.write_bytes(pickle.dumps(Code(), 2)),
        "no weights by name": lambda: torch.save([1, 2], file),
        r"in 2 places: layers.0.bias is missing, wanted \(1024,\); layers.0.weight is": lambda: (
            torch.save({k: v for k, v in predictor(8).items() if ".0." not in k}, file)
        ),
        r"in 1 places: layers.0.weight is \(1024, 9\), wanted \(1024, 8\)": lambda: torch.save(
            predictor(9), file
        ),
    }
    for says, make in refused.items():
        make()
        with pytest.raises(SystemExit, match=says):
            convert.main(["aesthetic", str(file), *where])
    assert capsys.readouterr().out == "" and not (clip / "aesthetic.safetensors").exists()
    with pytest.raises(SystemExit, match="no config.json there"):
        convert.main(["aesthetic", str(file), "--clip", str(tmp_path)])
    with pytest.raises(SystemExit, match="in .* places: layers.0.bias is"):
        convert.main(["hps", str(file), *where, "--out", str(tmp_path / "out")])
