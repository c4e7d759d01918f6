# SPDX-License-Identifier: Apache-2.0
"""``python -m adyton`` is the command ``adyton``."""

import sys

from adyton.cli import main

sys.exit(main())
