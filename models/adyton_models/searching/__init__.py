# SPDX-License-Identifier: Apache-2.0
"""Measuring searches: the strategies of the enclave, on problems with answers, in this process.

Candidates are sampled once for a problem and a seed, as a *pool*. Every strategy that samples whole answers chooses
among the first of them, by the very function that the enclave and an auditor use, and comes to the very answer that the
search itself would have; a search over a tree runs as it is served.
"""
