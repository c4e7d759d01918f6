# SPDX-License-Identifier: Apache-2.0
"""Where endorsements come from: Intel's service, a caching service, a cache on disk, a bundle, a file.

The only part of the verifier that does I/O, and no part of an appraisal: everything had here is data that is then
appraised like data from anybody else. What could not be had is an
:class:`~adyton_protocol.errors.EndorsementsUnavailable`, which says nothing about the platform; what is refused is an
:class:`~adyton_protocol.errors.AttestationError`, which does.
"""
