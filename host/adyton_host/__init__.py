# SPDX-License-Identifier: Apache-2.0
"""The untrusted host: relay, supervisor, operator commands. See README.md beside this package."""
