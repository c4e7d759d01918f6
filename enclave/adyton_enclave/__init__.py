# SPDX-License-Identifier: Apache-2.0
"""The enclave: attester, gateway, API and engine; everything here is measured."""
