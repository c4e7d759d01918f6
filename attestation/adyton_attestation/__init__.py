# SPDX-License-Identifier: Apache-2.0
"""The RATS verifier: evidence, endorsements and a policy in; a result, or a typed refusal, out."""
