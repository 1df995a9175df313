"""Pydantic models, if that is installed; what the host has, plugins have."""

from datetime import date

from pydantic import BaseModel, Field, ValidationError

EXPECTED = {"model": {"name": "ada", "born": "1815-12-10", "tags": ["x"]}, "errors": 1}


class Person(BaseModel):
    name: str = Field(min_length=1)
    born: date
    tags: list[str] = []


def run(params):
    person = Person.model_validate({"name": "ada", "born": "1815-12-10", "tags": ["x"]})
    try:
        Person.model_validate({"name": "", "born": "1815-12-10"})
    except ValidationError as error:
        return {"model": person.model_dump(mode="json"), "errors": error.error_count()}
