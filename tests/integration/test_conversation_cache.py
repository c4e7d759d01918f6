# SPDX-License-Identifier: Apache-2.0
"""A conversation with a cache salt through the running appliance: sealed, counted, and the same answers."""

import secrets

from appliance import Appliance
from tiny_appliance import TINY

QUESTION = {"role": "user", "content": "Ann has 12 apples and buys 30 more. How many apples does she have?"}


def test_the_next_turn_finds_what_the_last_one_computed(tiny_appliance: Appliance) -> None:
    """With a salt the second turn finds the first; with another salt, or none, it does not. Answers are equal."""
    with tiny_appliance.client() as client:
        sdk = client.openai()
        first = sdk.chat.completions.create(
            model=TINY,
            max_tokens=8,
            messages=[QUESTION],
            seed=1,
            extra_body={"cache_salt": (salt := secrets.token_urlsafe())},
        )
        answer = first.choices[0].message.content
        again = {"role": "user", "content": "And if she eats 2 of them?"}
        history = [QUESTION, {"role": "assistant", "content": answer}, again]
        found = {}
        for name, extra in (
            ("mine", {"cache_salt": salt}),
            ("other", {"cache_salt": "x" * 16}),
            ("none", {}),
        ):
            turn = sdk.chat.completions.create(
                model=TINY, max_tokens=8, messages=history, seed=2, service_tier="flex", extra_body=extra
            )
            assert turn.service_tier == "flex"
            assert turn.usage is not None
            assert turn.usage.prompt_tokens_details is not None
            found[name] = (turn.usage.prompt_tokens_details.cached_tokens, turn.choices[0].message.content)
        assert (found["mine"][0] or 0) > 10
        assert found["other"][0] == found["none"][0] == 0
        assert len({text for _, text in found.values()}) == 1
