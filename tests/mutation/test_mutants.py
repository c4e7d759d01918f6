# SPDX-License-Identifier: Apache-2.0
"""Mutants are what they say, have names that last, and those that may survive exist and have a reason."""

import ast

import pytest

from mutants import mutants, mutated
from run_mutants import ROOT, all_mutants, groups, survivors, targets

SOURCE = '''
LIMIT = 3
def check(values, limit=2):
    """Says nothing."""
    if len(values) > limit and not values[0]:
        raise ValueError(f"{LIMIT} at most")
    for value in (1, 2):
        values.append(value)
    return values == [LIMIT, True]
'''


def test_each_operator_makes_its_fault() -> None:
    """One small function has all the faults that one would put into it by hand, and none in its text."""
    names = {mutant.name for mutant in mutants(SOURCE)}
    for expected in (
        "<module> constant: 3 -> 4",
        "check boolean: not values[0] -> values[0]",
        "check comparison: len(values) > limit -> len(values) >= limit",
        "check condition: len(values) > limit and (not values[0]) -> False",
        "check element: (1, 2) -> (2,)",
        "check call: values.append(value) -> pass",
        "check return: return values == [LIMIT, True] -> return True",
        "check constant: True -> False",
    ):
        assert expected in names
    assert not any("at most" in name or "Says" in name for name in names)


def test_each_mutant_differs_in_one_place_from_the_source() -> None:
    """A mutant is another program than the source and than every other mutant, and compiles."""
    found = [ast.unparse(mutated(SOURCE, mutant)) for mutant in mutants(SOURCE)]
    assert len({*found, ast.unparse(ast.parse(SOURCE))}) == len(found) + 1
    for text in found:
        compile(text, "mutant", "exec")


def test_names_do_not_depend_on_lines() -> None:
    """What is known of a mutant outlives an edit elsewhere in its module."""
    moved = "# a comment\n\nOTHER = 1\n" + SOURCE
    assert {m.name for m in mutants(SOURCE)} < {m.name for m in mutants(moved)}


@pytest.mark.parametrize("module", targets())
def test_every_mutant_of_the_verifier_has_a_name_of_its_own(module: str) -> None:
    """Results and reasons are kept by name."""
    names = [mutant.name for mutant, _ in all_mutants(module)]
    assert len(set(names)) == len(names)


def test_every_module_has_tests_that_exist() -> None:
    """No module is left out, and no file of tests has moved away."""
    found = groups(targets())
    assert sorted(module for modules, _ in found for module in modules) == sorted(targets())
    for _, tests in found:
        assert all((ROOT / path).is_file() for path in tests)


def test_every_survivor_exists_and_has_a_reason() -> None:
    """A reason for a fault that is not there any more is taken off the list."""
    for (module, name), reason in survivors().items():
        assert name in {mutant.name for mutant, _ in all_mutants(module)}, name
        assert len(reason.split()) >= 6
