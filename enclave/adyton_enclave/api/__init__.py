# SPDX-License-Identifier: Apache-2.0
"""The OpenAI-compatible API behind the gateway."""
