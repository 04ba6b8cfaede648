"""An error has five parts, and keeps them on the way out of a worker process."""

import pickle

from tvg.errors import TvgError


def test_five_parts_survive_pickling():
    error = TvgError("a.yaml", "unknown key", got=6, expected="steps", hint="did you mean 'steps'?")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.got == 6
    for part in ("a.yaml", "unknown key", "6", "steps", "did you mean"):
        assert part in str(error)
