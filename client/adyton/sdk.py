# SPDX-License-Identifier: Apache-2.0
"""What the ready-made openai SDK objects of both clients have in common.

The SDK is an optional extra and is imported only when an object of it is asked for. Version 3.52 is typed for
``httpx2`` clients and accepts ``httpx`` clients at run time; the two casts here bridge exactly that. It wraps
and retries only httpx's own errors, so errors of our tree reach the caller unchanged.
"""

from typing import TYPE_CHECKING, Final, cast

import httpx

from adyton.address import INNER_BASE_URL
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    import httpx2
    import openai

_BASE_URL: Final = f"{INNER_BASE_URL}/v1"

_API_KEY_PLACEHOLDER: Final = "not-sent"
"""The SDK insists on a key. The appliance's own key is for the host and travels outside the seal."""

_HINT: Final = "the openai SDK is not installed; install it with: pip install 'adyton[openai]'"


def make_openai(http: httpx.Client, *, max_retries: int) -> "openai.OpenAI":
    """Make a synchronous SDK object on top of a sealed HTTP client.

    Raises:
        ConfigError: The SDK is not installed.
    """
    try:
        import openai  # noqa: PLC0415 - an optional extra.
    except ImportError as error:
        raise ConfigError(_HINT) from error
    return openai.OpenAI(
        api_key=_API_KEY_PLACEHOLDER,
        base_url=_BASE_URL,
        http_client=cast("httpx2.Client", http),
        max_retries=max_retries,
    )


def make_async_openai(http: httpx.AsyncClient, *, max_retries: int) -> "openai.AsyncOpenAI":
    """Make an asynchronous SDK object on top of a sealed HTTP client.

    Raises:
        ConfigError: The SDK is not installed.
    """
    try:
        import openai  # noqa: PLC0415 - an optional extra.
    except ImportError as error:
        raise ConfigError(_HINT) from error
    return openai.AsyncOpenAI(
        api_key=_API_KEY_PLACEHOLDER,
        base_url=_BASE_URL,
        http_client=cast("httpx2.AsyncClient", http),
        max_retries=max_retries,
    )
