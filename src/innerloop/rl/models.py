"""The models of a comparison as the command line names them, and the settings it changes."""

from collections.abc import Sequence
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.rl.artifacts import load_artifact
from innerloop.rl.config import TestConfig, config_from_dict, to_dict
from innerloop.settings.layers import read_overrides


def named_models(words: Sequence[str]) -> dict[str, Path]:
    """``NAME=PATH`` words as a dictionary.

    Raises:
        InputError: a word of another form, a name given twice, or one that a table cannot hold.
    """
    models: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise InputError(f"--model {word!r} is not of the form NAME=PATH")
        if name in models:
            raise InputError(f"--model names {name} twice")
        if "|" in name:
            raise InputError(f"the name '{name}' would break the table; leave the '|' out")
        models[name] = Path(path)
    return models


def test_settings(models: dict[str, Path], overrides: Sequence[str]) -> TestConfig:
    """The test settings of the first model, with some of them set anew.

    Raises:
        InputError: a setting outside ``test``, or one that is wrong.
    """
    path = next(iter(models.values()))
    config = load_artifact(path).config
    if outside := [key for key in read_overrides(overrides).values if key != "test"]:
        raise InputError(f"evaluation takes test.* settings, not {', '.join(outside)}")
    return config_from_dict(to_dict(config), str(path), overrides).test
