"""The command line takes settings in several places, and nothing it does not know."""

import pytest

from innerloop.cli.main import parse


@pytest.mark.parametrize(
    "line",
    [
        "rl meta-train a.b=1 c.d=2 --config-name scaling_fomaml --source p",
        "rl meta-train a.b=1 --config-name scaling_fomaml c.d=2 --source p",
        "rl meta-train a.b=1 --config-name scaling_fomaml --source p c.d=2",
        "rl meta-train --config-name scaling_fomaml a.b=1 --source p c.d=2",
        "rl meta-train --config-name scaling_fomaml --source p a.b=1 c.d=2",
    ],
)
def test_settings_may_stand_anywhere(line: str) -> None:
    options = parse(line.split())
    assert options.overrides == ["a.b=1", "c.d=2"]
    assert (options.config_name, str(options.source)) == ("scaling_fomaml", "p")


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("rl train a.b=1 --config-name x more", "more"),
        ("rl train --no-such=1", "--no-such=1"),
        ("worker a=1", "a=1"),
        ("serve a.b=1", "a.b=1"),
    ],
)
def test_what_is_not_known_is_refused(line: str, left: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse(line.split())
    assert ending.value.code == 2
    assert f"unrecognized arguments: {left}" in capsys.readouterr().err
