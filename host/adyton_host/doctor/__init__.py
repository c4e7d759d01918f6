# SPDX-License-Identifier: Apache-2.0
"""Looks at a machine before an appliance is started on it, and says what is missing and which command mends it.

Reads, never changes, anything; opens connections to the AESM service and to the PCCS and sends nothing.
"""
