# SPDX-License-Identifier: Apache-2.0
"""Wire formats and sealing, pure, for both ends.

SECURITY: nothing is imported here, or the host's ``adyton_protocol.media`` would bring the sealing code along.
"""
