"""The home page's paths are dlib's: the committed file is what the library computes today."""

import base64
import json

import numpy as np

from book import play


def _load(text):
    return json.loads(text.split("window.playData = ")[1].rstrip().rstrip(";"))


def _unpack(run):
    return np.frombuffer(base64.b64decode(run["path"]), "<i2").astype(int)


def test_the_committed_paths_are_what_the_library_computes():
    kept, fresh = _load(play.FILE.read_text()), play.data()
    assert kept["modes"] == fresh["modes"] and len(kept["runs"]) == len(fresh["runs"]) == len(
        play.SOLVERS
    ) * len(play.STEPS)
    for old, new in zip(kept["runs"], fresh["runs"]):
        assert (old["solver"], old["steps"]) == (new["solver"], new["steps"])
        assert abs(old["error"] - new["error"]) <= 1e-4
        # one unit of 16 bits, for another machine's rounding
        assert np.abs(_unpack(old) - _unpack(new)).max() <= 1


def test_paths_have_every_state_and_stay_inside_the_stored_range():
    for run in play.data()["runs"]:
        values = _unpack(run)
        assert values.size == (run["steps"] + 1) * play.POINTS * 2
        assert np.abs(values).max() < 32767


def test_the_page_itself_computes_nothing():
    script = (play.FILE.parent / "play.js").read_text()
    assert not any(word in script for word in ("Math.exp", "Math.log", "sigma", "alpha"))
