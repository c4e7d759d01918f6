# SPDX-License-Identifier: Apache-2.0
"""Where model bytes enter the enclave: files of the host, clear or sealed, checked on their way into tensors."""
