# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `adyton-models`; each module adds its parsers and runs them."""
