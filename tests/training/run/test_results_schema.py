"""docs/results.schema.json describes what the scripts write; `results_of` holds every run of the suite to it."""

from dataclasses import fields

import pytest
from helpers import results_schema
from jsonschema import Draft202012Validator, ValidationError

from training.run.results import Results
from training.storage.run_folder import SCHEMA

ADDED = {"judge"}  # by another script, to a finished run


def test_the_schema_is_one_and_has_every_field_that_a_run_writes_and_no_other():
    schema = results_schema().schema
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == {field.name for field in fields(Results)} | ADDED
    assert schema["properties"]["schema"]["const"] == SCHEMA
    names = [field.name for field in fields(Results)]
    assert names[0] == "script" and names[-1] == "curve" and names.index("test") < names.index("curve")


@pytest.mark.parametrize("wrong", [{}, {"script": "x", "schema": 0}, {"surprise": 1}])
def test_what_no_run_writes_is_refused(wrong):
    with pytest.raises(ValidationError):
        results_schema().validate(wrong)
