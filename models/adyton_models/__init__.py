# SPDX-License-Identifier: Apache-2.0
"""Makes and measures the model that Adyton ships; nothing here runs inside the enclave or at serving time."""
