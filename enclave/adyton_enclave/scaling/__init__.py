# SPDX-License-Identifier: Apache-2.0
"""Verified search: compute spent at the time of the answer, on the engine's branches and the scorer's scores.

Each strategy is a module with one coroutine over :class:`~adyton_enclave.scaling.search.Search`. How the answer is
chosen in the end is :mod:`adyton_protocol.selection`, where an auditor can do it again.
"""
