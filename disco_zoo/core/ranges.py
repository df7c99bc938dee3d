"""Number types with a range, for signatures that are the schema of a recipe's section; pydantic has the others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
EmaMomentum = Annotated[float, Field(ge=0, lt=1)]


Interpolation = Literal["bilinear", "bicubic"]
