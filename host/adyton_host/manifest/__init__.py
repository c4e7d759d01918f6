# SPDX-License-Identifier: Apache-2.0
"""Makes, checks, measures and signs the Gramine manifest of the enclave.

Nothing here is trusted by a client: what counts is the measurement that comes out of it. Whoever renders the same
files again gets the same manifest, byte for byte, on any machine and in any directory.
"""
