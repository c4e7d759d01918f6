# SPDX-License-Identifier: Apache-2.0
"""Choosing among candidates: pure functions that the enclave applies and anybody can apply again.

Everything here is deterministic bit for bit: candidates in the order of their making, plain double arithmetic,
ties to the earliest. So an auditor who is given the candidates of a receipt finds the very choice that was signed.
"""
