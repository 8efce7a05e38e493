"""Kinds of values that settings of every domain have."""

from typing import Annotated, Literal

from innerloop.settings.constraints import HomePath, NotEmpty, Range, SingleName

Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(at_least=0)]
Fraction = Annotated[float, Range(at_least=0, at_most=1)]
Probability = Annotated[float, Range(at_least=0, below=1)]
Count = Annotated[int, Range(at_least=1)]
CountOrAll = Count | Literal[-1]
Seed = Annotated[int, Range(at_least=0, below=2**32)]
Betas = tuple[Probability, Probability]
Text = Annotated[str, NotEmpty()]
LocalPath = Annotated[str, NotEmpty(), HomePath()]
TaskName = Annotated[str, SingleName()]
