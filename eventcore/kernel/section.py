"""What every table of `eventcore.toml` is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eventcore.kernel.errors import InvalidName

T = TypeVar("T")


def unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order of their first place."""
    return tuple(dict.fromkeys(names))


def as_value_error(check: Callable[[str], T], text: str) -> T:
    """`check(text)`; a name that is none raises ValueError."""
    # pydantic collects ValueErrors with their place; any other exception would end the whole validation.
    try:
        return check(text)
    except InvalidName as error:
        raise ValueError(str(error)) from None


# The models are strict, so that "yes" is no boolean and "60" no number; TOML has only lists, hence strict=False here.
Seconds = Annotated[float, Field(gt=0, le=3600)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Words = Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(unique)]


class Section(BaseModel):
    """One table of `eventcore.toml`. A key that is not known is an error: most often it is a typo."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)
