# SPDX-License-Identifier: Apache-2.0
"""``python -m adyton_host``."""

import sys

from adyton_host.cli import main

if __name__ == "__main__":
    sys.exit(main())
