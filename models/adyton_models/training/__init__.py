# SPDX-License-Identifier: Apache-2.0
"""Training of the shipped model; the only code of the project that imports torch."""
