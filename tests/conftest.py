"""For every test: components first, since importing it settles how torch's threads wait."""

import components  # noqa: F401
