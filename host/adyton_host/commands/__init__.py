# SPDX-License-Identifier: Apache-2.0
"""What an operator types after ``adyton-host``, one module each."""
